"""D4RL's layout: the rows of all episodes one after the other in flat arrays.

    observations (N, O)  actions (N, A)  rewards (N,) or (N, 1)  terminals (N,) or (N, 1)
    timeouts (N,)            absent in old files, whose episodes d4rl_ends.py finds
    next_observations (N, O) absent in most: then the last step of an episode has no successor, unless it terminated
    infos/<key> (N, …)       metadata/<key>: the file's own, scalars too
    virtual/<i>/<key>        a file in chunks: the rows of chunk 0, chunk 1, …

In a Log, `observations` is `obs/state`, `terminals` is `terminations` and `timeouts` is `truncations`; rewards and ends
are (T,). What Poise wrote (d4rl_write.py) carries under metadata/poise what undoes it.

Legend: N rows, O observation, A action, T steps of an episode.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DatasetError, UsageError
from ..log import Column, Episode, Log, Rows
from ..packed import unpack
from ..safe_hdf5 import attributes_of, datasets_of, open_hdf5, shallow_names
from .columns import Joined, Part
from .d4rl_ends import episode_ends
from .d4rl_write import KEPT, write

__all__ = ["read", "recognize", "write"]

NAMES = {
    "observations": "obs/state",
    "next_observations": "next_obs/state",
    "terminals": "terminations",
    "timeouts": "truncations",
}
FLAT = ("observations", "next_observations", "actions", "rewards", "terminals", "timeouts")
LARGEST_EXTRA = 1 << 26  # numbers of an array that belongs to no row: the weights of a policy are far fewer
NARROW = ("rewards", "terminals", "timeouts")  # (N, 1) in some files


def recognize(path: Path) -> bool:
    """HDF5 with arrays `observations` and `actions` at its root, or in chunks of such."""
    names = shallow_names(path)
    return all(names.get(key) == "dataset" for key in ("observations", "actions")) or names.get("virtual") == "group"


def read(path: Path, horizon: str = "") -> Log:
    """The log of a file; `horizon`: steps after which an episode ended, for files that do not say.

    Raises:
        DatasetError: an array is missing, or has other rows than the actions.
        UsageError: the horizon is no number of steps.
    """
    if horizon and (not horizon.isdecimal() or int(horizon) == 0):
        raise UsageError(f"horizon={horizon} should be a number of steps, such as 1000")
    h5 = open_hdf5(path)
    try:
        return _log(path, h5, int(horizon or 0))
    except BaseException:
        h5.close()
        raise


def _log(path: Path, h5: Any, horizon: int) -> Log:
    found: dict[str, Column] = datasets_of(h5, path)
    arrays, notes = _unchunked(path, {name: a for name, a in found.items() if not name.startswith(f"{KEPT}/")})
    rows = _checked_rows(path, arrays)
    wide = [name for name in NARROW if name in arrays and arrays[name].shape == (rows, 1)]
    arrays |= {name: Part(arrays[name], 0, (), arrays[name].dtype) for name in wide}
    flat = {name: a for name, a in arrays.items() if a.shape[:1] == (rows,) and not name.startswith("metadata/")}
    extras = {name: _whole(path, name, a) for name, a in arrays.items() if name not in flat}
    attributes = attributes_of(h5, path) | ({"d4rl_wide": ",".join(wide)} if wide else {})
    if f"{KEPT}/log" in found:
        return _restored(path, h5, flat, extras, found, attributes)
    if "terminals" not in flat:
        raise DatasetError(
            f"{path} has no terminals, so nothing says where its episodes end; it has {', '.join(found)}"
        )
    stops, decided = episode_ends(flat, horizon)
    columns = {NAMES.get(name, name): array for name, array in flat.items()}
    episodes = [Episode(f"demo_{i}", {name: Rows(array, start, stop) for name, array in columns.items()})
                for i, (start, stop) in enumerate(_ranges(stops))]  # fmt: skip
    return Log(path, "d4rl", episodes, attributes, {}, extras, (*notes, *decided), h5.close)


def _whole(path: Path, name: str, array: Any) -> Any:
    if array.size > LARGEST_EXTRA:
        raise DatasetError(f"{path}: {name} has shape {array.shape}, and there are other numbers of actions")
    return array[()]


def _ranges(stops: np.ndarray) -> list[tuple[int, int]]:
    return list(zip([0, *stops.tolist()][:-1], stops.tolist(), strict=True))


def _unchunked(path: Path, arrays: dict[str, Column]) -> tuple[dict[str, Column], list[str]]:
    """The arrays, those of chunks one after the other."""
    chunks: dict[int, dict[str, Column]] = {}
    for name in [name for name in arrays if name.startswith("virtual/")]:
        number, _, key = name.removeprefix("virtual/").partition("/")
        if not number.isdecimal() or not key:
            raise DatasetError(f"{path}: {name} should be virtual/<number>/<key>, a chunk's array")
        chunks.setdefault(int(number), {})[key] = arrays.pop(name)
    if not chunks:
        return arrays, []
    if "observations" in arrays:
        return arrays, [f"{len(chunks)} chunks under virtual/ show rows that stand in the file as a whole: left out"]
    ordered = [chunks[i] for i in sorted(chunks)]
    for i, chunk in zip(sorted(chunks), ordered, strict=True):
        if list(chunk) != list(ordered[0]):
            raise DatasetError(f"{path}: virtual/{i} holds {', '.join(chunk)}, and the first chunk "
                               f"{', '.join(ordered[0])}")  # fmt: skip
        _checked_rows(path, chunk, f"virtual/{i}/")
        for key, array in chunk.items():
            if array.dtype != ordered[0][key].dtype or array.shape[1:] != ordered[0][key].shape[1:]:
                raise DatasetError(f"{path}: virtual/{i}/{key} is {array.dtype} {array.shape[1:]}, in the first chunk "
                                   f"{ordered[0][key].dtype} {ordered[0][key].shape[1:]}")  # fmt: skip
    joined: dict[str, Column] = {key: Joined([chunk[key] for chunk in ordered]) for key in ordered[0]}
    return arrays | joined, [f"the rows of {len(ordered)} chunks, one after the other"]


def _checked_rows(path: Path, arrays: Mapping[str, Column], where: str = "") -> int:
    """N."""
    for name in ("observations", "actions"):
        if name not in arrays or not arrays[name].shape:
            raise DatasetError(f"{path} has no array {where}{name}; it has {', '.join(arrays) or 'nothing'}")
    rows = arrays["actions"].shape[0]
    for name in FLAT:
        if name in arrays and arrays[name].shape[:1] != (rows,):
            raise DatasetError(f"{path}: {where}{name} has shape {arrays[name].shape}, and there are {rows} actions")
    for name in NARROW:
        if name in arrays and arrays[name].shape not in ((rows,), (rows, 1)):
            raise DatasetError(
                f"{path}: {where}{name} has shape {arrays[name].shape}, expected ({rows},) or ({rows}, 1)"
            )
    if "next_observations" in arrays and arrays["next_observations"].shape != arrays["observations"].shape:
        raise DatasetError(f"{path}: {where}next_observations has shape {arrays['next_observations'].shape}, and "
                           f"observations {arrays['observations'].shape}")  # fmt: skip
    return rows


def _restored(path: Path, h5: Any, flat: dict[str, Column], extras: dict[str, Any], found: Mapping[str, Column],
              attributes: dict[str, Any]) -> Log:  # fmt: skip
    """The log that d4rl_write.py was given."""
    try:
        kept = json.loads(str(found[f"{KEPT}/log"][()]))
        columns: dict[str, Column] = {}
        for name, parts in kept["columns"].items():
            start = 0
            for column, shape, dtype in parts:
                columns[column] = Part(flat[name], start, tuple(shape), np.dtype(dtype))
                start += int(np.prod(shape))
        stops = np.cumsum([entry["steps"] for entry in kept["episodes"]])
        if stops[-1] != flat["actions"].shape[0] or min(entry["steps"] for entry in kept["episodes"]) < 0:
            raise ValueError(f"episodes of {stops[-1]} steps in all")
        apart = _apart(found)
        episodes = []
        for i, ((start, stop), entry) in enumerate(zip(_ranges(stops), kept["episodes"], strict=True)):
            own = {name: Rows(column, start, stop) for name, column in columns.items()} | apart.get(str(i), {})
            episodes.append(Episode(str(entry["name"]), own, unpack(entry["attributes"])))
        extras = {kept["extras"].get(name, name): value for name, value in extras.items()}
        filters = {str(name): tuple(str(e) for e in names) for name, names in kept["filters"].items()}
        attributes = unpack(kept["attributes"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DatasetError(f"{path}: what Poise wrote under {KEPT} is damaged: {error}; without that group the file "
                           "can be read as any D4RL file") from None  # fmt: skip
    return Log(path, "d4rl", episodes, attributes, filters, extras, (), h5.close)


def _apart(found: Mapping[str, Column]) -> dict[str, dict[str, Column]]:
    """Number of an episode -> the columns that are its alone."""
    own: dict[str, dict[str, Column]] = {}
    for name in found:
        if name.startswith(f"{KEPT}/columns/"):
            number, _, column = name.removeprefix(f"{KEPT}/columns/").partition("/")
            own.setdefault(number, {})[column] = found[name]
    return own
