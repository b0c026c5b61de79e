"""Minari's layout, version 0.5: a folder with what it says of itself and one HDF5 file.

    NAME-v0/data/metadata.json        total_episodes, total_steps, data_format, observation_space, action_space, …
    NAME-v0/data/main_data.hdf5       episode_<i>, attrs id, total_steps, seed, options/<key>
       observations (T + 1, …)        a Dict is a group, a Tuple a group of _index_<i>, images mostly JPEG
       actions (T, …)   rewards (T,)   terminations (T,)   truncations (T,)   infos/<key> (T + 1, …)
    NAME-v0/data/<i>/part-0.parquet   in place of it where data_format is parquet or arrow (minari_arrow.py)

In a Log the first T observations are `obs/<key>` and the last T `next_obs/<key>`; a space alone is called `state`, an
image alone `image`; infos of T + 1 rows are `infos/<key>` and `next_infos/<key>`. Dict and Tuple actions lie side by
side. What Poise wrote (minari_write.py) carries in data/poise.json what undoes it.

Legend: T steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DatasetError
from ..log import Column, Episode, Log, Rows
from ..packed import unpack
from ..safe_hdf5 import attributes_of, datasets_of, open_hdf5
from .columns import Decoded, SideBySide
from .minari_spaces import Space, is_jpeg, leaves, parse, shape_of
from .minari_write import KEPT, write
from .pictures import decode_all

__all__ = ["read", "recognize", "write"]

LARGEST_TEXT = 1 << 28  # bytes of JSON
PLAIN = ("rewards", "terminations", "truncations")


def recognize(path: Path) -> bool:
    """A folder with Minari's data/metadata.json, or that folder `data`."""
    return "data_format" in _metadata(_data(path)) or "observation_space" in _metadata(_data(path))


def read(path: Path) -> Log:
    """The log of a data set's folder.

    Raises:
        DatasetError: the metadata, the file or an array is not as Minari writes them.
    """
    folder = _data(path)
    if not (metadata := _metadata(folder)):
        raise DatasetError(f"{path} has no data/metadata.json that can be read; a Minari data set is a folder NAME-v0")
    spaces = {name: parse(metadata[key], f"{path}: {key}") if key in metadata else None
              for name, key in (("observations", "observation_space"), ("actions", "action_space"))}  # fmt: skip
    kind = str(metadata.get("data_format", "hdf5"))
    if kind in ("arrow", "parquet"):
        from .minari_arrow import stored_episodes

        stored, release = stored_episodes(folder, kind, spaces), lambda: None
    elif kind == "hdf5":
        h5 = open_hdf5(folder / "main_data.hdf5")
        stored, release = _stored(h5, path), h5.close
    else:
        raise DatasetError(f"{path}: data_format is {kind!r}; Poise reads hdf5, arrow and parquet")
    try:
        return _log(path, metadata, spaces, stored, release)
    except BaseException:
        release()
        raise


def _data(path: Path) -> Path:
    return path / "data" if (path / "data").is_dir() else path


def _metadata(folder: Path) -> dict[str, Any]:
    """What the folder says of itself; nothing where it is none of Minari's."""
    file = folder / "metadata.json"
    try:
        found = json.loads(file.read_text()) if file.is_file() and file.stat().st_size < LARGEST_TEXT else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


Stored = list[tuple[int, dict[str, Column], dict[str, Any]]]  # number of an episode, its arrays by path, its attributes


def _stored(h5: Any, path: Path) -> Stored:
    found: dict[int, dict[str, Column]] = {}
    for name, array in datasets_of(h5, path).items():
        episode, _, key = name.partition("/")
        number = episode.removeprefix("episode_")
        if not number.isdecimal() or not key:
            raise DatasetError(f"{path}: {name} stands where episode_<number>/<array> should")
        found.setdefault(int(number), {})[key] = array
    return [(i, found[i], attributes_of(h5[f"episode_{i}"], path)) for i in sorted(found)]


def _log(
    path: Path, metadata: Mapping[str, Any], spaces: Mapping[str, Space | None], stored: Stored, release: Any
) -> Log:
    jpeg = {name for name, leaf in leaves(spaces["observations"]) if is_jpeg(leaf)} if spaces["observations"] else set()
    if not metadata.get("jpeg_encoding", True):
        jpeg = set()
    notes: dict[str, None] = {}
    if len(stored) != metadata.get("total_episodes", len(stored)):
        notes[f"the metadata says {metadata['total_episodes']} episodes, and {len(stored)} are there"] = None
    if jpeg:
        notes["pictures are JPEG in this file: not to the bit what the camera saw"] = None
    kept = _kept(_data(path), path)
    episodes = []
    for place, (number, arrays, attributes) in enumerate(stored):
        where = f"{path}, episode_{number}"
        columns = _columns(where, arrays, spaces, jpeg, notes)
        name = f"demo_{number}"
        if kept is not None:
            name, columns, attributes = _undone(where, kept, place, columns)
        episodes.append(Episode(name, columns, attributes))
    own = {"minari_metadata": json.dumps(metadata), **_bounds(spaces["actions"])}
    if kept is None:
        return Log(path, "minari", episodes, own, {}, {}, tuple(notes), release)
    attributes, filters = unpack(kept["attributes"]), {n: tuple(names) for n, names in kept["filters"].items()}
    return Log(path, "minari", episodes, attributes, filters, unpack(kept["extras"]), tuple(notes), release)


