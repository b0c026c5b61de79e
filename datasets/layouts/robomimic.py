"""Robomimic's layout, and ours, which is robomimic's with more in it (episodes.py).

/data            attrs total, env_args (JSON)
/data/demo_<i>   attrs num_samples, model_file, …
   obs/<key>  next_obs/<key>  actions  rewards  dones  states  …      (T, …)
/mask/<filter>   names of episodes
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from ...errors import DatasetError
from ..log import Column, Episode, Log
from ..safe_hdf5 import Stored


def recognize(path: Path) -> bool:
    if not path.is_file() or not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as h5:
        return isinstance(h5.get("data"), h5py.Group)


def read(path: Path) -> Log:
    try:
        h5 = h5py.File(path, "r")
    except OSError as error:
        raise DatasetError(f"{path} is no complete HDF5 file: {error}") from None
    data: Any = h5["data"]
    names = sorted(data, key=lambda name: int(name.removeprefix("demo_")))
    masks: Any = h5.get("mask", {})
    return Log(
        path=path,
        layout="robomimic",
        episodes=[Episode(name, _columns(data[name]), dict(data[name].attrs)) for name in names],
        attributes=dict(data.attrs),
        filters={name: tuple(entry.decode() for entry in mask[()]) for name, mask in masks.items()},
        release=h5.close,
    )


def _columns(group: Any, prefix: str = "") -> dict[str, Column]:
    """Every dataset below a group, by its path."""
    found: dict[str, Column] = {}
    for name, item in group.items():
        found |= (
            _columns(item, f"{prefix}{name}/") if isinstance(item, h5py.Group) else {f"{prefix}{name}": Stored(item)}
        )
    return found
