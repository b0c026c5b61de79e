"""LeRobot's data sets, versions 2.0, 2.1 and 3.0: import only. Needs pyarrow (`pip install 'poise[lerobot]'`).

    meta/                                          lerobot_meta.py
    data/chunk-000/episode_000000.parquet          2.x: an episode a file
    data/chunk-000/file-000.parquet                3.0: many
    videos/…mp4                                    decoded when frames are asked for

    observation.state           obs/state          next.reward     rewards
    observation.images.front    obs/front          next.done       terminations
    action, actions             actions            other columns   infos/<name>

Actions are in the robot's units, so the log says what they range over (attributes `action_low`, `action_high`), and how
long a step is (`control_dt`). There are no successors; an episode's end is the end of its record unless `next.done`
says that the task ended.

Legend: T steps, A action.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DatasetError
from ..log import Column, Episode, Log
from .columns import Decoded, SideBySide
from .lerobot_meta import Meta, action_range, read_json, read_meta
from .pictures import decode_all, film
from .tables import Table, numbers

INDEX = ("index", "frame_index", "episode_index")  # told by where a row stands
NARROW = {"next.reward": "rewards", "next.done": "terminations"}


def recognize(path: Path) -> bool:
    """A folder with meta/info.json that says which version of LeRobot's layout it is of."""
    if not (path / "meta/info.json").is_file():
        return False
    try:
        return "codebase_version" in read_json(path / "meta/info.json")
    except DatasetError:
        return False


def read(path: Path) -> Log:
    """The log of a data set's folder; of an incomplete copy the episodes that are there.

    Raises:
        DatasetError: nothing is there, or a file is damaged or at odds with what meta/ says.
    """
    meta = read_meta(path)
    tables, places = _places(meta)
    if not places:
        raise DatasetError(f"{path}: none of the {len(meta.episodes)} episodes of meta/ has its data, such as "
                           f"{meta.info.get('data_path')}")  # fmt: skip
    notes = []
    if len(places) != int(meta.info.get("total_episodes", len(places))):
        notes.append(f"the metadata says {meta.info['total_episodes']} episodes, and {len(places)} are there")
    cameras = _cameras(meta, list(places), notes)
    names = _names(meta, cameras)
    if not (actions := [key for key, name in names.items() if name == "actions"]):
        raise DatasetError(f"{path} has no action; it has {', '.join(meta.features)}")
    if len(actions) > 1:
        notes.append(f"actions are {', '.join(actions)} side by side")
    if "next.done" not in names:
        notes.append("no next.done: every episode counts as cut off where its record ends")
    episodes = [
        _episode(meta, index, tables[file], start, stop, names) for index, (file, start, stop) in places.items()
    ]
    return Log(path, "lerobot", episodes, _attributes(meta, actions, episodes), {}, {}, tuple(notes))


def _places(meta: Meta) -> tuple[dict[Path, Table], dict[int, tuple[Path, int, int]]]:
    """The data files, and episode -> (file, first row, one past the last), checked against meta/."""
    tables: dict[Path, Table] = {}
    places: dict[int, tuple[Path, int, int]] = {}
    for file in dict.fromkeys(meta.data_file(index) for index in meta.episodes):
        if not file.is_file():
            continue
        tables[file] = table = Table(file)
        if "episode_index" not in table.names:
            raise DatasetError(f"{file} has no episode_index; it has {', '.join(table.names)}")
        of = numbers(table.column("episode_index"), (), f"{file}: episode_index")
        borders = np.flatnonzero(np.append(True, of[1:] != of[:-1])) if len(of) else np.zeros(0, int)
        for start, stop in zip(borders.tolist(), [*borders[1:].tolist(), len(of)], strict=True):
            index = int(of[start])
            if index in places or index not in meta.episodes or meta.data_file(index) != file:
                raise DatasetError(f"{file}: the rows from {start} on are of episode {index}, which meta/ has "
                                   "elsewhere or not at all")  # fmt: skip
            if stop - start != meta.episodes[index]["length"]:
                raise DatasetError(f"{file}: episode {index} has {stop - start} rows, and "
                                   f"{meta.episodes[index]['length']} by meta/")  # fmt: skip
            places[index] = file, start, stop
    return tables, dict(sorted(places.items()))


def _cameras(meta: Meta, indices: list[int], notes: list[str]) -> list[str]:
    """The features that are pictures or films, of which every film is there."""
    found = []
    for key, feature in meta.features.items():
        if feature["dtype"] == "video":
            missing = sum(not meta.film_file(index, key).is_file() for index in indices)
            if missing:
                notes.append(f"{key} is left out: {missing} of {len(indices)} films are not there")
                continue
        if feature["dtype"] in ("video", "image"):
            found.append(key)
    return found


def _names(meta: Meta, cameras: list[str]) -> dict[str, str]:
    """Feature -> column."""
    names: dict[str, str] = {}
    for key, feature in meta.features.items():
        if key in INDEX or (feature["dtype"] in ("video", "image") and key not in cameras):
            continue
        if key in ("action", "actions") or key.startswith("action."):
            names[key] = "actions"
        elif key in NARROW:
            names[key] = NARROW[key]
        elif key.startswith("observation.") or key in cameras or key == "state":
            short, whole = f"obs/{key.rpartition('.')[2]}", f"obs/{key.removeprefix('observation.')}"
            names[key] = whole if short in names.values() else short
        else:
            names[key] = f"infos/{key}"
    return names


