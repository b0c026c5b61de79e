"""What a handful of scores says, with its uncertainty: interquartile means, bootstrap and Wilson intervals.

    IQM(x) = mean of x without its lowest and its highest floor(n / 4) values
    bootstrap interval = the 2.5 % and 97.5 % quantiles of the statistic over resamples drawn with replacement

Runs (seeds of training) and their episodes are resampled one inside the other: first which runs, then which
episodes of each. With one run that is the plain bootstrap over episodes; the variation between runs counts where
there are several, since episodes of one policy say nothing about the next seed. Tasks are strata: each keeps its
share. Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice"; the interval of
a rate is Wilson's (1927), which holds at 0 % and 100 % too, where a bootstrap gives no width.

Legend: R runs, M episodes of each, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import UsageError
from ..keyed import Stream

RESAMPLES = 2000
LEVEL = 0.95
_NORMAL_QUANTILE = 1.959963984540054  # of (1 + LEVEL) / 2
_AT_ONCE = 2_000_000  # numbers of resamples held in memory together

Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], np.ndarray]  # (..., n) -> (...)


def mean(scores: np.ndarray) -> np.ndarray:
    """The mean over the last axis."""
    return np.asarray(scores).mean(-1)


def iqm(scores: np.ndarray) -> np.ndarray:
    """The interquartile mean over the last axis: fewer outliers' whims than a mean, fewer ties than a median."""
    scores = np.asarray(scores, np.float64)
    cut = scores.shape[-1] // 4
    return np.sort(scores, -1)[..., cut : scores.shape[-1] - cut].mean(-1)


def bootstrap_interval(
    tasks: Sequence[np.ndarray], statistic: Statistic, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """The 95 % interval of `statistic` over all scores of `tasks`, each (R, M) or, of one run, (M,).

    A pure function of its arguments. Scores of several tasks should be on one scale.
    """
    strata = [np.atleast_2d(np.asarray(scores, np.float64)) for scores in tasks]
    if not strata or any(scores.size == 0 for scores in strata):
        raise UsageError("an interval needs at least one score of every task; there is none")
    generator = np.random.default_rng(int(Stream(seed, "bootstrap").integer(0, 0)[0]))
    part = max(1, _AT_ONCE // sum(scores.size for scores in strata))
    values = []
    for begin in range(0, resamples, part):
        count = min(part, resamples - begin)
        values.append(statistic(np.concatenate([_resample(s, count, generator) for s in strata], -1)))
    low, high = np.quantile(np.concatenate(values), ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def _resample(scores: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Scores (R, M) drawn with replacement, runs first, then episodes inside each: (count, R * M)."""
    runs, episodes = scores.shape
    run = generator.integers(runs, size=(count, runs, 1))
    episode = generator.integers(episodes, size=(count, runs, episodes))
    return scores[run, episode].reshape(count, -1)


def wilson_interval(successes: int, trials: int) -> Interval:
    """The 95 % interval of a rate of which `successes` of `trials` were seen."""
    if not 0 <= successes <= trials or trials == 0:
        raise UsageError(f"{successes} successes of {trials}: expected 0 <= successes <= trials, and a trial")
    z2 = _NORMAL_QUANTILE**2
    rate = successes / trials
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _NORMAL_QUANTILE / (1 + z2 / trials) * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Aggregate:
    """What several runs (seeds of one training) scored together."""

    runs: int
    episodes: int  # of each run
    return_mean: float
    return_low: float
    return_high: float
    return_iqm: float
    iqm_low: float
    iqm_high: float
    runs_std: float  # of the runs' means, as a sample of all seeds; 0 for one run
    worst_run: int  # which has the lowest mean, counted from 0
    worst_mean: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def aggregate(returns: Sequence[Sequence[float]], seed: int = 0) -> Aggregate:
    """Aggregate returns (R, M), one row a run, whose numbers of episodes must be the same."""
    if len({len(row) for row in returns}) != 1:
        raise UsageError(f"runs of {sorted({len(row) for row in returns})} episodes: expected as many of each run")
    scores = np.asarray(returns, np.float64)
    pooled, means = scores.ravel(), scores.mean(1)
    low, high = bootstrap_interval([scores], mean, seed)
    iqm_low, iqm_high = bootstrap_interval([scores], iqm, seed)
    return Aggregate(
        runs=scores.shape[0],
        episodes=scores.shape[1],
        return_mean=float(pooled.mean()),
        return_low=low,
        return_high=high,
        return_iqm=float(iqm(pooled)),
        iqm_low=iqm_low,
        iqm_high=iqm_high,
        runs_std=float(means.std(ddof=1)) if len(means) > 1 else 0.0,
        worst_run=int(means.argmin()),
        worst_mean=float(means.min()),
    )
