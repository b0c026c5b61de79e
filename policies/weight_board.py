"""WeightBoard: the newest weights to act with, under a version number, in memory that a learner and actors share.

    0     begun     int64, the version that is being written or was written last
    8     version   int64, the newest whole one; the first is 1
    16    checksums of both places, for machines where another process may see stores out of order
    64    two places; version v lies in place v mod 2

The learner writes the one place while the other is whole. An actor that copied version v has it whole if v + 2 was not
begun meanwhile; otherwise it looks again. Nobody waits for anybody.
"""

from __future__ import annotations

import mmap
import os
import weakref
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..shared_memory import ORDERED, shared_memory

BEGUN, VERSION, CHECKSUM, HEAD = 0, 1, 2, 64


class WeightBoard:
    """One side's view of it; `tensors` name what is published, with shapes and types that never change."""

    def __init__(self, tensors: Mapping[str, Tensor], descriptor: int | None = None):
        """descriptor: of a board that exists; a new one by default."""
        self._parts = {name: (t.shape, t.dtype) for name, t in tensors.items()}
        self._size = sum(t.nbytes for t in tensors.values())
        place = -(-self._size // HEAD) * HEAD
        if descriptor is None:
            descriptor = shared_memory(HEAD + 2 * place, "poise-weights")
            weakref.finalize(self, os.close, descriptor)
        self.descriptor = descriptor
        memory = mmap.mmap(self.descriptor, HEAD + 2 * place)
        self._words = memoryview(memory)[:HEAD].cast("q")
        self._places = [np.frombuffer(memory, np.uint8, self._size, HEAD + i * place) for i in range(2)]

    @property
    def version(self) -> int:
        return self._words[VERSION]

    def publish(self, packed: np.ndarray) -> None:
        """Hang up the next version, `pack`ed."""
        new = self.version + 1
        self._words[BEGUN] = new
        self._places[new % 2][:] = packed
        if not ORDERED:
            self._words[CHECKSUM + new % 2] = zlib.crc32(packed.data)
        self._words[VERSION] = new

    def newest(self, seen: int) -> tuple[int, dict[str, Tensor]] | None:
        """(version, tensors) of the newest, a copy; None where that is the one `seen` already."""
        while (version := self.version) != seen:
            copy = self._places[version % 2].copy()
            whole = self._words[BEGUN] <= version + 1
            if whole and (ORDERED or zlib.crc32(copy.data) == self._words[CHECKSUM + version % 2]):
                return version, self._unpack(torch.from_numpy(copy))
        return None

    def _unpack(self, packed: Tensor) -> dict[str, Tensor]:
        tensors, start = {}, 0
        for name, (shape, dtype) in self._parts.items():
            end = start + shape.numel() * dtype.itemsize
            tensors[name] = packed[start:end].clone().view(dtype).view(shape)  # a clone lies where any type may lie
            start = end
        return tensors


def pack(tensors: Mapping[str, Tensor]) -> Tensor:
    """The bytes of tensors one after the other, where the tensors are."""
    return torch.cat([t.detach().reshape(-1).view(torch.uint8) for t in tensors.values()])


class Publisher:
    """Publishes a learner's weights; from a GPU without waiting for it."""

    def __init__(self, board: WeightBoard):
        self.board = board
        self._coming: tuple[Tensor, torch.cuda.Event] | None = None

    def offer(self, tensors: Mapping[str, Tensor]) -> None:
        """Publish these tensors, or begin to fetch them; `deliver` them before those that are offered next."""
        packed = pack(tensors)
        if packed.device.type == "cpu":
            self.board.publish(packed.numpy())
        elif self._coming is None:
            here = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=True)
            here.copy_(packed, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            self._coming = here, arrived

    def deliver(self) -> None:
        """Publish what has arrived since it was offered."""
        if self._coming is not None and self._coming[1].query():
            self.board.publish(self._coming[0].numpy())
            self._coming = None
