"""A ring of records in shared memory: one process writes, any number read, and nobody waits for anybody.

The memory is a file without a name (shared_memory.py), passed on by its descriptor.

    0         magic, capacity, bytes of a record, of a slot and of the description, checksummed (0 or 1), writer's pid
    64        head: sequence number of the newest whole record; the first is 1, 0 means none
    128       description: the record's fields as JSON
    4096 k    slots, capacity of them: stamp (8 bytes), checksum (8 bytes), record, padding to 64 bytes

Sequence lock: record n lies in slot n mod capacity. The writer sets the slot's stamp to 2 n - 1, copies, sets it to
2 n, and then the head to n. A reader that finds 2 n before and after its copy has the whole record n; anything else
has been overrun. A writer that is killed on the way leaves a slot that no head points to. This needs stores and loads
in order, as x86 keeps them; on another machine a checksum in each slot decides.

One write costs microseconds and no system call, so a control loop may do it in every tick.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import weakref
import zlib
from typing import Any, NamedTuple

import numpy as np

from ..errors import RobotError, UsageError
from ..shared_memory import ORDERED, shared_memory

MAGIC = b"poise ring 1\0\0\0\0"
HEADER = struct.Struct("<16s5Qq")
HEAD, DESCRIPTION, PAGE = 64, 128, 4096


class Records(NamedTuple):
    """What a reader found since it looked last."""

    records: np.ndarray  # (k,) of the ring's dtype, oldest first
    sequence: np.ndarray  # (k,) int64
    missed: int  # records that were overrun before they could be read


def make_ring(dtype: np.dtype, capacity: int, checksummed: bool = not ORDERED) -> int:
    """A descriptor of new memory with an empty ring; pass it on by `pass_fds` of subprocess, or `os.dup`.

    Every page is there from the beginning: a control loop must meet no page fault.
    """
    if capacity < 4 or dtype.names is None or dtype.hasobject:
        raise UsageError(f"a ring takes records of plain named fields and at least 4 slots, not {dtype} and {capacity}")
    description = json.dumps(_described(dtype)).encode()
    slot, first = (16 + dtype.itemsize + 63) // 64 * 64, _first_slot(len(description))
    head = HEADER.pack(MAGIC, capacity, dtype.itemsize, slot, len(description), checksummed, os.getpid())
    try:
        descriptor = shared_memory(first + capacity * slot, "poise-ring")
    except OSError as error:
        raise RobotError(f"no shared memory for a ring of {capacity * slot >> 20} MiB: {error.strerror}") from None
    os.pwrite(descriptor, head.ljust(DESCRIPTION, b"\0") + description, 0)
    return descriptor


class _Mapped:
    """The memory and where things lie in it."""

    def __init__(self, descriptor: int, writable: bool):
        self.descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)
        size = os.fstat(descriptor).st_size
        self._map = mmap.mmap(descriptor, size, prot=mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0))
        magic, self.capacity, record, self._slot, description, checksummed, self.writer_pid = HEADER.unpack_from(
            self._map
        )
        if magic != MAGIC:
            raise RobotError("this memory holds no ring of Poise's")
        self.dtype = _dtype(json.loads(self._map[DESCRIPTION : DESCRIPTION + description]))
        self._first = _first_slot(description)
        if record != self.dtype.itemsize or self._first + self.capacity * self._slot > size:
            raise RobotError(f"a ring of {size} bytes cannot hold {self.capacity} records of {self.dtype.itemsize}")
        self._checksummed = bool(checksummed)
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("Q")  # aligned, hence each stored and loaded in one piece

    @property
    def head(self) -> int:
        """Sequence number of the newest whole record; 0 before the first."""
        return self._words[HEAD // 8]

    def _place(self, sequence: int) -> int:
        return self._first + sequence % self.capacity * self._slot

    def close(self) -> None:
        """Let go of the memory and the descriptor; safe to call twice."""
        if self.descriptor >= 0:
            self._words.release()
            self._bytes.release()
            with contextlib.suppress(BufferError):
                self._map.close()
            self._close()
            self.descriptor = -1


class RingWriter(_Mapped):
    """The one that writes, on from where the ring stands. Takes over the descriptor."""

    def __init__(self, descriptor: int):
        super().__init__(descriptor, writable=True)
        struct.pack_into("<q", self._map, HEADER.size - 8, os.getpid())
        self._names, self._scratch = self.dtype.names or (), np.zeros(1, self.dtype)
        self._row, self._raw = self._scratch[0], self._scratch.view(np.uint8).data
        self._sequence = self.head

    def write(self, **values: Any) -> int:
        """Publish one record, every field of it named; its sequence number."""
        if len(values) != len(self._names):
            raise UsageError(f"a record holds {', '.join(self._names)}; got {', '.join(values)}")
        for name, value in values.items():
            self._row[name] = value
        self._sequence = n = self._sequence + 1
        place = self._place(n)
        self._words[place // 8] = 2 * n - 1
        if self._checksummed:
            self._words[place // 8 + 1] = zlib.crc32(self._raw)
        self._bytes[place + 16 : place + 16 + len(self._raw)] = self._raw
        self._words[place // 8] = 2 * n
        self._words[HEAD // 8] = n
        return n

    def close(self) -> None:
        self._raw.release()
        super().close()


class RingReader(_Mapped):
    """One that reads, at its own pace; it cannot write to the memory. Takes over the descriptor."""

    def __init__(self, descriptor: int):
        super().__init__(descriptor, writable=False)
        self.seen = 0  # sequence number of the record that `read` gave last

    def newest(self) -> tuple[int, np.ndarray] | None:
        """(sequence number, record) of the newest one, a copy; None before the first."""
        while head := self.head:
            if (record := self.at(head)) is not None:
                return head, record
        return None

    def at(self, sequence: int) -> np.ndarray | None:
        """Record number `sequence`, a copy without axes; None where it is overrun or not yet there."""
        place, size = self._place(sequence), self.dtype.itemsize
        if sequence < 1 or self._words[place // 8] != 2 * sequence:
            return None
        checksum, data = self._words[place // 8 + 1], bytearray(self._bytes[place + 16 : place + 16 + size])
        if self._words[place // 8] != 2 * sequence or (self._checksummed and zlib.crc32(data) != checksum):
            return None
        return np.frombuffer(data, self.dtype)[0]

    def read(self, limit: int = 1 << 30) -> Records:
        """Records since the last call, at most `limit`; the oldest may have been overrun, which is counted."""
        head = self.head
        oldest = max(self.seen + 1, head - self.capacity + 2)  # the slot after the head's may be in the making
        missed, last = oldest - self.seen - 1, min(head, oldest + limit - 1)
        records, sequences = [], []
        for sequence in range(oldest, last + 1):
            if (record := self.at(sequence)) is None:
                missed += 1
            else:
                records.append(record)
                sequences.append(sequence)
        self.seen = max(self.seen, last)
        return Records(np.array(records, self.dtype), np.array(sequences, np.int64), missed)


def _first_slot(description: int) -> int:
    return (DESCRIPTION + description + PAGE - 1) // PAGE * PAGE


def _described(dtype: np.dtype) -> list[list[Any]]:
    fields = dtype.fields or {}
    return [[name, field[0].base.str, list(field[0].shape)] for name, field in fields.items()]


def _dtype(description: Any) -> np.dtype:
    dtype = np.dtype([(str(name), str(kind), tuple(shape)) for name, kind, shape in description])
    if dtype.hasobject:
        raise RobotError("a ring whose records hold pointers is none of Poise's")
    return dtype
