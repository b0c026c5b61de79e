"""ACT's and ALOHA's layout, a file an episode: joints, cameras, and the joint positions asked of the arms. Import only.

    episode_<i>.hdf5      attrs sim, compress
       observations/qpos (T, n)   qvel (T, n)   effort (T, n)      -> obs/qpos, …
       observations/images/<camera> (T, height, width, 3) uint8    -> obs/<camera>; coded (T, bytes) where `compress`
       action (T, n)                                               -> actions; base_action and others keep their names

A path is the folder of such files or one of them. Actions are joint positions [rad], so the log says what they range
over; nothing is rewarded, and an episode ends where its record does. Legend: T steps, n joints.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DatasetError
from ..log import Column, Episode, Log
from ..safe_hdf5 import attributes_of, datasets_of, open_hdf5, shallow_names
from .columns import Decoded
from .pictures import decode_all, size_of

NAME = re.compile(r"episode_(\d{1,9})\.hdf5")
OPEN = 64  # files at once


def recognize(path: Path) -> bool:
    """A folder of episode_<i>.hdf5, or one such file, with an array `action` and a group `observations`."""
    file = next(iter(_files(path).values()), path) if path.is_dir() else path
    names = shallow_names(file)
    return names.get("action") == "dataset" and names.get("observations") == "group"


def read(path: Path) -> Log:
    """The log; arrays are read, and coded pictures decoded, when asked for.

    Raises:
        DatasetError: a file is damaged, lies outside the folder, or has other rows of observations than of actions.
    """
    files = _files(path) if path.is_dir() else {0: path}
    if not files:
        raise DatasetError(f"{path} has no episode_<i>.hdf5")
    shelf = Shelf()
    try:
        episodes = [_episode(shelf, number, file) for number, file in files.items()]
        low, high = _range(episodes)
    except BaseException:
        shelf.close()
        raise
    notes = ["nothing says whether the task ended, nothing is rewarded: an episode is cut off where its record ends",
             "actions are in the arms' units, and scaled by what they range over here"]  # fmt: skip
    if gaps := sorted(set(range(max(files) + 1)) - set(files)):
        notes.append(f"{len(gaps)} numbers have no file, the first episode_{gaps[0]}.hdf5")
    bounds = {"action_low": low, "action_high": high}
    return Log(path, "act", episodes, bounds, notes=tuple(notes), release=shelf.close)


class Shelf:
    """Files by their paths, of which the last few used are open."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, tuple[Any, dict[str, Any]]] = OrderedDict()
        self._closed = False

    def file(self, path: Path) -> tuple[Any, dict[str, Any]]:
        """The open file and its arrays."""
        if self._closed:
            raise DatasetError(f"{path} is asked for, but its log has been closed")
        if path not in self._open:
            h5 = open_hdf5(path)
            self._open[path] = h5, datasets_of(h5, path)
            if len(self._open) > OPEN:
                self._open.popitem(last=False)[1][0].close()
        self._open.move_to_end(path)
        return self._open[path]

    def close(self) -> None:
        self._closed = True
        for h5, _ in self._open.values():
            h5.close()
        self._open.clear()


class Shelved:
    """An array of a file on a shelf."""

    def __init__(self, shelf: Shelf, path: Path, name: str):
        self._shelf, self._path, self._name = shelf, path, name
        array = shelf.file(path)[1][name]
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        return self._shelf.file(self._path)[1][self._name][rows]


def _files(folder: Path) -> dict[int, Path]:
    """Number -> file, in order of the numbers.

    Raises:
        DatasetError: one is a link to elsewhere, or two have one number.
    """
    found: dict[int, Path] = {}
    for file in folder.iterdir():
        if match := NAME.fullmatch(file.name):
            if not file.resolve().is_relative_to(folder.resolve()):
                raise DatasetError(f"{file} is a link out of its folder, which Poise does not follow")
            if (number := int(match[1])) in found:
                raise DatasetError(f"{file} and {found[number].name} are both episode {number}")
            found[number] = file
    return dict(sorted(found.items()))


def _episode(shelf: Shelf, number: int, file: Path) -> Episode:
    h5, arrays = shelf.file(file)
    attributes = attributes_of(h5, file)
    if "action" not in arrays or not arrays["action"].shape:
        raise DatasetError(f"{file}: expected an array action (T, n), found {', '.join(arrays) or 'nothing'}")
    steps, columns = arrays["action"].shape[0], {}
    for name, array in arrays.items():
        column = _renamed(name)
        if array.shape[:1] == (steps,):
            stored = Shelved(shelf, file, name)
            coded = name.startswith("observations/images/") and len(array.shape) == 2
            columns[column] = _pictures(stored, f"{file}: {name}") if coded and steps else stored
        elif name.startswith("observations/"):
            raise DatasetError(f"{file}: {name} is {array.shape}, where there are {steps} actions")
        else:
            attributes[name] = array[()]
    return Episode(f"demo_{number}", columns, attributes)


def _renamed(name: str) -> str:
    if name == "action":
        return "actions"
    return re.sub("^observations/(images/)?", "obs/", name)


def _pictures(coded: Column, where: str) -> Decoded:
    """Pictures of rows of bytes, zeros behind; as OpenCV gives them back, whose channels run the other way."""
    shape = size_of(coded[0], ("JPEG", "PNG"), where)

    def frames(first: int, stop: int) -> np.ndarray:
        told = lambda i: f"{where}, row {first + i}"  # noqa: E731
        return decode_all(coded[first:stop], shape, ("JPEG", "PNG"), told)[..., ::-1]

    return Decoded(frames, (coded.shape[0], *shape), np.dtype(np.uint8))


def _range(episodes: list[Episode]) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) (n,) of all actions; what never moves is one unit wide on either side, to have something to scale by.

    Raises:
        DatasetError: there is no step, or actions of several sizes.
    """
    actions = [np.asarray(e.columns["actions"][:], np.float64) for e in episodes if e.steps]
    if not actions or len({a.shape[1:] for a in actions}) > 1:
        raise DatasetError(f"expected episodes with actions of one size, found {[a.shape for a in actions][:4]}")
    low, high = np.min([a.min(axis=0) for a in actions], axis=0), np.max([a.max(axis=0) for a in actions], axis=0)
    still = low == high
    return np.where(still, low - 1.0, low), np.where(still, high + 1.0, high)
