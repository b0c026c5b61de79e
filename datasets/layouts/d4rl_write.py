"""Any log as a D4RL file, and beside its arrays, under metadata/poise, what gives the log back to the bit.

    observations         the flat keys of `obs` side by side, in their order; without any, the cameras, flattened
    next_observations    the same of `next_obs`, where the log has them all
    terminals            terminations; absent where a log knows `dones` of unknown kind alone
    timeouts             truncations; made from the episodes' ends where a log has none
    infos/<column>       every other column that all episodes have alike
    metadata/poise/log   JSON: episodes (name, steps, attributes), filters, attributes, which columns are where
    metadata/poise/columns/<i>/<column>   what episode i has in a form of its own

Legend: N rows.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import DatasetError
from ..log import Log
from ..log_spec import is_image
from ..packed import pack
from .columns import alike

KEPT = "metadata/poise"
FORMAT = 1
MARKS = {"terminals": "terminations", "timeouts": "truncations"}

Parts = list[tuple[str, tuple[int, ...], np.dtype]]  # (column, shape of a row, type) side by side in one array


def write(path: Path, log: Log) -> list[str]:
    """Write the log, and say what a reader of D4RL files does not see of it.

    Raises:
        DatasetError: the file exists, the disk refuses it, or the log has no observations, actions or steps.
    """
    arrays = _plan(log)
    with _new_file(path) as h5:
        for name, parts in arrays.items():
            _fill(h5, name, parts, log)
        made = _marks(h5, log, arrays)
        _apart(h5, log, arrays)
        extras = _extras(h5, log)
        kept = {
            "format": FORMAT,
            "columns": {n: [(c, list(s), d.str) for c, s, d in parts] for n, parts in arrays.items()},
            "episodes": [{"name": e.name, "steps": e.steps, "attributes": pack(dict(e.attributes))}
                         for e in log.episodes],
            "filters": {name: list(names) for name, names in log.filters.items()},
            "attributes": pack(dict(log.attributes)),
            "extras": extras,
        }  # fmt: skip
        h5.create_dataset(f"{KEPT}/log", data=json.dumps(kept))
        return _unseen(log, arrays, made, h5)


def _plan(log: Log) -> dict[str, Parts]:
    """Array of the file -> the columns side by side in it."""
    if not log.steps:
        raise DatasetError(f"{log.path} holds no step, and a D4RL file needs some")
    uniform = _uniform(log)
    seen = _observations(log, uniform)
    arrays: dict[str, Parts] = {"observations": [(name, *uniform.pop(name)) for name in seen]}
    following = [f"next_{name}" for name in seen]
    if all(uniform.get(n) == (s, d) for n, (_, s, d) in zip(following, arrays["observations"], strict=True)):
        arrays["next_observations"] = [(name, *uniform.pop(name)) for name in following]
    for name in ("actions", "rewards", "terminals", "timeouts", *(("dones",) if "terminations" not in uniform else ())):
        column = MARKS.get(name, name)
        if column in uniform:
            arrays[name] = [(column, *uniform.pop(column))]
    if "actions" not in arrays:
        raise DatasetError(f"{log.path} has no actions alike in all episodes, which a D4RL file needs; "
                           f"{log.episodes[0].name} has {', '.join(log.episodes[0].columns)}")  # fmt: skip
    return arrays | {f"infos/{name.removeprefix('infos/')}": [(name, *uniform[name])] for name in uniform}


def _uniform(log: Log) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Column -> (shape of a row, type), of those of numbers or bytes that every episode has alike."""
    return {name: form for name, form in alike(log.episodes).items() if form[1].kind in "biufcS"}


