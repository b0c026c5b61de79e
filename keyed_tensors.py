"""The numbers of keyed.py as torch tensors, on any device: the same 32-bit words, bit for bit.

Words lie in int64, where a product of two of them wraps modulo 2^64 as it should; a shift copies the sign, so high
halves are masked. What depends on names and sizes alone is made once for a device and never dropped, since a CUDA graph
that was recorded with it reads it again. The numbers have torch's default dtype, float32. Where the GPU engine has
loaded Warp, a kernel writes the same numbers in one launch (keyed_warp.py).

Legend: N rows, B blocks of four words: those of all requests beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .kernels import serve

_M = (0xD2511F53, 0xCD9E8D57)  # multipliers and Weyl constants of the paper, as in keyed.py
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = 0xFFFFFFFF

Request = tuple[tuple[int, int], Any, Any, int, Any]  # the stream's key, world, episode, size, step


def uniforms(requests: Sequence[Request]) -> list[Tensor]:
    """Uniform numbers (N, size) of every request; world is a tensor (N,), episode and step likewise or one integer.

    Rounded to float32, a number next to one is the largest below it, so the interval stays open.
    """
    sizes = [size for _, _, _, size, _ in requests]
    counts = [_blocks(size) for size in sizes]
    if serve(requests[0][1].device, torch.get_default_dtype()):
        from . import keyed_warp

        numbers = keyed_warp.numbers(requests, counts)
    else:
        numbers = _rounded(philox(requests).flatten(1))  # (N, 4 B)
    starts = np.cumsum([0, *(4 * count for count in counts)])
    return [numbers[:, start : start + size] for start, size in zip(starts.tolist(), sizes, strict=False)]


def _rounded(words: Tensor) -> Tensor:
    dtype = torch.get_default_dtype()
    return ((words.to(dtype) + 0.5) * 2.0**-32).clamp_(max=1.0 - torch.finfo(dtype).eps / 2.0)


def philox(requests: Sequence[Request]) -> Tensor:
    """Words (N, B, 4) in int64, by the ten rounds of `keyed.philox4x32`."""
    first = requests[0][1]
    counts = tuple(_blocks(size) for _, _, _, size, _ in requests)
    block, round_keys, factor = _constants(tuple(key for key, *_ in requests), counts, first.device)
    shape = (2, max(len(world) for _, world, *_ in requests), sum(counts))
    multiplied = torch.empty(shape, dtype=torch.int64, device=first.device)  # block and episode
    mixed = torch.empty_like(multiplied)  # step and world: each is mixed with the product of the other pair
    multiplied[0] = block
    _fill(multiplied[1], [episode for _, _, episode, _, _ in requests], counts)
    _fill(mixed[0], [step for *_, step in requests], counts)
    _fill(mixed[1], [world for _, world, *_ in requests], counts)
    for round_key in round_keys:
        product = multiplied * factor
        high = ((product >> 32) & _LOW) ^ mixed
        multiplied, mixed = high.flip(0) ^ round_key, product & _LOW
    return torch.stack([multiplied[0], mixed[1], multiplied[1], mixed[0]], dim=-1)


def _fill(columns: Tensor, values: Sequence[Any], counts: Sequence[int]) -> None:
    """Write each request's value, a tensor or one integer, into its columns of (N, B)."""
    if all(value is values[0] for value in values):
        values, counts = values[:1], (columns.shape[1],)
    start = 0
    for value, count in zip(values, counts, strict=True):
        mine = columns[:, start : start + count]
        mine.copy_(value.reshape(-1, 1)) if isinstance(value, Tensor) else mine.fill_(int(value))
        start += count


@cache
def _constants(keys: tuple[tuple[int, int], ...], counts: tuple[int, ...],
               device: torch.device) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Numbers of the blocks (B,), keys of the rounds (10, 2, 1, B) and multipliers (2, 1, 1)."""
    block = np.concatenate([np.arange(count) for count in counts])
    key = np.repeat(np.array(keys, np.int64), counts, axis=0).T  # (2, B)
    rounds = np.arange(10)[:, None] * np.array(_WEYL)  # (10, 2)
    round_keys = (key + rounds[:, :, None]) & _LOW
    arrays = block, round_keys[:, :, None], np.array(_M)[:, None, None]
    return tuple(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays)  # type: ignore[return-value]


def _blocks(size: int) -> int:
    return -(-size // 4)
