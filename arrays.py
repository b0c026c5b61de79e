"""Numbers that stay the same, as arrays of the kind that meets them: numpy on the CPU, torch on a device.

A fresh tensor from Python's numbers is a copy from the host to the device, which waits, and which a CUDA graph cannot
record. So what a formula needs beside its inputs (limits, poses, offsets) is made at its first call, and is the same
array at every later one:

    lead = constant(term.lead, measured)      # (n,), of measured's dtype, on its device

A single number needs none of this: `2.0 * x` hands it to the kernel.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np


def constant(values: tuple[Any, ...] | np.ndarray, like: Any) -> Any:
    """An array of `values`, in the namespace, of the dtype and on the device of `like`; do not write into it.

    values: a tuple of numbers, or of such tuples, or a numpy array that its owner keeps and never writes into: it is
        known by its identity, and is kept here too.
    """
    if isinstance(like, np.ndarray):  # asked first: this runs in every step of every world
        if isinstance(values, np.ndarray):
            return values if values.dtype == like.dtype else _array(_Kept(values), like.dtype)
        return _array(values, like.dtype)
    return _tensor(_Kept(values) if isinstance(values, np.ndarray) else values, like.dtype, like.device)


class _Kept:
    """An array as a key of a cache: equal to itself alone."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray):
        self.array = array

    def __hash__(self) -> int:
        return id(self.array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and self.array is other.array


@cache  # for ever: a recorded graph reads the memory of those it met
def _array(values: tuple[Any, ...] | _Kept, dtype: np.dtype) -> np.ndarray:
    array = np.array(_plain(values), dtype)
    array.flags.writeable = False  # shared by everyone who asks
    return array


@cache
def _tensor(values: tuple[Any, ...] | _Kept, dtype: Any, device: Any) -> Any:
    import torch  # whoever has a tensor has loaded it

    with torch.inference_mode(False):  # or a later caller could not differentiate through it
        return torch.tensor(_plain(values), dtype=dtype, device=device)


def _plain(values: tuple[Any, ...] | _Kept) -> Any:
    return values.array.tolist() if isinstance(values, _Kept) else values
