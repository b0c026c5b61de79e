"""Raw demonstrations of robosuite, of three generations: states of the simulator, from which observations are replayed.

/data            attrs env, date, time, repository_version; env_info (JSON) since 1.0
/data/demo_<i>   attr model_file: XML since 1.4, before that the name of a file in the folder models/ beside this one
   states (T, 1 + nq + nv)    actions (T, A) since 1.0    joint_velocities, gripper_actuations, … in 0.1
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from ...errors import DatasetError
from ..log import Log
from ..safe_hdf5 import shallow_names
from . import robomimic


def recognize(path: Path) -> bool:
    """HDF5 with a group `data` that is not robomimic's, of demo_<i> with a model or states."""
    if shallow_names(path).get("data") != "group" or robomimic.recognize(path):
        return False
    try:
        with h5py.File(path, "r") as h5:
            data: Any = h5["data"]
            first: Any = next(iter(data.values()), None)
            return isinstance(first, h5py.Group) and ("model_file" in first.attrs or "states" in first)
    except (OSError, RuntimeError, KeyError, ValueError):
        return False


def read(path: Path) -> Log:
    """The log; without observations, it is for `poise data replay` and for converting."""
    log = robomimic.read(path)
    notes = [note for note in log.notes if "num_samples" not in note]
    notes.append("states of the simulator alone: poise data replay gives observations")
    if log.episodes and not str(log.episodes[0].attributes.get("model_file", "<")).lstrip().startswith("<"):
        notes.append("model_file names a file in the folder models/ beside this one")
    return Log(log.path, "robosuite", log.episodes, log.attributes, log.filters, log.extras, tuple(notes), log.release)


def write(path: Path, log: Log) -> list[str]:
    """Write a log that has states, with everything else that it has."""
    if lacks := [e.name for e in log.episodes if "states" not in e.columns]:
        raise DatasetError(f"{log.path}, {lacks[0]}: raw demonstrations are states of a simulator, and there are none")
    robomimic.write_plain(path, log, log.attributes, dones=False, num_samples=False)
    return ["it says env_args, so that it counts as robomimic's"] if "env_args" in log.attributes else []
