"""Episodes out of nested dicts of arrays, as pickled and zipped demonstrations hold them: what their many names mean.

Legend: T steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import DatasetError
from ..log import Column, Episode, Rows

NAMES = {
    "observation": "obs/state", "observations": "obs/state", "obs": "obs/state",
    "next_observation": "next_obs/state", "next_observations": "next_obs/state", "next_obs": "next_obs/state",
    "action": "actions", "actions": "actions", "acts": "actions",
    "reward": "rewards", "rewards": "rewards", "rews": "rewards",
    "terminal": "dones", "terminals": "dones", "done": "dones", "dones": "dones",
    "terminated": "terminations", "terminations": "terminations",
    "timeout": "truncations", "timeouts": "truncations", "truncated": "truncations", "truncations": "truncations",
}  # fmt: skip


def episode_of(name: str, path: Mapping[str, Any], where: str) -> Episode:
    """One episode of a dict of arrays; T is the length of its actions, and what is of another length an attribute.

    Raises:
        DatasetError: it has no actions, or two arrays of one meaning.
    """
    flat = dict(_flat(path))
    actions = next((flat[k] for k in flat if NAMES.get(k) == "actions"), None)
    if actions is None or not actions.shape:
        raise DatasetError(f"{where}: expected arrays of actions and more, found {', '.join(flat) or 'nothing'}")
    steps, columns, attributes = len(actions), {}, {}
    for key, array in flat.items():
        column = NAMES.get(key, key)
        if column in columns:
            raise DatasetError(f"{where}: {key} and another array are both {column}")
        if column == "obs/state" and array.shape[:1] == (steps + 1,):
            columns[column], columns["next_obs/state"] = Rows(array, 0, steps), Rows(array, 1, steps + 1)
        elif array.shape[:1] == (steps,):
            columns[column] = array
        else:
            attributes[key] = array if array.shape else array[()]
    return Episode(name, columns, attributes)


def split_flat(columns: Mapping[str, Column], ends: np.ndarray) -> list[Episode]:
    """Episodes of columns that hold them one after the other, each up to one of `ends`."""
    stops = np.asarray(ends).tolist()
    return [Episode(f"demo_{i}", {name: Rows(column, start, stop) for name, column in columns.items()})
            for i, (start, stop) in enumerate(zip([0, *stops[:-1]], stops, strict=True))]  # fmt: skip


def _flat(path: Mapping[str, Any], prefix: str = "", depth: int = 0) -> list[tuple[str, np.ndarray]]:
    """(name, array) of all arrays and numbers in nested dicts; names of several levels have slashes."""
    found: list[tuple[str, np.ndarray]] = []
    for key, value in path.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if depth > 8:
                raise DatasetError(f"{name} lies too deep in dicts of dicts")
            found += _flat(value, f"{name}/", depth + 1)
        else:
            array = _array(value, name)
            if array.size or array.shape[:1] != (0,):
                found.append((name, array))
    return found


def _array(value: Any, name: str) -> np.ndarray:
    if isinstance(value, list | tuple) and all(isinstance(v, np.ndarray | int | float | bool) for v in value):
        shapes = {np.shape(v) for v in value}
        if len(shapes) > 1:
            raise DatasetError(
                f"{name} is a list of arrays of shapes {sorted(map(str, shapes))[:4]}; expected one shape"
            )
        value = np.stack(value) if value else np.zeros(0)
    if isinstance(value, str | bytes | int | float | bool | np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.kind in "biufcSU":
            return array
    raise DatasetError(f"{name} is a {type(value).__name__}; expected numbers and arrays of them")
