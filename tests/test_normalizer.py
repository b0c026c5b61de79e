"""The running statistics equal numpy's over everything seen, however it came in pieces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.normalizer import Normalizer


def data(rows: int = 200, dim: int = 3) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal([0.0, 5.0, -1e4], [1.0, 0.01, 30.0], (rows, dim)).astype(np.float32)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12))
def test_the_statistics_are_those_of_all_data_in_any_batching(sizes):
    x = data(sum(sizes) + 1)
    n = Normalizer(3)
    for piece in np.split(x, np.cumsum(sizes)):
        n.update(torch.from_numpy(piece))
    x64 = x.astype(np.float64)
    np.testing.assert_allclose(n.mean.numpy(), x64.mean(0), rtol=1e-10)
    np.testing.assert_allclose(n.var.numpy(), x64.var(0), rtol=1e-6, atol=1e-12)
    assert n.count.item() == len(x)


def test_leading_axes_are_all_rows():
    flat, nested = Normalizer(3), Normalizer(3)
    x = torch.from_numpy(data(120))
    flat.update(x)
    nested.update(x.reshape(4, 30, 3))
    assert torch.equal(flat.mean, nested.mean) and torch.equal(flat.var, nested.var)


def test_masked_rows_do_not_count():
    x = torch.from_numpy(data(40))
    mask = torch.arange(40) % 3 != 0
    spoiled = torch.where(mask[:, None], x, torch.full_like(x, torch.nan))
    masked, clean = Normalizer(3), Normalizer(3)
    masked.update(spoiled.reshape(8, 5, 3), mask.reshape(8, 5))
    clean.update(x[mask])
    assert torch.equal(masked.mean, clean.mean) and torch.equal(masked.var, clean.var)
    assert masked.count.item() == mask.sum().item()


def test_nothing_seen_changes_nothing():
    n = Normalizer(2)
    n.update(torch.zeros(0, 2))
    n.update(torch.ones(3, 2), torch.zeros(3, dtype=torch.bool))
    assert n.count.item() == 0
    torch.testing.assert_close(n(torch.tensor([[0.5, -2.0]])), torch.tensor([[0.5, -2.0]]))


def test_normalized_data_has_mean_zero_and_deviation_one():
    x = torch.from_numpy(data(5000))
    n = Normalizer(3)
    n.update(x)
    y = n(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.mean(0), torch.zeros(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(y.std(0), torch.ones(3), atol=2e-3, rtol=0)


def test_a_hand_computed_example():
    n = Normalizer(1, clip=1.5)
    n.update(torch.tensor([[1.0], [3.0]]))  # mean 2, variance 1
    torch.testing.assert_close(n(torch.tensor([[2.5], [100.0], [-100.0]])), torch.tensor([[0.5], [1.5], [-1.5]]))


def test_an_input_that_has_been_constant_keeps_its_scale():
    n = Normalizer(2)
    n.update(torch.tensor([[7.0, 0.0]]).expand(50, 2))
    torch.testing.assert_close(n(torch.tensor([[7.01, -0.02]])), torch.tensor([[0.01, -0.02]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("device", ["cpu"])
def test_a_restored_normalizer_goes_on_to_the_bit(device):
    x = torch.from_numpy(data(90))
    n = Normalizer(3, device=device)
    n.update(x[:50])
    restored = Normalizer(3, device=device)
    restored.load_state_dict({k: v.clone() for k, v in n.state_dict().items()})
    n.update(x[50:])
    restored.update(x[50:])
    for key, value in n.state_dict().items():
        assert torch.equal(value, restored.state_dict()[key]), key
    assert torch.equal(n(x), restored(x))


def test_a_saved_state_does_not_change_while_training_goes_on():
    n = Normalizer(3)
    n.update(torch.from_numpy(data(10)))
    saved = n.state_dict()
    before = {k: v.clone() for k, v in saved.items()}
    n.update(torch.from_numpy(data(40)))
    assert all(torch.equal(saved[k], before[k]) for k in saved)
