"""Mix: shares of sources, what its batches say, and what it refuses."""

import numpy as np
import pytest
import torch

from poise.batch import Batch, Sample
from poise.datasets.mix import Mix, shares
from poise.errors import UsageError


class Numbers:
    """A source whose every number is `value`; it counts what it was asked for."""

    def __init__(self, value: float, dim: int = 2, **optional):
        self.value, self.dim, self.optional, self.asked = value, dim, optional, []
        self.num_rows, self.added = 3, []

    def sample(self, request: Sample, rng: np.random.Generator) -> Batch:
        self.asked.append(request.batch_size)
        n = request.batch_size or self.num_rows
        x, no = torch.full((n, self.dim), self.value), torch.zeros(n, dtype=torch.bool)
        optional = {name: make(n) for name, make in self.optional.items()}
        return Batch({"state": x}, x, x[:, 0], {"state": x}, no, no, rows=torch.arange(n), **optional)

    def add(self, *step):
        self.added.append(step)


def test_half_and_half_is_exactly_that_in_every_batch():
    a, b = Numbers(1.0), Numbers(2.0)
    batch = Mix([a, b]).sample(Sample(6), np.random.default_rng(0))
    assert batch.reward.tolist() == [1.0] * 3 + [2.0] * 3
    assert batch.origin.tolist() == [0] * 3 + [1] * 3 and batch.rows is None and batch.weight is None
    assert batch.obs["state"].shape == batch.action.shape == (6, 2)


def test_whole_shares_draw_nothing_and_the_others_keep_their_mean():
    rng = np.random.default_rng(0)
    assert shares(10, np.array([0.3, 0.2, 0.5]), rng) == [3, 2, 5]
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state
    counts = np.array([shares(10, np.array([0.01, 0.44, 0.55]), rng) for _ in range(4000)])
    assert (counts.sum(1) == 10).all()
    assert set(counts[:, 0]) == {0, 1} and set(counts[:, 1]) <= {4, 5} and set(counts[:, 2]) == {5, 6}
    assert np.abs(counts.mean(0) - [0.1, 4.4, 5.5]).max() < 0.03


def test_a_source_without_weights_of_rows_counts_each_as_one():
    mix = Mix([Numbers(1.0, weight=lambda n: torch.full((n,), 0.5)), Numbers(2.0)])
    assert mix.sample(Sample(4), np.random.default_rng(0)).weight.tolist() == [0.5, 0.5, 1.0, 1.0]


def test_everything_is_asked_for_source_by_source_and_a_share_of_none_is_not():
    a, b = Numbers(1.0), Numbers(2.0)
    assert Mix([a, b]).sample(Sample(0), np.random.default_rng(0)).origin.tolist() == [0, 0, 0, 1, 1, 1]
    a.asked.clear()
    assert Mix([a, b], [0, 1]).sample(Sample(4), np.random.default_rng(0)).origin.tolist() == [1] * 4
    assert a.asked == []


def test_what_is_added_goes_to_the_first_source():
    a, b = Numbers(1.0), Numbers(2.0)
    mix = Mix([a, b])
    mix.add({}, torch.zeros(1), {}, None)
    assert len(a.added) == 1 and not b.added and mix.num_rows == 3


@pytest.mark.parametrize("other, message", [
    (Numbers(2.0, dim=3), "differ in obs/state: torch.float32 \\(2,\\) on cpu, torch.float32 \\(3,\\)"),
    (Numbers(2.0, mc_return=torch.zeros), "one source of a mix gives mc_return and another does not"),
])  # fmt: skip
def test_sources_that_do_not_fit_each_other_are_refused(other, message):
    with pytest.raises(UsageError, match=message):
        Mix([Numbers(1.0), other]).sample(Sample(4), np.random.default_rng(0))


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [1.0, float("nan")]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(UsageError, match="weights must be 2 numbers"):
        Mix([Numbers(1.0), Numbers(2.0)], weights)
