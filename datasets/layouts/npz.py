"""Episodes in an npz: flat arrays one after the other, and where each episode ends; read without any pickle.

ours             episode_ends (E,) int64, one past each last row; names (E,); the columns by their names, / as in a log
imitation        obs (S + E, …) with the observation after the last action, acts, rews, indices, terminal
OGBench          terminals is 1 on the last observation of a trajectory, whose action is no step
others           observations, actions, … with terminals, dones or timeouts where episodes end

Legend: S steps, E episodes.
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DatasetError
from ..log import Episode, Log
from ..packed import pack, unpack
from .columns import alike
from .paths import NAMES, split_flat

RATIO = 1100  # deflate cannot shrink further than 1032 times
FORMAT = "poise_log"
BEHIND = "episode_ends"


def recognize(path: Path) -> bool:
    """A zip archive of .npy files."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return path.suffix == ".npz"  # damaged: reading it says how
    return bool(names) and all(name.endswith(".npy") for name in names)


def read(path: Path) -> Log:
    """The log; all arrays are in memory.

    Raises:
        DatasetError: damaged, larger than its bytes can be, or no episodes.
    """
    arrays, notes = _arrays(path)
    if FORMAT in arrays:
        return _ours(path, arrays)
    if {"obs", "acts", "indices", "terminal"} <= set(arrays):
        return _imitation(path, arrays, notes)
    columns = {NAMES.get(name, name): array for name, array in arrays.items()}
    if "actions" not in columns or not columns["actions"].shape:
        raise DatasetError(f"{path}: expected arrays of actions and more, found {', '.join(arrays) or 'nothing'}")
    rows = len(columns["actions"])
    flat = {name: array for name, array in columns.items() if array.shape[:1] == (rows,)}
    extras = {name: array for name, array in columns.items() if name not in flat}
    ends = [np.asarray(flat[name]).reshape(rows) != 0 for name in ("dones", "terminations", "truncations")
            if name in flat and flat[name].size == rows]  # fmt: skip
    marked = np.logical_or.reduce(ends) if ends else np.zeros(rows, bool)
    stops = np.flatnonzero(marked) + 1
    if not marked.any() or not marked[-1]:
        notes.append("the last row is marked as no end: the last episode counts as cut off there")
        stops = np.append(stops, rows)
    if "dones" in flat and "terminals" in arrays and _ogbench(arrays):
        return _without_last_rows(path, flat, stops, extras, notes)
    return Log(path, "npz", split_flat(flat, stops), extras=extras, notes=tuple(notes))


def write(path: Path, log: Log) -> list[str]:
    """Write our own form; columns that episodes have in other forms are kept one by one."""
    together = list(alike(log.episodes))
    arrays: dict[str, Any] = {name: np.concatenate([np.asarray(e.columns[name][:]) for e in log.episodes])
                              for name in together}  # fmt: skip
    for i, episode in enumerate(log.episodes):
        apart = [name for name in episode.columns if name not in together]
        arrays |= {f"apart/{i}/{name}": np.asarray(episode.columns[name][:]) for name in apart}
    if odd := [name for name, array in arrays.items() if array.dtype.kind not in "biufcSU"]:
        raise DatasetError(
            f"{log.path}: {odd[0]} of type {arrays[odd[0]].dtype} has no place in an npz without pickles"
        )
    arrays[BEHIND] = np.cumsum([e.steps for e in log.episodes]).astype(np.int64)
    kept = {"episodes": [(e.name, pack(dict(e.attributes))) for e in log.episodes], "columns": together,
            "attributes": pack(dict(log.attributes)), "filters": {k: list(v) for k, v in log.filters.items()},
            "extras": pack(dict(log.extras))}  # fmt: skip
    arrays[FORMAT] = np.frombuffer(json.dumps(kept).encode(), np.uint8)
    with path.open("xb") as file:
        np.savez(file, **arrays)
    return [f"attributes and filters are kept in {FORMAT}, which Poise alone reads"]


# ---- its forms -----------------------------------------------------------------------------------


def _ours(path: Path, arrays: dict[str, np.ndarray]) -> Log:
    try:
        kept = json.loads(arrays[FORMAT].tobytes())
        stops = arrays[BEHIND].astype(np.int64).tolist()
        episodes = []
        for i, ((name, attributes), start, stop) in enumerate(
            zip(kept["episodes"], [0, *stops[:-1]], stops, strict=True)
        ):
            columns = {column: arrays[column][start:stop] for column in kept["columns"]}
            prefix = f"apart/{i}/"
            columns |= {k.removeprefix(prefix): a for k, a in arrays.items() if k.startswith(prefix)}
            episodes.append(Episode(name, columns, unpack(attributes)))
        filters = {name: tuple(members) for name, members in kept["filters"].items()}
        return Log(path, "npz", episodes, unpack(kept["attributes"]), filters, unpack(kept["extras"]))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DatasetError(f"{path}: what it says of its episodes is damaged: {error}") from None


