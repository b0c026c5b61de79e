"""The steps of a dataset where they lie in their files: larger than memory, and nothing of them held.

HDF5 keeps a contiguous dataset as one range of bytes, so a row of a column has an address in the file:

    address(r) = base[episode of r] + r * bytes of a row

The file is mapped once; a batch copies its rows' bytes out of the mapping, which the kernel fills and empties as it
likes. What the process itself holds is one `base` an episode and column. Chunked or compressed datasets have no such
addresses and are refused, with the command that writes them contiguously.

Legend: E episodes, B batch, T window, A action.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DatasetError
from .buffers import Buffers
from .log import Column, Episode, Rows
from .log_arrays import LogArrays, finite
from .safe_hdf5 import Stored
from .step_index import StepIndex

BROAD = 1 << 12  # bytes of a row that is copied by itself
BLOCK = 1 << 22  # bytes looked through at once


class MappedStore:
    """`take` of named columns at rows, `successors` of groups after rows, as MemoryStore's and to the same bit."""

    def __init__(self, parts: Sequence[LogArrays], index: StepIndex, names: Collection[str], device: torch.device):
        self._index, self._device = index, device
        borders = np.cumsum([0] + [len(part.episodes) for part in parts])
        self._part_of = np.repeat(np.arange(len(parts)), np.diff(borders))  # (E,)
        ranges = zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True)
        self._parts = [MappedPart(part, low, index.first[low:high], names)
                       for part, (low, high) in zip(parts, ranges, strict=True)]  # fmt: skip

    def take(self, names: Sequence[str], rows: np.ndarray) -> dict[str, Tensor]:
        """Columns, each obs/<group> or action, at rows (…): (…, dim) or (…, height, width, channels)."""
        episode = self._index.episode.take(rows)
        return {name: self._gather(name, rows, episode) for name in names}

    def successors(self, names: Sequence[str], rows: np.ndarray) -> dict[str, Tensor]:
        """The observations that followed the actions of steps (…)."""
        episode = self._index.episode.take(rows)
        return {name: self._gather(f"next_{name}", rows, episode) for name in names}

    def _gather(self, name: str, rows: np.ndarray, episode: np.ndarray) -> Tensor:
        if len(self._parts) == 1:
            found = self._of_part(0, name, rows.reshape(-1), episode.reshape(-1))
        else:
            found = self._of_parts(name, rows.reshape(-1), episode.reshape(-1))
        tensor = torch.from_numpy(found.reshape(*rows.shape, *found.shape[1:]))
        return tensor if self._device.type == "cpu" else tensor.to(self._device)

    def _of_parts(self, name: str, rows: np.ndarray, episode: np.ndarray) -> np.ndarray:
        part_of, result = self._part_of.take(episode), None
        for i in np.unique(part_of).tolist():
            chosen = np.flatnonzero(part_of == i)
            found = self._of_part(i, name, rows[chosen], episode[chosen])
            if result is None:
                result = np.empty((len(rows), *found.shape[1:]), found.dtype)
            result[chosen] = found
        assert result is not None, "a batch has rows"
        return result

    def _of_part(self, i: int, name: str, rows: np.ndarray, episode: np.ndarray) -> np.ndarray:
        part = self._parts[i]
        if name.startswith("next_") and not part.has_successors:
            rows, name = np.minimum(rows + 1, self._index.last.take(episode)), name.removeprefix("next_")
        return part.rows(name, rows, episode)