def _episode(meta: Meta, index: int, table: Table, start: int, stop: int, names: Mapping[str, str]) -> Episode:
    columns: dict[str, Column] = {}
    acting: list[Column] = []
    for key, name in names.items():
        column = _column(meta, index, table, start, stop, key, name)
        if name == "actions":
            acting.append(column)
        else:
            columns[name] = column
    columns["actions"] = acting[0] if len(acting) == 1 else SideBySide(acting)
    steps = stop - start
    done = columns.get("terminations", np.zeros(steps, bool))
    last = np.arange(steps) == steps - 1
    columns["terminations"], columns["truncations"] = done, last & (np.asarray(done[:]) == 0)
    tasks = meta.episodes[index].get("tasks")
    told = {"task": "; ".join(map(str, tasks))} if isinstance(tasks, list) and tasks else {}
    return Episode(f"demo_{index}", columns, {"num_samples": steps, **told})


def _column(meta: Meta, index: int, table: Table, start: int, stop: int, key: str, name: str) -> Column:
    """One feature of one episode, read when it is asked for."""
    feature, where = meta.features[key], f"{table.file}: {key}"
    if feature["dtype"] in ("video", "image"):
        shape = _picture_shape(meta, key)
        if feature["dtype"] == "video":
            fetch = film(meta.film_file(index, key), meta.film_start(index, key), float(meta.info["fps"]), shape)
            return Decoded(fetch, (stop - start, *shape), np.dtype(np.uint8))

        def pictures(first: int, end: int) -> np.ndarray:
            coded = [v.get("bytes") if isinstance(v, dict) else v for v in
                     table.column(key, start + first, start + end).to_pylist()]  # fmt: skip
            told = lambda i: f"{where}, picture {first + i}"  # noqa: E731
            return decode_all([c or b"" for c in coded], shape, ("PNG", "JPEG"), told)

        return Decoded(pictures, (stop - start, *shape), np.dtype(np.uint8))
    if key not in table.names:
        raise DatasetError(
            f"{table.file} has no {key}, which meta/info.json describes; it has {', '.join(table.names)}"
        )
    if feature["dtype"] == "string":
        return Decoded(lambda first, end: np.array(table.column(key, start + first, start + end).to_pylist(), object),
                       (stop - start,), np.dtype(object))  # fmt: skip
    try:
        shape = tuple(int(n) for n in feature.get("shape", ()))
        dtype = np.dtype(str(feature["dtype"]))
    except (TypeError, ValueError):
        raise DatasetError(f"{meta.root}: {key} of meta/info.json should have a type and a shape of numbers, found "
                           f"{feature}") from None  # fmt: skip
    if shape == (1,) and not name.startswith(("obs/", "actions")):
        shape = ()

    def rows(first: int, end: int) -> np.ndarray:
        return numbers(table.column(key, start + first, start + end), shape, where).astype(dtype, copy=False)

    return Decoded(rows, (stop - start, *shape), dtype)


def _picture_shape(meta: Meta, key: str) -> tuple[int, int, int]:
    """(height, width, 3); some files have the channels first, and say so in `names`."""
    feature = meta.features[key]
    shape, names = list(feature.get("shape") or []), feature.get("names")
    if isinstance(names, list) and names and str(names[0]).startswith("channel"):
        shape = [*shape[1:], *shape[:1]]
    if len(shape) != 3 or shape[2] != 3 or not all(isinstance(n, int) and 0 < n < 1 << 14 for n in shape):
        raise DatasetError(f"{meta.root}: {key} has shape {feature.get('shape')} and names {names}; Poise reads "
                           "pictures of three channels")  # fmt: skip
    return shape[0], shape[1], 3


def _attributes(meta: Meta, actions: list[str], episodes: list[Episode]) -> dict[str, Any]:
    """What the log says of itself: the robot, the period, what its actions range over."""
    low, high = action_range(meta, actions) or _range_of(episodes)
    still = low == high  # what never moves has no width to scale by
    found = {
        "lerobot_info": json.dumps(meta.info),
        "robot_type": str(meta.info.get("robot_type")),
        "fps": float(meta.info["fps"]),
        "control_dt": 1.0 / float(meta.info["fps"]),
    }
    if any(meta.features[key]["dtype"].startswith("float") for key in actions):
        found |= {"action_low": np.where(still, low - 1.0, low), "action_high": np.where(still, high + 1.0, high)}
    return found


def _range_of(episodes: list[Episode]) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) (A,) of the actions that are there."""
    rows = [np.asarray(e.columns["actions"][:], np.float64).reshape(e.steps, -1) for e in episodes if e.steps]
    if not rows:
        raise DatasetError("the episodes that are there hold no step")
    return np.min([r.min(0) for r in rows], 0), np.max([r.max(0) for r in rows], 0)
