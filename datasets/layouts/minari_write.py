"""Any log as a Minari data set, which `minari.load_dataset` loads, and beside it in poise.json what gives the log back.

    observations   a Dict of the keys of `obs`, T + 1 rows where next_obs[t] is obs[t + 1]; of a key `state` or `image`
                   alone the space itself; never JPEG, which loses
    actions        a Box, or Discrete where actions are whole numbers
    infos/<key>    the columns infos/<key>; every other column is infos/poise/<column>

What Minari insists on and the log does not know (rewards, terminations) is left out and said, not made up.

Legend: T steps.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ...errors import DatasetError
from ..log import Column, Episode, Log
from ..log_spec import action_bounds, is_discrete
from ..packed import pack
from . import minari_spaces

KEPT = "poise.json"
VERSION = "0.5.4"
NAME = re.compile(r"[-_\w]+-v\d+")
ENDS = ("rewards", "terminations", "truncations")


def write(path: Path, log: Log) -> list[str]:
    """Write the log as the folder `path`, and say what Minari does not see of it.

    Raises:
        DatasetError: the folder exists or is not called NAME-v0, the disk refuses it, or the log has no observations
            or actions alike in all episodes.
    """
    if path.exists():
        raise DatasetError(f"{path} exists; choose another name or move it away")
    if not NAME.fullmatch(path.name):
        raise DatasetError(
            f"a Minari data set is a folder called NAME-v0, with letters, digits, - and _; not {path.name!r}"
        )
    shown = _shown(log)
    hidden = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        (hidden / "data").mkdir(parents=True)
        lines = _write(hidden / "data", path, log, shown)
        os.rename(hidden, path)
    except OSError as error:
        raise DatasetError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return lines


def _write(folder: Path, path: Path, log: Log, shown: Mapping[str, str]) -> list[str]:
    ends_known = all("terminations" in e.columns and "truncations" not in e.columns for e in log.episodes)
    made = ["truncations"] if ends_known else []
    names: dict[str, str] = {}
    lines: dict[str, None] = {}
    with h5py.File(folder / "main_data.hdf5", "w", track_order=True) as h5:
        for i, episode in enumerate(log.episodes):
            group = h5.create_group(f"episode_{i}")
            group.attrs.update({"id": i, "total_steps": episode.steps})
            group.create_group("infos")  # without it minari's episodes cannot be shown
            _episode(group, episode, shown, names, lines)
            if made:
                ends = np.zeros(episode.steps, bool)
                ends[-1:] = np.asarray(episode.columns["terminations"][:]).reshape(-1)[-1:] == 0
                group["truncations"] = ends
    size = (folder / "main_data.hdf5").stat().st_size / 1e6
    (folder / "metadata.json").write_text(json.dumps(_metadata(path, log, shown, size)))
    kept = {
        "columns": names,
        "made": made,
        "episodes": [{"name": e.name, "attributes": pack(dict(e.attributes))} for e in log.episodes],
        "attributes": pack(dict(log.attributes)),
        "filters": {name: list(of) for name, of in log.filters.items()},
        "extras": pack(dict(log.extras)),
    }
    (folder / KEPT).write_text(json.dumps(kept))
    return [*lines, *_unseen(log, shown, bool(made))]


def _shown(log: Log) -> dict[str, str]:
    """Column -> its name in the observation space, of what all episodes have alike."""
    if not log.episodes or not log.steps:
        raise DatasetError(f"{log.path} holds no step, and a Minari data set needs some")
    first = log.episodes[0].columns
    alike = [n for n, column in first.items() if all(_same(column, e.columns.get(n), e.steps) for e in log.episodes)]
    if "actions" not in alike:
        raise DatasetError(f"{log.path} has no actions alike in all episodes, which Minari needs; "
                           f"{log.episodes[0].name} has {', '.join(first)}")  # fmt: skip
    keys = [n for n in alike if n.startswith("obs/") and first[n].dtype.kind in "biufO"]
    found = {n: n.removeprefix("obs/") for n in keys} or {n: n for n in ("states",) if n in alike}
    if not found:
        raise DatasetError(f"{log.path} has no observations or states alike in all episodes, which Minari needs; "
                           f"{log.episodes[0].name} has {', '.join(first)}")  # fmt: skip
    if list(found) in (["obs/state"], ["obs/image"]):
        return dict.fromkeys(found, "")
    return found


def _same(column: Column, other: Column | None, steps: int) -> bool:
    return other is not None and (other.dtype, tuple(other.shape)) == (column.dtype, (steps, *column.shape[1:]))


def _episode(
    group: Any, episode: Episode, shown: Mapping[str, str], names: dict[str, str], lines: dict[str, None]
) -> None:
    """Write one episode; a column that goes elsewhere than its name says is entered in `names`."""
    done: set[str] = set()
    for name, column in episode.columns.items():
        if name in done or name.startswith(("next_obs/", "next_infos/")):
            continue
        values = np.asarray(column[:])
        if name in shown or name.startswith("infos/"):
            place = f"observations/{shown[name]}".rstrip("/") if name in shown else name
            following = f"next_{name}"
            if (after := episode.columns.get(following)) is not None:
                joined = _joined(values, np.asarray(after[:]))
                if joined is not None:
                    values = joined
                    done.add(following)
            if name in shown and not name.startswith("obs/"):
                names[f"obs/{shown[name]}"] = name
            _put(group, place, values, episode, name)
        else:
            _put(group, name if name in ("actions", *ENDS) and _flat(name, values) else f"infos/poise/{name}",
                 values, episode, name)  # fmt: skip
    for name in [n for n in episode.columns if n.startswith(("next_obs/", "next_infos/")) and n not in done]:
        lines[f"{name} is not what the next row of {name.removeprefix('next_')} says, and stands under infos/poise"] = (
            None
        )
        _put(group, f"infos/poise/{name}", np.asarray(episode.columns[name][:]), episode, name)


def _flat(name: str, values: np.ndarray) -> bool:
    return name == "actions" or values.ndim == 1


def _joined(values: np.ndarray, after: np.ndarray) -> np.ndarray | None:
    """(T + 1, …) of rows and the rows after them, where these agree to the bit."""
    if (values.dtype, values.shape) != (after.dtype, after.shape) or not len(values):
        return None
    rows, following = values[1:], after[:-1]
    agree = rows.tolist() == following.tolist() if values.dtype.kind == "O" else rows.tobytes() == following.tobytes()
    return np.concatenate([values, after[-1:]]) if agree else None


def _put(group: Any, place: str, values: np.ndarray, episode: Episode, name: str) -> None:
    try:
        dtype = h5py.string_dtype() if values.dtype.kind == "O" else values.dtype
        group.create_dataset(place, data=values, dtype=dtype)  # contiguous, so that it can be memory-mapped
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{episode.name}: {name} of type {values.dtype} has no place in Minari: {error}") from None


def _metadata(path: Path, log: Log, shown: Mapping[str, str], size: float) -> dict[str, Any]:
    """What the data set says of itself; what a Minari data set said that the log was read from, is said again."""
    try:
        before = json.loads(str(log.attributes.get("minari_metadata", "{}")))
    except ValueError:
        before = {}
    parts = {name: _space(log, column) for column, name in shown.items()}
    space = parts[""] if "" in parts else minari_spaces.nested(parts)
    told = {"code_permalink": "", "author": [], "author_email": [], "algorithm_name": ""} | before
    return told | {
        "total_episodes": len(log.episodes),
        "total_steps": log.steps,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": json.dumps(space),
        "action_space": json.dumps(_action_space(log)),
        "dataset_size": round(size, 1),
        "dataset_id": _identity(path),
        "minari_version": VERSION,
    }


def _identity(path: Path) -> str:
    """NAMESPACE/NAME-v0 below Minari's folder, NAME-v0 elsewhere."""
    root = Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets").absolute()
    whole = path.absolute()
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else path.name


