"""Random numbers that are a pure function of (seed, name, world, episode, step).

A drawn value depends on nothing but its key, so adding a randomization term never reshuffles the
others, any world's episode can be reproduced alone, and there is no generator state to save.
The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
vectorised over worlds: the 64-bit key is (seed, name), the 128-bit counter (block, world, episode, step).
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

_M = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)  # multipliers and Weyl constants of the paper
_ROUNDS = np.arange(10, dtype=np.uint64)[:, None] * np.array([0x9E3779B9, 0xBB67AE85], np.uint64)  # on the key
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox: counter (..., 4) of 32-bit words to as many random 32-bit words (..., 4).

    A round multiplies words 0 and 2 and mixes the products' halves with words 1 and 3; the two pairs go through it
    together, since calls cost more than arithmetic where few worlds draw.
    """
    words = np.ascontiguousarray(np.moveaxis(np.asarray(counter, np.uint64), -1, 0))  # (4, ...)
    column = (2,) + (1,) * (words.ndim - 1)
    keys = ((np.array(key, np.uint64) + _ROUNDS) & _LOW).reshape(10, *column)
    multiplied, mixed, factor = words[0::2], words[1::2], _M.reshape(column)  # (2, ...)
    for round_key in keys:
        product = multiplied * factor
        high = product >> _32
        product &= _LOW
        high ^= mixed[::-1]
        multiplied, mixed = high[::-1], product[::-1]
        multiplied ^= round_key
    result = np.empty(counter.shape, np.uint64)
    result[..., 0::2], result[..., 1::2] = np.moveaxis(multiplied, 0, -1), np.moveaxis(mixed, 0, -1)
    return result


class Stream:
    """The random numbers of one named purpose under one seed."""

    def __init__(self, seed: int, name: str):
        digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
        self._key = (int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little"))

    def uniform(self, world: Any, episode: Any, size: int, step: Any = 0) -> np.ndarray:
        """Uniform numbers in the open interval (0, 1): (len(world), size), one row per (world, episode, step)."""
        world, episode, step = np.broadcast_arrays(np.atleast_1d(world), episode, step)
        blocks = -(-size // 4)
        counter = np.empty((len(world), blocks, 4), np.uint64)
        counter[..., 0] = np.arange(blocks)
        counter[..., 1] = world[:, None]
        counter[..., 2] = episode[:, None]
        counter[..., 3] = step[:, None]
        words = philox4x32(counter, self._key).reshape(len(world), -1)[:, :size]
        return (words.astype(np.float64) + 0.5) * 2.0**-32

    def normal(self, world: Any, episode: Any, size: int, step: Any = 0) -> np.ndarray:
        """Standard normal numbers (Box and Muller 1958): (len(world), size)."""
        pairs = -(-size // 2)
        u = self.uniform(world, episode, 2 * pairs, step)
        radius = np.sqrt(-2.0 * np.log(u[:, 0::2]))
        angle = 2.0 * np.pi * u[:, 1::2]
        both = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)  # pairs stay together:
        return both.reshape(len(u), -1)[:, :size]  # the first numbers do not depend on how many are asked for

    def integer(self, world: Any, episode: Any, step: Any = 0) -> np.ndarray:
        """One integer in [0, 2**31) a row: (len(world),), for seeding other people's generators."""
        return (self.uniform(world, episode, 1, step)[:, 0] * 2.0**31).astype(np.int64)
