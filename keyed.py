"""Random numbers that are a pure function of (seed, name, world, episode, step).

A drawn value depends on nothing but its key, so adding a randomization term never reshuffles the
others, any world's episode can be reproduced alone, and there is no generator state to save.
The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"),
vectorised over worlds: the 64-bit key is (seed, name), the 128-bit counter (block, world, episode, step).

Where worlds are a torch tensor, the numbers are one on its device, made of the same words (keyed_tensors.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array

_M = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)  # multipliers and Weyl constants of the paper
_ROUNDS = np.arange(10, dtype=np.uint64)[:, None] * np.array([0x9E3779B9, 0xBB67AE85], np.uint64)  # on the key
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def philox4x32(counter: np.ndarray, key: tuple[Any, Any]) -> np.ndarray:
    """Ten rounds of Philox: counter (..., 4) of 32-bit words to as many random 32-bit words (..., 4).

    A round multiplies words 0 and 2 and mixes the products' halves with words 1 and 3; the two pairs go through it
    together, since calls cost more than arithmetic where few worlds draw.

    key: two words, or two arrays (...,) of them, one for each counter.
    """
    words = np.ascontiguousarray(np.moveaxis(np.asarray(counter, np.uint64), -1, 0))  # (4, ...)
    column = (2,) + (1,) * (words.ndim - 1)
    first = np.asarray(key, np.uint64)
    keys = (first.reshape(column if first.ndim == 1 else first.shape) + _ROUNDS.reshape(10, *column)) & _LOW
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
        self.key = _key(seed, name)

    def uniform(self, world: Any, episode: Any, size: int, step: Any = 0) -> Any:
        """Uniform numbers in the open interval (0, 1): (len(world), size), one row per (world, episode, step)."""
        return uniforms([(self, world, episode, size, step)])[0]

    def normal(self, world: Any, episode: Any, size: int, step: Any = 0) -> Any:
        """Standard normal numbers (Box and Muller 1958): (len(world), size)."""
        return normals(self.uniform(world, episode, size + size % 2, step))[:, :size]

    def integer(self, world: Any, episode: Any, step: Any = 0) -> np.ndarray:
        """One integer in [0, 2**31) a row: (len(world),), for seeding other people's generators."""
        return (self.uniform(world, episode, 1, step)[:, 0] * 2.0**31).astype(np.int64)


def uniforms(requests: Sequence[tuple[Stream, Any, Any, int, Any]]) -> list[Any]:
    """`Stream.uniform` of several streams, each (stream, world, episode, size, step), in one pass of Philox."""
    if requests and is_torch_array(requests[0][1]):
        from . import keyed_tensors

        return keyed_tensors.uniforms([(s.key, w, e, size, step) for s, w, e, size, step in requests])
    counters, keys, shapes = [], [], []
    for stream, world, episode, size, step in requests:
        columns = [np.reshape(x, (-1, 1)) for x in (world, episode, step)]  # one number stands for all rows
        rows, blocks = max(map(len, columns)), -(-size // 4)
        counter = np.empty((rows, blocks, 4), np.uint64)
        counter[..., 0] = np.arange(blocks)
        counter[..., 1], counter[..., 2], counter[..., 3] = columns
        counters.append(counter.reshape(-1, 4))
        keys.append(stream.key)
        shapes.append((rows, size))
    if len(keys) <= 1:
        words = [philox4x32(c, k) for c, k in zip(counters, keys, strict=True)]
    else:
        lengths = [len(c) for c in counters]
        each = np.repeat(np.array(keys, np.uint64), lengths, axis=0)
        words = np.split(philox4x32(np.concatenate(counters), (each[:, 0], each[:, 1])), np.cumsum(lengths)[:-1])
    return [(w.reshape(n, -1)[:, :size].astype(np.float64) + 0.5) * 2.0**-32
            for w, (n, size) in zip(words, shapes, strict=True)]  # fmt: skip


def normals(uniform: Any) -> Any:
    """Standard normal numbers from as many uniform ones (n, an even number), pair by pair (Box and Muller 1958).

    So the first numbers do not depend on how many are asked for.
    """
    xp = np if isinstance(uniform, np.ndarray) else array_namespace(uniform)
    radius = xp.sqrt(-2.0 * xp.log(uniform[:, 0::2]))
    angle = 2.0 * np.pi * uniform[:, 1::2]
    return xp.stack([radius * xp.cos(angle), radius * xp.sin(angle)], axis=-1).reshape(uniform.shape)


@lru_cache(maxsize=4096)
def _key(seed: int, name: str) -> tuple[int, int]:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")
