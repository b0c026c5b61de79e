"""Keyed numbers as tensors: the words of numpy's Philox, bit for bit, and numbers equal to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poise.keyed import Stream, philox4x32, uniforms
from poise.keyed_tensors import philox
from poise.keyed_tensors import uniforms as tensor_uniforms


def test_words_of_tensors_are_those_of_numpy_bit_for_bit():
    rng = np.random.default_rng(0)
    world, episode, step = rng.integers(0, 2**32, (3, 200), np.uint64)
    world[:2], episode[:2], step[:2] = (0, 2**32 - 1), (0, 2**32 - 1), (0, 2**32 - 1)
    keys, sizes = [(0, 0), (2**32 - 1, 2**32 - 1), (0xA4093822, 0x299F31D0)], [9, 4, 1]
    asked = [(key, *(torch.from_numpy(x.astype(np.int64)) for x in (world, episode)), size,
              torch.from_numpy(step.astype(np.int64))) for key, size in zip(keys, sizes, strict=True)]  # fmt: skip
    words = philox(asked).numpy()
    block = 0
    for key, size in zip(keys, sizes, strict=True):
        for number in range(-(-size // 4)):
            counter = np.stack([np.full(200, number, np.uint64), world, episode, step], axis=-1)
            np.testing.assert_array_equal(words[:, block], philox4x32(counter, key))
            block += 1
    assert block == words.shape[1]


def test_a_stream_gives_tensors_where_worlds_are_tensors():
    worlds, steps, stream = np.arange(50), np.arange(50) % 7, Stream(3, "a")
    on_torch = [torch.from_numpy(x) for x in (worlds, steps)]
    for size in (1, 4, 5):
        u, z = stream.uniform(on_torch[0], 2, size, on_torch[1]), stream.normal(on_torch[0], 2, size, on_torch[1])
        assert u.dtype == z.dtype == torch.float32 and u.shape == z.shape == (50, size)
        np.testing.assert_allclose(u, stream.uniform(worlds, 2, size, steps), rtol=1e-6)
        np.testing.assert_allclose(z, stream.normal(worlds, 2, size, steps), atol=1e-5)


def test_several_streams_of_tensors_at_once_give_the_numbers_of_each():
    worlds, episodes = torch.arange(6), torch.tensor([0, 0, 3, 1, 2, 9])
    asked = [(Stream(0, "a"), worlds, episodes, 5, 0), (Stream(0, "b"), worlds, 0, 2, worlds),
             (Stream(9, "a"), worlds, episodes, 9, 1)]  # fmt: skip
    for (stream, *rest), together in zip(asked, uniforms(asked), strict=True):
        torch.testing.assert_close(together, stream.uniform(*rest), rtol=0, atol=0)


def test_numbers_of_tensors_stay_inside_the_open_interval(monkeypatch):
    extremes = torch.tensor([[[0, 2**32 - 1, 2**32 - 2, 2**31]]])
    monkeypatch.setattr("poise.keyed_tensors.philox", lambda requests: extremes)
    monkeypatch.setattr("poise.keyed_tensors.serve", lambda device, dtype: False)
    (u,) = tensor_uniforms([((0, 0), torch.zeros(1, dtype=torch.int64), 0, 4, 0)])
    assert u.dtype == torch.float32 and 0 < float(u.min()) == 2.0**-33 and float(u.max()) == 1.0 - 2.0**-24


@pytest.fixture
def in_float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_in_float64_the_numbers_are_those_of_numpy(in_float64):
    worlds, stream = np.arange(500), Stream(3, "a")
    np.testing.assert_array_equal(stream.uniform(torch.from_numpy(worlds), 2, 5), stream.uniform(worlds, 2, 5))
    np.testing.assert_allclose(stream.normal(torch.from_numpy(worlds), 2, 5), stream.normal(worlds, 2, 5), rtol=1e-12)