def _space(log: Log, column: str) -> minari_spaces.Space:
    first = log.episodes[0].columns[column]
    if first.dtype.kind != "O":
        return minari_spaces.box(tuple(first.shape[1:]), first.dtype)
    texts = [
        str(t) for e in log.episodes for c in (column, f"next_{column}") if c in e.columns for t in e.columns[c][:]
    ]
    return minari_spaces.text(max(map(len, texts), default=1), "".join(sorted(set("".join(texts)))) or " ")


def _action_space(log: Log) -> minari_spaces.Space:
    first = log.episodes[0].columns["actions"]
    if is_discrete(log) and len(first.shape) == 1:
        most = max(int(np.max(e.columns["actions"][:], initial=0)) for e in log.episodes)
        return {
            "type": "Discrete",
            "dtype": "int64",
            "start": 0,
            "n": max(most + 1, int(log.attributes.get("action_n", 1))),
        }
    if first.dtype.kind != "f":
        return minari_spaces.box(tuple(first.shape[1:]), first.dtype)
    bounds = action_bounds(log)
    if bounds is None and all((np.abs(np.asarray(e.columns["actions"][:])) <= 1).all() for e in log.episodes):
        bounds = -np.ones(first.shape[1:]), np.ones(first.shape[1:])
    low, high = (None, None) if bounds is None else (b.reshape(first.shape[1:]) for b in bounds)
    return minari_spaces.box(tuple(first.shape[1:]), first.dtype, low, high)


def _unseen(log: Log, shown: Mapping[str, str], made: bool) -> list[str]:
    """What Minari does not see, or sees otherwise."""
    columns = {name for e in log.episodes for name in e.columns}
    lines = []
    if lacking := [name for name in ENDS if any(name not in e.columns for e in log.episodes) and not
                   (made and name == "truncations")]:  # fmt: skip
        lines.append(f"the log does not know {', '.join(lacking)} of all episodes, without which minari loads none of "
                     "them")  # fmt: skip
    if made:
        lines.append("truncations mark the ends of episodes that did not terminate, which the log has no column for")
    if any(f"next_{name}" not in e.columns for e in log.episodes for name in shown):
        lines.append(
            "there is no observation after the last action: observations have T rows, where Minari's have T + 1"
        )
    taken = ("obs/", "next_obs/", "infos/", "next_infos/")
    if moved := sorted(n for n in columns if n not in ("actions", *ENDS, *shown) and not n.startswith(taken)):
        lines.append(f"{', '.join(moved)} stand under infos/poise")
    if apart := sorted(n for n in columns if n.startswith("obs/") and n not in shown):
        lines.append(f"{', '.join(apart)} differ in shape or type from episode to episode and stand under infos/poise")
    kept = [what for what, there in (("filters", log.filters), ("attributes", log.attributes), ("arrays of the file",
            log.extras), ("attributes of episodes", any(e.attributes for e in log.episodes))) if there]  # fmt: skip
    return lines + ([f"{', '.join(kept)} are kept in data/{KEPT}, which Poise alone reads"] if kept else [])
