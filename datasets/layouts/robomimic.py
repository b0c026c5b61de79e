"""Robomimic's layout, and ours, which is robomimic's with more in it (episodes.py); dialects are read as they are.

    /data            attrs total, env_args (JSON), …
    /data/demo_<i>   attrs num_samples, model_file, success, …
       obs/<key>  next_obs/<key>  actions  rewards  dones  states  …      (T, …)
       initial_state/…                                                   arrays of the episode: its attributes
    /mask/<filter>   names of episodes
    /poise_extras    arrays of the file and of no episode, from other layouts
    /log             what a recorder kept beside the episodes (real_robot/recorder.py), which is left alone here

Isaac Lab leaves out rewards and ends, LIBERO names its pictures' convention: what is not there stays absent. A writer
adds what robomimic insists on (env_args, dones), says so under `poise_made`, and a reader leaves it out again.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import DatasetError
from ..log import Column, Episode, Log
from ..packed import pack, unpack
from ..safe_hdf5 import attributes_of, datasets_of, open_hdf5, shallow_names

NAME = re.compile(r"demo_(0|[1-9]\d{0,17})")
LOG = "log"
MADE, REAL_NAME, EXTRAS, JSON = "poise_made", "poise_name", "poise_extras", "poise_json:"
GYM = {"env_name": "unknown", "type": 2, "env_kwargs": {}}
LARGE = 60_000  # bytes of an attribute, of which HDF5 takes 64 kB
APART = "initial_state/"  # arrays below this are of an episode, not of its steps
ARRAYS = "poise_arrays"  # attribute of an episode: which other arrays are so too


def recognize(path: Path) -> bool:
    """HDF5 with a group `data` of demo_<i>, with env_args, num_samples or observations."""
    if shallow_names(path).get("data") != "group":
        return False
    with contextlib.suppress(DatasetError, OSError, RuntimeError, KeyError, ValueError), open_hdf5(path) as h5:
        data: Any = h5["data"]
        first: Any = next(
            (data[name] for name in data if isinstance(data.get(name, getlink=True), h5py.HardLink)), None
        )
        told = isinstance(first, h5py.Group) and ("num_samples" in first.attrs or "obs" in first)
        return "env_args" in data.attrs or told
    return False


# ---- reading -------------------------------------------------------------------------------------


def read(path: Path) -> Log:
    """The log; columns are read when asked for.

    Raises:
        DatasetError: damaged, with links to elsewhere, or without a group `data`.
    """
    h5 = open_hdf5(path)
    try:
        return _read(h5, path)
    except DatasetError:
        h5.close()
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        h5.close()
        raise DatasetError(f"{path} is damaged: {error}") from None


def _read(h5: Any, path: Path) -> Log:
    if not isinstance(h5.get("data"), h5py.Group):
        raise DatasetError(f"{path} has no group 'data'; found {', '.join(map(str, h5)) or 'nothing'}")
    arrays = datasets_of(h5, path)
    attributes = _unpacked(attributes_of(h5["data"], path))
    made = json.loads(str(attributes.pop(MADE, "[]")))
    for name in set(made) & set(attributes):
        del attributes[name]
    episodes, names, notes = _episodes(h5["data"], path, arrays, made)
    notes += _doubts(attributes, episodes, made)
    filters = {name.removeprefix("mask/"): tuple(names.get(member, member) for member in _texts(array, path, name))
               for name, array in arrays.items() if name.startswith("mask/")}  # fmt: skip
    extras = {name.removeprefix(f"{EXTRAS}/"): array[()] for name, array in arrays.items()
              if name.startswith(f"{EXTRAS}/")}  # fmt: skip
    if beyond := sorted({name.partition("/")[0] for name in arrays} - {"data", "mask", LOG, EXTRAS}):
        notes.append(f"{', '.join(beyond)}: no part of this layout, and not read")
    if len(h5.attrs):
        notes.append(f"{', '.join(map(str, h5.attrs))} at the root: no attributes of this layout, and not read")
    return Log(path, "robomimic", episodes, attributes, filters, extras, tuple(notes), h5.close)


def _episodes(data: Any, path: Path, arrays: Mapping[str, Any], made: list[str]):
    """The episodes in order of their numbers, file name -> name where they differ, and notes."""
    columns: dict[str, dict[str, Column]] = {name: {} for name in data if isinstance(data[name], h5py.Group)}
    for name, array in arrays.items():
        _, _, rest = name.partition("data/")
        demo, _, column = rest.partition("/")
        if name.startswith("data/") and column and demo in columns:
            columns[demo][column] = array
    if odd := [name for name in columns if not NAME.fullmatch(name)]:
        raise DatasetError(f"{path}: {odd[0]!r} is no name of an episode; expected demo_0, demo_1, …")
    episodes, names, notes = [], {}, []
    for demo in sorted(columns, key=lambda name: int(name.removeprefix("demo_"))):
        attributes = _unpacked(attributes_of(data[demo], path))
        names[demo] = str(attributes.pop(REAL_NAME, demo))
        own = {*made, *json.loads(str(attributes.pop(ARRAYS, "[]")))}
        steps = {k: c for k, c in columns[demo].items() if c.shape and not k.startswith(APART) and k not in own}
        attributes |= {k: c[()] for k, c in columns[demo].items() if k not in steps and k not in made}
        episode = Episode(names[demo], steps, attributes)
        said = attributes.pop("num_samples") if "num_samples" in made else attributes.get("num_samples", episode.steps)
        if np.ndim(said) or said != episode.steps:
            notes.append(f"{demo} says num_samples {said}, and has {episode.steps} steps")
        episodes.append(episode)
    return episodes, names, notes


def _doubts(attributes: Mapping[str, Any], episodes: list[Episode], made: list[str]) -> list[str]:
    """What a person should know of the file."""
    notes, steps = [], sum(episode.steps for episode in episodes)
    if not episodes:
        notes.append("there is no episode in it")
    if np.ndim(total := attributes.get("total", steps)) or total != steps:
        notes.append(f"the file says total {total}, and has {steps} steps")
    if str(attributes.get("macros_image_convention", "")) == "opengl":
        notes.append("pictures are upside down (macros_image_convention opengl)")
    if episodes and "terminations" not in episodes[0].columns and "dones" in episodes[0].columns:
        notes.append("dones do not say whether an episode terminated or ran out of time")
    return notes


def _texts(array: Any, path: Path, name: str) -> list[str]:
    """The names in a filter."""
    values = np.asarray(array[()])
    if values.ndim != 1 or values.dtype.kind not in "SO":
        raise DatasetError(f"{path}: {name} should be a list of episodes' names, and is {values.dtype} {values.shape}")
    try:
        return [v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist()]
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: {name} holds names that are no text") from None


# ---- writing -------------------------------------------------------------------------------------


def write(path: Path, log: Log) -> list[str]:
    """Write the log, contiguous so that it can be memory-mapped; nothing is lost, and what was added is said.

    Raises:
        DatasetError: a filter has a name that cannot be one.
    """
    ends = all({"terminations", "truncations"} <= set(e.columns) and "dones" not in e.columns for e in log.episodes)
    made = [name for name in ("env_args", "total") if name not in log.attributes]
    made += ["dones"] if ends and log.episodes else []
    made += ["num_samples"] if any("num_samples" not in e.attributes for e in log.episodes) else []
    added = {"env_args": json.dumps(GYM), **log.attributes, "total": log.steps}
    write_plain(path, log, added | ({MADE: json.dumps(made)} if made else {}), dones=ends, num_samples=True)
    lines = []
    if "env_args" in made:
        lines.append("there was no env_args, which robomimic insists on: it says an unknown environment")
    if "dones" in made:
        lines.append("dones are terminations and truncations together")
    names = _names(log)
    if any(names[e.name] != e.name for e in log.episodes):
        lines.append(f"episodes are called demo_0 and on, their own names are under {REAL_NAME}")
    if log.extras:
        lines.append(f"{', '.join(list(log.extras)[:4])} … are kept under {EXTRAS}, which Poise alone reads")
    return lines


def write_plain(path: Path, log: Log, attributes: Mapping[str, Any], *, dones: bool, num_samples: bool) -> None:
    """Write the log with these attributes of the file, and with what is asked for besides."""
    names = _names(log)
    with h5py.File(path, "w-") as h5:
        data = h5.create_group("data")
        _store(data, attributes)
        for episode in log.episodes:
            group = data.create_group(names[episode.name])
            renamed = {} if names[episode.name] == episode.name else {REAL_NAME: episode.name}
            counted = {"num_samples": episode.steps} if num_samples else {}
            own = [
                k for k, v in episode.attributes.items() if _as_array(k, v) and np.ndim(v) and not k.startswith(APART)
            ]
            told = {ARRAYS: json.dumps(own)} if own else {}
            _store(group, counted | dict(episode.attributes) | renamed | told)
            _write_columns(group, episode, dones)
        for name, members in log.filters.items():
            if not name or "/" in name:
                raise DatasetError(f"a filter cannot be called {name!r} in a file of robomimic's layout")
            h5[f"mask/{name}"] = np.array([names.get(m, m).encode() for m in members], "S")
        for name, value in log.extras.items():
            h5[f"{EXTRAS}/{name}"] = value


def _names(log: Log) -> dict[str, str]:
    """Name of an episode -> its name in the file."""
    if all(NAME.fullmatch(e.name) for e in log.episodes):
        return {e.name: e.name for e in log.episodes}
    return {e.name: f"demo_{i}" for i, e in enumerate(log.episodes)}


def _write_columns(group: Any, episode: Episode, dones: bool) -> None:
    for name, column in episode.columns.items():
        values = np.asarray(column[:])
        group.create_dataset(name, data=values, dtype=h5py.string_dtype() if values.dtype.kind == "O" else None)
    if dones:
        either = np.asarray(episode.columns["terminations"][:]) | np.asarray(episode.columns["truncations"][:])
        group.create_dataset("dones", data=either.astype(np.uint8))


def _as_array(name: str, value: Any) -> bool:
    """Whether an attribute becomes an array of the file."""
    return "/" in name and isinstance(value, np.ndarray | np.generic)


def _store(group: Any, attributes: Mapping[str, Any]) -> None:
    """Attributes as HDF5 has them, arrays of an episode as datasets, and what HDF5 has no type for as JSON."""
    for name, value in attributes.items():
        plain = isinstance(value, str | int | float | np.generic | np.ndarray)
        if _as_array(name, value):
            group.create_dataset(name, data=value)
        elif plain and getattr(value, "nbytes", 0) < LARGE and getattr(value, "dtype", np.dtype(int)).kind != "O":
            group.attrs[name] = value
        else:
            group.attrs[f"{JSON}{name}"] = json.dumps(pack(value))


def _unpacked(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_pairs(attributes))


def _pairs(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in attributes.items():
        if name.startswith(JSON):
            yield name.removeprefix(JSON), unpack(json.loads(str(value)))
        else:
            yield name, value
