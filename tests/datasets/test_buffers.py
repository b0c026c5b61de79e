"""Arrays come back to the pool when nobody holds them, and not before."""

import numpy as np
import torch

from poise.datasets.buffers import HUGE, KEPT, KINDS, LARGE, Buffers

SHAPE, BYTE = (LARGE,), np.dtype(np.uint8)


def test_an_array_is_used_again_when_the_last_tensor_of_it_is_gone():
    pool = Buffers()
    tensor = torch.from_numpy(pool.array(SHAPE, BYTE))
    view = tensor.view(2, -1)[1]
    address = tensor.data_ptr()
    del tensor
    assert pool.array(SHAPE, BYTE).ctypes.data != address  # the view is left
    del view
    assert pool.array(SHAPE, BYTE).ctypes.data == address


def test_held_arrays_are_all_different_and_few_are_kept():
    pool = Buffers()
    held = [pool.array(SHAPE, BYTE) for _ in range(3 * KEPT)]
    assert len({a.ctypes.data for a in held}) == 3 * KEPT
    assert len(pool._arrays[SHAPE, BYTE]) == KEPT
    small = [pool.array((8,), BYTE) for _ in range(2)]
    assert len(small) == 2 and pool._arrays[(8,), BYTE] == []


def test_few_kinds_are_kept_and_nothing_huge():
    pool = Buffers()
    for n in range(3 * KINDS):
        pool.array((LARGE + n,), BYTE)
    assert [shape for shape, _ in pool._arrays] == [(LARGE + n,) for n in range(2 * KINDS, 3 * KINDS)]
    pool.array((HUGE + 1,), BYTE)
    assert pool._arrays[(HUGE + 1,), BYTE] == []
