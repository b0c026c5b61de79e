"""An HDF5 file whose arrays grow while it is written, and which a reader finds whole at every moment.

As in episodes.py there are two copies, the published one and a hidden one. What is added is collected; `publish` writes
to the hidden copy what it lacks and swaps the two by renaming. So a kill, at whatever moment, loses what has been added
since the last `publish`, and a full disk the same. (A power cut may lose more: nothing waits for the disk here.)
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import DatasetError
from .file_lock import FileLock
from .room import reserve

CHUNK = 1 << 18  # bytes, about, of an array that are stored together


class GrowingFile:
    """Use as a context manager.

    Raises:
        DatasetError: the file exists, another process writes it, or the disk refuses it; it then keeps what was
            published, and takes no more.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._hidden = self.path.with_name(f".{self.path.name}.writing")
        self._now: list[tuple[str, Any]] = []  # (array or group, rows or attributes) that neither copy has
        self._before: list[tuple[str, Any]] = []  # that the hidden copy lacks
        if self.path.exists():
            raise DatasetError(f"{self.path} exists; choose another name or move it away")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path)
            try:
                for file in (self._hidden, self.path):
                    with h5py.File(file.name, "w", driver="core", backing_store=False) as h5:
                        h5.flush()
                        file.write_bytes(h5.id.get_file_image())
            except BaseException:
                self._lock.release()
                raise
        except OSError as error:
            raise self._refused(error) from error

    def add(self, name: str, rows: np.ndarray) -> None:
        """Append rows (k, …) to the array of that name, which begins with its first."""
        self._now.append((name, rows))

    def say(self, name: str, attributes: Mapping[str, Any]) -> None:
        """Set attributes of the group `name`; None takes one away."""
        self._now.append((name, dict(attributes)))

    def publish(self) -> None:
        """Put into the file what has been added."""
        changes = self._before + self._now
        if not changes:
            return
        try:
            self._write(changes)
            spare = self._hidden.with_suffix(".spare")
            spare.unlink(missing_ok=True)
            os.link(self.path, spare)
            os.replace(self._hidden, self.path)
            os.replace(spare, self._hidden)
        except OSError as error:
            raise self._refused(error) from error
        self._before, self._now = self._now, []

    def close(self) -> None:
        """Remove the hidden copy and let go of the file; what was not published is lost. Safe to call twice."""
        for left in (self._hidden, self._hidden.with_suffix(".spare")):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)
        self._lock.release()

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, changes: list[tuple[str, Any]]) -> None:
        attributes, rows = [], {}
        for name, value in changes:
            if isinstance(value, dict):
                attributes.append((name, value))
            else:
                rows.setdefault(name, []).append(value)
        arrays = {name: np.concatenate(parts) for name, parts in rows.items()}
        room = sum(a.nbytes + 2 * _chunk(a) * _row(a) + 4096 for a in arrays.values()) + (1 << 16)
        reserve(self._hidden, room)
        with h5py.File(self._hidden, "r+") as h5:
            for name, array in arrays.items():
                dataset: Any = h5[name] if name in h5 else _made(h5, name, array)
                count = len(dataset)
                dataset.resize(count + len(array), axis=0)
                dataset[count:] = array
            for name, values in attributes:
                group = h5.require_group(name)
                for key, value in values.items():
                    if value is not None:
                        group.attrs[key] = value
                    elif key in group.attrs:
                        del group.attrs[key]

    def _refused(self, error: OSError) -> DatasetError:
        with contextlib.suppress(OSError):
            self._hidden.unlink(missing_ok=True)
        reason = error.strerror or str(error).splitlines()[0]
        return DatasetError(f"cannot go on writing {self.path}: {reason}; it keeps what was there a moment ago. "
                            "Free some space, or record elsewhere")  # fmt: skip


def _made(h5: Any, name: str, array: np.ndarray) -> Any:
    shape = array.shape[1:]
    return h5.create_dataset(name, (0, *shape), array.dtype, maxshape=(None, *shape), chunks=(_chunk(array), *shape))


def _row(array: np.ndarray) -> int:
    return max(1, array.dtype.itemsize * math.prod(array.shape[1:]))


def _chunk(array: np.ndarray) -> int:
    """Rows that are stored together: few enough that a short episode wastes little."""
    most = 1024 if len(array) <= 4096 else CHUNK
    return int(np.clip(CHUNK // _row(array), 1, most))
