"""Arrays for large batches, used again once nobody holds them.

A batch of images is megabytes. Memory as large as that comes fresh from the kernel each time, page by page, which
costs more than copying the images. So its arrays are kept here, and one is handed out again when no tensor, view or
array of the batch that it served is left: the count of references says so. A batch stays its owner's for as long as
it is held.
"""

from __future__ import annotations

import sys

import numpy as np

LARGE = 1 << 17  # bytes from which on memory comes from the kernel
HUGE = 1 << 26  # and beyond which nothing is kept
KINDS = 8  # shapes and types that are kept, the newest
KEPT = 4  # arrays of a kind; a caller who holds more batches at once gets new memory
FREE = 3  # references to an array that only the pool, the loop and the count itself know


class Buffers:
    """`array(shape, dtype)`, of which nothing is said but its shape and type."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[tuple[int, ...], np.dtype], list[np.ndarray]] = {}

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if (kept := self._arrays.get((shape, dtype))) is None:
            if len(self._arrays) == KINDS:
                del self._arrays[next(iter(self._arrays))]
            kept = self._arrays[shape, dtype] = []
        for array in kept:
            if sys.getrefcount(array) == FREE:
                return array
        fresh = np.empty(shape, dtype)
        if LARGE <= fresh.nbytes <= HUGE and len(kept) < KEPT:
            kept.append(fresh)
        return fresh
