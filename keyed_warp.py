"""The numbers of keyed_tensors.py by one launch of a Warp kernel: ten rounds are some seventy launches in torch.

Every request's columns read the world, episode and step that they are keyed by from one array (D, N) of all that are
tensors; a table, made once for a device, says where and holds those that are integers. float32.

Legend: N rows, B blocks of four words, those of all requests beside each other, D different tensors.

Without `from __future__ import annotations`: Warp reads the types of a kernel's arguments when it is defined.
"""

# pyright: reportInvalidTypeForm=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from .kernels import launch

Keys = tuple[tuple[int, int], ...]
Sources = tuple[tuple[int, int], ...]  # of each request: (which of the D tensors, or -1; else the integer)


wp.set_module_options({"enable_backward": False})
FIRST, SECOND = wp.constant(wp.uint32(0xD2511F53)), wp.constant(wp.uint32(0xCD9E8D57))
WEYL0, WEYL1 = wp.constant(wp.uint32(0x9E3779B9)), wp.constant(wp.uint32(0xBB67AE85))


@wp.func
def high(a: wp.uint32, b: wp.uint32) -> wp.uint32:
    """The high half of a product."""
    return wp.uint32((wp.uint64(a) * wp.uint64(b)) >> wp.uint64(32))


@wp.func
def chosen(values: wp.array2d(dtype=wp.int64), row: int, source: wp.int64, otherwise: wp.int64) -> wp.uint32:
    """A word of the counter."""
    result = otherwise
    if source >= wp.int64(0):
        result = values[int(source), row]
    return wp.uint32(result)


@wp.func
def number(word: wp.uint32) -> float:
    """In (0, 1): rounded to float32, the largest is the one below 1."""
    return wp.min((float(word) + 0.5) * 2.3283064365386963e-10, 0.99999994)  # 2^-32, 1 - 2^-24


@wp.kernel
def draw(
    values: wp.array2d(dtype=wp.int64),  # (D, N)
    table: wp.array2d(dtype=wp.int64),  # (B, 9): block, two words of the key, (source, integer) of world, episode, step
    numbers: wp.array2d(dtype=float),  # (N, 4 B)
):
    """Philox4x32-10, as keyed.philox4x32."""
    row, column = wp.tid()
    word0 = wp.uint32(table[column, 0])
    key0, key1 = wp.uint32(table[column, 1]), wp.uint32(table[column, 2])
    word1 = chosen(values, row, table[column, 3], table[column, 4])
    word2 = chosen(values, row, table[column, 5], table[column, 6])
    word3 = chosen(values, row, table[column, 7], table[column, 8])
    for _ in range(10):
        product0, product2 = FIRST * word0, SECOND * word2
        next0 = high(SECOND, word2) ^ word1 ^ key0
        next2 = high(FIRST, word0) ^ word3 ^ key1
        word0, word1, word2, word3 = next0, product2, next2, product0
        key0 += WEYL0
        key1 += WEYL1
    numbers[row, 4 * column] = number(word0)
    numbers[row, 4 * column + 1] = number(word1)
    numbers[row, 4 * column + 2] = number(word2)
    numbers[row, 4 * column + 3] = number(word3)


def numbers(requests: Sequence[tuple[tuple[int, int], Any, Any, int, Any]], counts: Sequence[int]) -> Tensor:
    """Uniform numbers (N, 4 B) of requests, as `keyed_tensors.uniforms` has them, with so many blocks each."""
    different: list[Tensor] = []
    sources = [_sources(each, different) for each in zip(*((w, e, s) for _, w, e, _, s in requests), strict=True)]
    device, rows = different[0].device, max(len(t) for t in different)
    values = torch.stack([t.expand(rows) for t in different])
    table = _table(tuple(key for key, *_ in requests), tuple(counts), *sources, device)
    result = torch.empty((rows, 4 * len(table)), dtype=torch.float32, device=device)
    launch(draw, (rows, len(table)), [values, table], [result])
    return result


def _sources(values: Sequence[Any], different: list[Tensor]) -> Sources:
    """Where each value is found; tensors that are not there yet join the different ones."""
    result = []
    for value in values:
        if not isinstance(value, Tensor):
            result.append((-1, int(value)))
            continue
        place = next((i for i, known in enumerate(different) if known is value), len(different))
        if place == len(different):
            different.append(value)
        result.append((place, 0))
    return tuple(result)


@cache  # for ever: a recorded graph reads the memory of those it met
def _table(keys: Keys, counts: tuple[int, ...], worlds: Sources, episodes: Sources, steps: Sources,
           device: torch.device) -> Tensor:  # fmt: skip
    of_request = np.concatenate([keys, worlds, episodes, steps], axis=1).astype(np.int64)
    block = np.concatenate([np.arange(count) for count in counts])
    return torch.tensor(np.column_stack([block, np.repeat(of_request, counts, axis=0)]), device=device)
