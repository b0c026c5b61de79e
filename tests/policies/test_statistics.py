"""Interquartile means, bootstrap and Wilson intervals, against arithmetic and exact enumeration."""

import itertools
import math

import numpy as np
import pytest

from poise.errors import UsageError
from poise.policies.statistics import aggregate, bootstrap_interval, iqm, mean, wilson_interval


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([5.0], 5.0),
        ([1.0, 3.0], 2.0),
        ([1.0, 2.0, 6.0], 3.0),  # floor(3 / 4) = 0: nothing is cut
        ([100.0, 2.0, 4.0, -100.0], 3.0),
        ([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0], 3.5),  # without -50, 1, 6 and 9: (2 + 3 + 4 + 5) / 4
    ],
)
def test_the_interquartile_mean_by_hand(scores, expected):
    assert iqm(np.array(scores)) == expected
    assert iqm(np.array([scores, scores])) == pytest.approx([expected, expected])


def test_an_outlier_moves_the_mean_but_not_the_interquartile_mean():
    scores = np.arange(8.0)
    broken = np.where(scores == 7.0, 1e6, scores)
    assert iqm(broken) == iqm(scores) and mean(broken) > 1e5


@pytest.mark.parametrize("statistic", [mean, iqm])
def test_the_bootstrap_is_the_one_of_every_possible_resample(statistic):
    scores = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
    every = statistic(np.array(list(itertools.product(scores, repeat=5))))  # all 3125 are equally likely
    exact = np.quantile(every, (0.025, 0.975))
    assert bootstrap_interval([scores], statistic, resamples=40_000) == pytest.approx(tuple(exact), abs=0.11)


def test_small_samples_are_exact():
    assert bootstrap_interval([np.array([3.0])], mean) == (3.0, 3.0)
    assert bootstrap_interval([np.array([1.0, 5.0])], mean) == (1.0, 5.0)  # {1, 3, 3, 5}: a quarter at each end
    assert bootstrap_interval([np.full(7, 2.5)], iqm) == (2.5, 2.5)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    samples = rng.normal(1.0, 2.0, (300, 40))
    covered = [low <= 1.0 <= high for low, high in (bootstrap_interval([s], mean, resamples=400) for s in samples)]
    assert 0.88 <= np.mean(covered) <= 0.99


def test_runs_that_differ_widen_the_interval_though_their_episodes_do_not():
    alike = np.tile(np.arange(10.0), (4, 1))
    apart = np.repeat(np.array([[0.0], [3.0], [6.0], [9.0]]), 10, 1)
    low, high = bootstrap_interval([apart], mean)
    narrow_low, narrow_high = bootstrap_interval([alike], mean)
    assert high - low > 2 * (narrow_high - narrow_low)
    exact = np.quantile(np.array(list(itertools.product([0.0, 3.0, 6.0, 9.0], repeat=4))).mean(1), (0.025, 0.975))
    assert (low, high) == pytest.approx(tuple(exact), abs=0.3)


def test_tasks_are_strata_that_keep_their_share():
    tasks = [np.zeros(5), np.full(5, 10.0)]
    assert bootstrap_interval(tasks, mean) == (5.0, 5.0)  # pooled, it would reach from 2 to 8


def test_intervals_follow_from_the_seed():
    scores = np.random.default_rng(1).normal(size=(3, 20))
    first = bootstrap_interval([scores], iqm, seed=4)
    assert first == bootstrap_interval([scores], iqm, seed=4) != bootstrap_interval([scores], iqm, seed=5)
    np.random.rand(3)
    assert first == bootstrap_interval([scores], iqm, seed=4)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # from the formula with z = 1.96
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 100, 0.7222, 0.8749),
    ],
)
def test_wilson_by_hand(successes, trials, low, high):
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_aggregate_of_three_runs_by_hand():
    result = aggregate([[0.0, 2.0], [4.0, 6.0], [8.0, 10.0]])
    assert (result.runs, result.episodes, result.return_mean, result.return_iqm) == (3, 2, 5.0, 5.0)
    assert (result.worst_run, result.worst_mean, result.runs_std) == (0, 1.0, 4.0)
    assert result.return_low < 5.0 < result.return_high and result.iqm_low <= 5.0 <= result.iqm_high
    assert math.isclose(aggregate([[1.0, 2.0]]).runs_std, 0.0)


def test_what_has_no_interval_is_refused():
    with pytest.raises(UsageError, match="at least one score"):
        bootstrap_interval([np.zeros(3), np.zeros(0)], mean)
    with pytest.raises(UsageError, match="3 successes of 2"):
        wilson_interval(3, 2)
    with pytest.raises(UsageError, match=r"\[1, 2\] episodes"):
        aggregate([[1.0], [1.0, 2.0]])