def _imitation(path: Path, arrays: dict[str, np.ndarray], notes: list[str]) -> Log:
    """Trajectories of the `imitation` library: the last observation of each is there, and whether it terminated."""
    actions, obs = arrays["acts"], arrays["obs"]
    stops, terminal = [*arrays["indices"].tolist(), len(actions)], arrays["terminal"]
    starts = [0, *stops[:-1]]
    if len(obs) != len(actions) + len(stops) or len(terminal) != len(stops) or any(np.diff([0, *stops]) < 0):
        raise DatasetError(f"{path}: {len(actions)} actions in {len(stops)} trajectories need "
                           f"{len(actions) + len(stops)} observations and {len(stops)} ends; found {len(obs)} and "
                           f"{len(terminal)}")  # fmt: skip
    episodes = []
    for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        seen, last = obs[start + i : stop + i + 1], np.arange(start, stop) == stop - 1
        columns = {"obs/state": seen[:-1], "next_obs/state": seen[1:], "actions": actions[start:stop]}
        if "rews" in arrays:
            columns["rewards"] = arrays["rews"][start:stop]
        columns |= {"terminations": last & bool(terminal[i]), "truncations": last & (not terminal[i])}
        episodes.append(Episode(f"demo_{i}", columns))
    return Log(path, "npz", episodes, notes=tuple(notes))


def _ogbench(arrays: dict[str, np.ndarray]) -> bool:
    """Whether the marked rows hold the last observation of a trajectory: no next_observations, qpos of every row."""
    return {"qpos", "qvel"} <= set(arrays) and "next_observations" not in arrays and "rewards" not in arrays


def _without_last_rows(path: Path, flat: dict[str, np.ndarray], stops: np.ndarray, extras: dict[str, np.ndarray],
                       notes: list[str]) -> Log:  # fmt: skip
    notes.append("terminals mark the last observation of a trajectory, whose action is no step: it is the successor")
    episodes = []
    for i, (start, stop) in enumerate(zip([0, *stops[:-1].tolist()], stops.tolist(), strict=True)):
        columns = {name: array[start : stop - 1] for name, array in flat.items() if name != "dones"}
        columns["next_obs/state"] = flat["obs/state"][start + 1 : stop]
        last = np.arange(start, stop - 1) == stop - 2
        columns |= {"terminations": np.zeros(len(last), bool), "truncations": last}
        episodes.append(Episode(f"demo_{i}", columns))
    return Log(path, "npz", episodes, extras=extras, notes=tuple(notes))


# ---- the archive ---------------------------------------------------------------------------------


def _arrays(path: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Every array of numbers or texts, and which others were left out."""
    found: dict[str, np.ndarray] = {}
    notes: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.file_size > RATIO * member.compress_size + (1 << 16):
                    raise DatasetError(f"{path}: {member.filename} would be {member.file_size:,} bytes out of "
                                       f"{member.compress_size:,}")  # fmt: skip
                name = member.filename.removesuffix(".npy")
                with archive.open(member) as file:
                    version = np.lib.format.read_magic(file)
                    read_header = {(1, 0): np.lib.format.read_array_header_1_0,
                                   (2, 0): np.lib.format.read_array_header_2_0}.get(version)  # fmt: skip
                    if read_header is None:
                        raise DatasetError(f"{path}: {name} is of .npy version {version}; expected 1.0 or 2.0")
                    shape, fortran, dtype = read_header(file)
                    if dtype.hasobject:
                        notes.append(f"{name} is a pickle of Python objects: left out, not executed")
                        continue
                    count = math.prod(shape)
                    if dtype.kind not in "biufcSU" or count * dtype.itemsize > member.file_size:
                        raise DatasetError(f"{path}: {name} says type {dtype} and shape {shape}, which its "
                                           f"{member.file_size:,} bytes are not")  # fmt: skip
                    data = file.read(count * dtype.itemsize)
                    array = np.frombuffer(data, dtype, count).reshape(shape, order="F" if fortran else "C")
                    found[name] = array
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError, NotImplementedError, EOFError, KeyError,
            zipfile.zlib.error) as error:  # type: ignore[attr-defined]  # fmt: skip
        raise DatasetError(f"{path} is damaged: {error}") from None
    except SyntaxError as error:  # of a header, which numpy parses as a literal
        raise DatasetError(f"{path} is damaged: {error.msg}") from None
    return found, notes