def _observations(log: Log, uniform: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> list[str]:
    """The columns that `observations` is made of, of types that one type holds exactly."""
    keys = [name for name in uniform if name.startswith("obs/") and uniform[name][1].kind in "biuf"]
    flat = [name for name in keys if not is_image(log.episodes[0].columns[name])]
    chosen = flat or keys or [name for name in ("states",) if name in uniform]
    if len({uniform[name][1] for name in chosen}) > 1:  # no float holds every whole number of 8 bytes
        chosen = [name for name in chosen if uniform[name][1].kind not in "iu" or uniform[name][1].itemsize < 8]
    if not chosen:
        raise DatasetError(f"{log.path} has no observations or states alike in all episodes, which a D4RL file needs; "
                           f"{log.episodes[0].name} has {', '.join(log.episodes[0].columns)}")  # fmt: skip
    return chosen


def _fill(h5: Any, name: str, parts: Parts, log: Log) -> None:
    """Write one array, an episode at a time; a column alone keeps its shape."""
    dtype = np.result_type(*(dtype for _, _, dtype in parts))
    alone = len(parts) == 1 and name not in ("observations", "next_observations")
    shape = parts[0][1] if alone else (sum(int(np.prod(shape)) for _, shape, _ in parts),)
    if name in MARKS and shape == () and _only_marks(log, MARKS[name]):
        dtype = np.dtype(bool)
    if name in str(log.attributes.get("d4rl_wide", "")).split(",") and shape == ():
        shape = (1,)
    array, row = h5.create_dataset(name, (log.steps, *shape), dtype), 0
    for episode in [e for e in log.episodes if e.steps]:
        columns = [np.asarray(episode.columns[column][:]).reshape(episode.steps, -1) for column, _, _ in parts]
        joined = columns[0] if len(columns) == 1 else np.concatenate([c.astype(dtype) for c in columns], 1)
        array[row : row + episode.steps] = joined.reshape(episode.steps, *shape)
        row += episode.steps


def _only_marks(log: Log, column: str) -> bool:
    return all(np.isin(np.asarray(e.columns[column][:]), (0, 1)).all() for e in log.episodes)


def _marks(h5: Any, log: Log, arrays: Mapping[str, Parts]) -> bool:
    """Write `timeouts` where the log knows what terminates and has no truncations; whether that was done."""
    if "terminals" not in arrays or "timeouts" in arrays:
        return False
    timeouts = np.zeros(log.steps, bool)
    stops = np.cumsum([e.steps for e in log.episodes if e.steps])
    timeouts[stops - 1] = h5["terminals"][()].reshape(-1)[stops - 1] == 0
    h5.create_dataset("timeouts", data=timeouts)
    return True


def _apart(h5: Any, log: Log, arrays: Mapping[str, Parts]) -> None:
    """Write what episodes have in a form of their own."""
    there = {column for parts in arrays.values() for column, _, _ in parts}
    for i, episode in enumerate(log.episodes):
        for name in [name for name in episode.columns if name not in there]:
            values = np.asarray(episode.columns[name][:])
            dtype = h5py.string_dtype() if values.dtype.kind == "O" else values.dtype
            try:
                h5.create_dataset(f"{KEPT}/columns/{i}/{name}", data=values, dtype=dtype)
            except TypeError:
                raise DatasetError(f"{log.path}, {episode.name}: {name} of type {values.dtype} has no place in a D4RL "
                                   "file") from None  # fmt: skip


def _extras(h5: Any, log: Log) -> dict[str, str]:
    """Write the file's own arrays under metadata; name in this file -> name in the log."""
    names = {}
    for name, value in log.extras.items():
        place = name if name.startswith("metadata/") else f"metadata/extras/{name}"
        names[place] = name
        h5.create_dataset(place, data=value)
    return names


def _unseen(log: Log, arrays: Mapping[str, Parts], made: bool, h5: Any) -> list[str]:
    """What a reader that knows nothing of metadata/poise does not see, or sees otherwise."""
    parts = arrays["observations"]
    lines = []
    if len(parts) > 1 or parts[0][1:] != ((int(np.prod(parts[0][1])),), np.dtype(h5["observations"].dtype)):
        lines.append("observations are " + ", ".join(f"{n.removeprefix('obs/')} {s}" for n, s, _ in parts)
                     + f" side by side as {h5['observations'].dtype}")  # fmt: skip
    if moved := [n for n in arrays if n.startswith("infos/") and not arrays[n][0][0].startswith("infos/")]:
        lines.append(f"{', '.join(arrays[n][0][0] for n in moved)} stand under infos/")
    if "rewards" not in arrays:
        lines.append("there are no rewards, which d4rl itself insists on")
    if "terminals" not in arrays:
        lines.append("the log does not tell terminations from truncations, so there are no terminals, which d4rl "
                     "itself insists on")  # fmt: skip
    elif not np.array_equal(_marked(h5), np.cumsum([e.steps for e in log.episodes if e.steps])):
        lines.append("terminals and timeouts mark other rows than the episodes' last ones")
    if made:
        lines.append("timeouts mark the ends of episodes that did not terminate, which the log has no column for")
    if "next_observations" not in arrays:
        lines.append("there are no next_observations: the last step of an episode that did not terminate is without")
    kept = [what for what, there in (("filters", log.filters), ("attributes", log.attributes),
            ("names and attributes of episodes", any(e.attributes for e in log.episodes)),
            ("columns that some episodes have in other forms", f"{KEPT}/columns" in h5)) if there]  # fmt: skip
    return lines + ([f"{', '.join(kept)} are kept under {KEPT}, which Poise alone reads"] if kept else [])


def _marked(h5: Any) -> np.ndarray:
    """(E,) one past each row that is marked as an end."""
    return np.flatnonzero((h5["terminals"][()].reshape(-1) != 0) | (h5["timeouts"][()].reshape(-1) != 0)) + 1


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Any]:
    """A file that takes its name when it is whole."""
    if path.exists():
        raise DatasetError(f"{path} exists; choose another name or move it away")
    hidden = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        with h5py.File(hidden, "w") as h5:
            yield h5
        os.replace(hidden, path)
    except OSError as error:
        raise DatasetError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        hidden.unlink(missing_ok=True)