def _columns(where: str, arrays: Mapping[str, Column], spaces: Mapping[str, Space | None], jpeg: set[str],
             notes: dict[str, None]) -> dict[str, Column]:  # fmt: skip
    """The columns of one episode, T by its actions."""
    actions = {name: a for name, a in arrays.items() if name == "actions" or name.startswith("actions/")}
    if not actions:
        raise DatasetError(f"{where} has no actions; it has {', '.join(arrays)}")
    if len(actions) > 1 and spaces["actions"] is not None:
        order = [f"actions/{name}" for name, _ in leaves(spaces["actions"])]
        if set(order) != set(actions):
            raise DatasetError(f"{where} has {', '.join(actions)}, and its action_space {', '.join(order)}")
        actions = {name: actions[name] for name in order}
        notes[f"actions are {', '.join(n.removeprefix('actions/') for n in order)} side by side"] = None
    steps = next(iter(actions.values())).shape[0]
    columns: dict[str, Column] = {"actions": next(iter(actions.values())) if len(actions) == 1 else
                                  SideBySide(list(actions.values()))}  # fmt: skip
    for name, array in arrays.items():
        group, _, key = name.partition("/")
        if group in PLAIN and not key:
            columns[name] = _of_steps(where, name, array, steps)
        elif group == "infos" and key:
            columns |= _paired(where, f"infos/{key}", f"next_infos/{key}", array, steps)
        elif group == "observations":
            shown = _decoded(where, key, array, spaces["observations"]) if key in jpeg else array
            alone = "image" if len(shown.shape) == 4 and shown.dtype == np.uint8 else "state"
            pair = _paired(where, f"obs/{key or alone}", f"next_obs/{key or alone}", shown, steps)
            if len(pair) == 1:
                notes["observations of some episodes have no last row: what followed the last action is unknown"] = None
            columns |= pair
        elif group != "actions":
            raise DatasetError(f"{where} has {name}, which Minari does not write")
    return columns


def _of_steps(where: str, name: str, array: Column, steps: int) -> Column:
    if array.shape != (steps,):
        raise DatasetError(f"{where}: {name} has shape {array.shape}, and there are {steps} actions")
    return array


def _paired(where: str, name: str, following: str, array: Column, steps: int) -> dict[str, Column]:
    """T + 1 rows as the first T and the last T; T rows alone."""
    rows = array.shape[0] if array.shape else -1
    if rows == steps:
        return {name: array}
    if rows != steps + 1:
        raise DatasetError(f"{where}: {name} has {rows} rows, expected {steps + 1}, one more than the actions")
    return {name: Rows(array, 0, steps), following: Rows(array, 1, steps + 1)}


def _decoded(where: str, key: str, array: Column, space: Space | None) -> Column:
    """Pictures of JPEG bytes, decoded where they are asked for."""
    shape, what = shape_of(dict(leaves(space))[key]) if space else (), key or "observations"

    def pictures(start: int, stop: int) -> np.ndarray:
        told = lambda i: f"{where}: picture {start + i} of {what}"  # noqa: E731
        return decode_all(array[start:stop], shape, ("JPEG",), told)

    return Decoded(pictures, (array.shape[0], *shape), np.dtype(np.uint8))


def _bounds(space: Space | None) -> dict[str, Any]:
    """What the actions range over, where that is not [-1, 1]; how many choices there are."""
    if space is None:
        return {}
    if space["type"] == "Discrete":
        return {"action_n": int(space["start"]) + int(space["n"])}
    boxes = [leaf for _, leaf in leaves(space)]
    if any(leaf["type"] != "Box" or not str(leaf["dtype"]).startswith("float") for leaf in boxes):
        return {}
    low, high = (np.concatenate([np.asarray(b[end], np.float64).reshape(-1) for b in boxes]) for end in ("low", "high"))
    if not (np.isfinite(low) & np.isfinite(high)).all() or ((low == -1) & (high == 1)).all():
        return {}
    return {"action_low": low, "action_high": high}


def _kept(folder: Path, path: Path) -> dict[str, Any] | None:
    """What minari_write.py put beside the data."""
    file = folder / KEPT
    if not file.is_file():
        return None
    try:
        kept = json.loads(file.read_text()) if file.stat().st_size < LARGEST_TEXT else {}
        return {key: kept[key] for key in ("columns", "made", "episodes", "attributes", "filters", "extras")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(f"{path}: data/{KEPT}, which Poise wrote, is damaged: {error}; without it the folder can be "
                           "read as any Minari data set") from None  # fmt: skip


def _undone(where: str, kept: Mapping[str, Any], place: int, columns: Mapping[str, Column]) -> Any:
    """(name, columns, attributes) of the episode as the log that was written had them."""
    try:
        entry, names = kept["episodes"][place], kept["columns"]
        own = {names.get(name, name.removeprefix("infos/poise/")): column for name, column in columns.items()
               if name not in kept["made"]}  # fmt: skip
        return str(entry["name"]), own, unpack(entry["attributes"])
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DatasetError(f"{where}: data/{KEPT}, which Poise wrote, does not know it: {error}") from None