class MappedPart:
    """Columns `names` of one log; its episodes are number `low` and on of the dataset, and begin with rows `firsts`."""

    def __init__(self, arrays: LogArrays, low: int, firsts: np.ndarray, names: Collection[str]):
        self._low, self._scale, self.has_successors = low, arrays.scale, arrays.has_successors
        self._files: dict[str, np.ndarray] = {}
        self._columns: dict[str, list[MappedColumn]] = {}
        if "action" in names:
            self._columns["action"] = [self._mapped(arrays, arrays.label, firsts)]
        for group, keys in arrays.keys.items():
            for prefix in ("obs", "next_obs") if arrays.has_successors else ("obs",):
                if f"obs/{group}" in names:
                    self._columns[f"{prefix}/{group}"] = [
                        self._mapped(arrays, f"{prefix}/{key}", firsts) for key in keys
                    ]

    def rows(self, name: str, rows: np.ndarray, episode: np.ndarray) -> np.ndarray:
        """(B, dim) float32, (B, height, width, channels) uint8, or choices (B, 1) int64."""
        found = [column.rows(rows, episode - self._low) for column in self._columns[name]]
        if name == "action":
            return self._scale(found[0].reshape(len(rows), -1))
        if found[0].ndim == 4 and found[0].dtype == np.uint8:
            return found[0]
        parts = [np.asarray(c, np.float32).reshape(len(rows), -1) for c in found]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _mapped(self, arrays: LogArrays, name: str, firsts: np.ndarray) -> MappedColumn:
        places = [self._place(arrays, episode, name) for episode in arrays.episodes]
        file, dtype, shape, _ = places[0]
        for place, episode in zip(places, arrays.episodes, strict=True):
            if place[:3] != (file, dtype, shape):
                raise DatasetError(f"{arrays.log.path}, {episode.name}: {name} is {place[1]} {place[2]}, where it "
                                   f"is {dtype} {shape} before; {way_out(arrays.log.path)}")  # fmt: skip
        if file not in self._files:
            self._files[file] = mapped_bytes(file)
        starts = np.array([start for *_, start in places])
        column = MappedColumn(self._files[file], dtype, shape, firsts, starts)
        for start, episode in zip(starts.tolist(), arrays.episodes, strict=True):
            column.check(start, episode.steps, f"{arrays.log.path}, {episode.name}: {name}")
        return column

    def _place(self, arrays: LogArrays, episode: Episode, name: str) -> tuple[str, np.dtype, tuple[int, ...], int]:
        """(file, type, shape of a row, byte of the first row) of a column."""
        where = f"{arrays.log.path}, {episode.name}: {name}"
        if name not in episode.columns:
            raise DatasetError(f"{where} is missing; it has {', '.join(episode.columns)}")
        if episode.columns[name].shape[0] != episode.steps:
            raise DatasetError(f"{where} has {episode.columns[name].shape[0]} rows where actions have {episode.steps}")
        stored, row = underlying(episode.columns[name])
        if stored is None:
            raise DatasetError(f"{where} does not lie in a file as it is; {way_out(arrays.log.path)}")
        offset = stored.array.id.get_offset() if stored.size else 0  # what is empty has no place and needs none
        if offset is None:
            raise DatasetError(
                f"{where} is chunked or compressed, so it has no place in the file; {way_out(arrays.log.path)}"
            )
        dtype, shape = stored.dtype, stored.shape[1:]
        if dtype.kind not in "fiub" or dtype.hasobject:
            raise DatasetError(f"{where} holds {dtype}, expected numbers")
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        return stored.filename, dtype, shape, offset + row * size


class MappedColumn:
    """Rows of one column by their addresses in a mapped file.

    firsts: (E,) row with which each episode begins; starts: (E,) byte where its first row lies.
    """

    def __init__(
        self, data: np.ndarray, dtype: np.dtype, shape: tuple[int, ...], firsts: np.ndarray, starts: np.ndarray
    ):
        self._data, self._dtype, self._shape = data, dtype, shape
        self._size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        self._base = starts - firsts * self._size
        self._buffers = Buffers()
        # every range of so many bytes as a row, one byte after the other: picking rows copies what they cover
        self._ranges = np.lib.stride_tricks.as_strided(data, (max(0, len(data) - self._size + 1), self._size), (1, 1),
                                                       writeable=False)  # fmt: skip

    def rows(self, rows: np.ndarray, episode: np.ndarray) -> np.ndarray:
        """(B, …)"""
        if self._size == 0 or len(rows) == 0:
            return np.empty((len(rows), *self._shape), self._dtype)
        places = self._base.take(episode) + rows * self._size
        if self._size < BROAD:
            return self._ranges[places].view(self._dtype).reshape(len(rows), *self._shape)
        result = self._buffers.array((len(rows), self._size), self._data.dtype)
        flat, size, first = result.reshape(-1), self._size, 0
        apart = (places[1:] - places[:-1] != size).nonzero()[0] + 1
        for place, end in zip(places[[0, *apart]].tolist(), [*apart.tolist(), len(rows)], strict=True):
            # rows that lie side by side are copied at once
            flat[first * size : end * size] = self._data[place : place + (end - first) * size]
            first = end
        return result.view(self._dtype).reshape(len(rows), *self._shape)

    def check(self, start: int, steps: int, where: str) -> None:
        """Raise DatasetError where an episode's rows lie beyond the file's end or hold what is no finite number."""
        end = start + steps * self._size
        if end > len(self._data):
            raise DatasetError(
                f"{where} should end at byte {end}, but the file has {len(self._data)}: it is incomplete"
            )
        if self._dtype.kind != "f" or self._size == 0:
            return
        for first in range(0, steps, rows := max(1, BLOCK // self._size)):
            count = min(rows, steps - first)
            at = start + first * self._size
            block = self._data[at : at + count * self._size].view(self._dtype)
            finite(block.reshape(count, -1).astype(np.float32), where, first)


def underlying(column: Column) -> tuple[Stored | None, int]:
    """(array of an HDF5 file, row of it that the column begins with); (None, 0) where it is none."""
    row = 0
    while isinstance(column, Rows):
        row, column = row + column.start, column.column
    return (column, row) if isinstance(column, Stored) else (None, 0)


def mapped_bytes(file: str) -> np.ndarray:
    """The bytes of a file (n,), read when looked at."""
    with open(file, "rb") as opened:
        if os.fstat(opened.fileno()).st_size == 0:
            return np.zeros(0, np.uint8)
        return np.frombuffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def way_out(path: Path) -> str:
    return (f"it is larger than the memory allowed: allow more (--memory), or write it so that it can be read in "
            f"place, poise data convert {path} OUT.hdf5")  # fmt: skip
