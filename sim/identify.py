"""System identification: the parameters of an arm's model that best explain a recorded motion, and how sure that is.

    minimize over theta   1/2 sum over rows and joints of (simulated(theta) - measured)^2,   theta within its ranges

by Levenberg-Marquardt in a trust region (scipy's least_squares), from the best of several starts. All candidates of a
step, one for each parameter's finite difference, are one batch of worlds. With J the Jacobian at the solution and s^2
the variance of what is left,

    covariance = tau s^2 (J^T J)^-1

tau >= 1 is the time over which what is left is correlated, in rows: rows that err together count once. So the deviation
covers noise, and what the model cannot express only as far as it looks like noise.

Legend: P parameters, on a scale from 0 to 1 over their ranges; K candidates, R rows, n joints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from ..errors import UsageError
from ..keyed import Stream
from ..machine import cores
from ..robots import RobotSpec
from .motion_replay import Candidates, Motion
from .physics_terms import names_of
from .randomization import Randomization, Term, match
from .whats import WHATS

STARTS, TRIED = 8, 2  # points that are looked at, and those of them that are gone on from
_STEP = 1e-3  # of a parameter's range, for finite differences
_SIGMAS = 2.0  # deviations that the ranges of the result reach to either side
_WORSE = 5.0  # times what the best explained motion leaves
_NOTHING = 1e-12  # relative
_ALIKE = 0.95  # correlation from which two parameters cannot be told apart


@dataclass(frozen=True)
class Parameter:
    """One number of the model, as identified."""

    name: str  # of its term; term/target where every target has its own
    term: Term  # what it is about, with this one parameter's target
    estimate: float
    std: float
    low: float  # the ends of the range that was searched
    high: float

    @property
    def interval(self) -> tuple[float, float]:
        """Two deviations to either side, within the range that was searched."""
        if self.term.distribution == "loguniform":  # its deviation is one of the logarithm
            low, high = (self.estimate * math.exp(sign * _SIGMAS * self.std) for sign in (-1, 1))
        else:
            low, high = self.estimate - _SIGMAS * self.std, self.estimate + _SIGMAS * self.std
        return max(self.low, low), min(self.high, high)


@dataclass(frozen=True)
class Identification:
    """What a motion says about an arm."""

    parameters: tuple[Parameter, ...]
    correlation: np.ndarray  # (P, P)
    rms: float  # [rad] of what the best candidate leaves
    rms_before: float  # [rad] of what the model leaves as it is
    rows: int
    warnings: tuple[str, ...]

    def randomization(self) -> Randomization:
        """Ranges to train in: every parameter's estimate with two deviations to either side."""
        return Randomization(tuple(replace(p.term, name=p.name, range=p.interval) for p in self.parameters))

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        found = [{k: v for k, v in asdict(p).items() if k != "term"} for p in self.parameters]
        return {"parameters": found, "correlation": self.correlation.tolist(), "rms": self.rms,
                "rms_before": self.rms_before, "rows": self.rows, "warnings": list(self.warnings)}  # fmt: skip


def identify(robot: RobotSpec, motions: Sequence[Motion], terms: Randomization, mjcf: str | None = None,
             physics_dt: float = 0.001, threads: int = 0, seed: int = 0) -> Identification:  # fmt: skip
    """The numbers of `terms`, within their ranges, that explain the motions best.

    Args:
        terms: a `shared` term is one number for all its targets, any other one for each.
        mjcf: another model file of the arm.
        physics_dt: [s]. A servo stepped at h damps less than a real one, by about gain h / 2.

    Raises:
        UsageError: a term that cannot be identified so, or that does not fit the model.
    """
    if not motions or not terms.terms:
        raise UsageError("identification needs at least one motion and one term")
    candidates = Candidates(robot, terms, mjcf, physics_dt, threads or cores())
    try:
        return _Fit(candidates, motions, terms).solve(seed)
    finally:
        candidates.close()


class _Fit:
    """One least-squares problem."""

    def __init__(self, candidates: Candidates, motions: Sequence[Motion], terms: Randomization):
        self._candidates, self._motions = candidates, motions
        self.parameters = [p for term in terms.terms for p in _parameters(candidates, term)]
        self._terms = terms.terms
        self._known: tuple[np.ndarray, np.ndarray] | None = None  # the newest point, and what it leaves

    def solve(self, seed: int) -> Identification:
        count = len(self.parameters)
        before = np.array([_nominal(p) for p in self.parameters])
        others = Stream(seed, "identify/start").uniform(np.arange(STARTS - 1), 0, count)
        starts = np.vstack([np.clip(before, 0.02, 0.98), others])  # (K, P), off the ends
        costs = (self.left(np.vstack([before, starts])) ** 2).mean(axis=1)
        tried = [self._descend(starts[i]) for i in np.argsort(costs[1:], kind="stable")[:TRIED]]
        best = min(tried, key=lambda r: r.cost)
        return self._result(best, tried, math.sqrt(costs[0]))

    def left(self, points: np.ndarray) -> np.ndarray:
        """What candidates at points (K, P) leave of all motions: (K, rows)."""
        params, start = {}, 0
        for term in self._terms:
            size = self._candidates.dynamics.sizes[term.name]
            own = 1 if term.shared else size
            values = [self._number(i, points[:, i]) for i in range(start, start + own)]
            params[term.name] = np.broadcast_to(np.stack(values, axis=1), (len(points), size))
            start += own
        parts = [self._candidates.replay(m, params) - m.joint_pos for m in self._motions]  # each (K, R, n)
        return np.concatenate([part.reshape(len(points), -1) for part in parts], axis=1)

    def _number(self, index: int, place: Any) -> Any:
        """The parameter's own number at a place from 0 to 1."""
        p = self.parameters[index]
        if p.term.distribution == "loguniform":
            return p.low * (p.high / p.low) ** place
        return p.low + (p.high - p.low) * place

    def _descend(self, start: np.ndarray) -> Any:
        return least_squares(self._value, start, self._jacobian, bounds=(0.0, 1.0), x_scale="jac", ftol=1e-6, xtol=1e-6)

    def _value(self, point: np.ndarray) -> np.ndarray:
        if self._known is None or not np.array_equal(self._known[0], point):
            self._known = point.copy(), self.left(point[None])[0]
        return self._known[1]

    def _jacobian(self, point: np.ndarray) -> np.ndarray:
        """Finite differences (rows, P), inwards from an end of the range; all of them one batch."""
        here = self._value(point)
        step = np.where(point + _STEP <= 1.0, _STEP, -_STEP)
        return ((self.left(point + np.diag(step)) - here) / step[:, None]).T

    def _result(self, best: Any, tried: list[Any], before: float) -> Identification:
        rows, count = best.jac.shape
        spare = max(1, rows - count)
        covariance = self._correlated(best.fun) * 2.0 * best.cost / spare * _inverse(best.jac)
        std = np.sqrt(np.diag(covariance))
        scale = np.maximum(std, 1e-300)
        correlation = np.where(np.eye(count) > 0, 1.0, covariance / np.outer(scale, scale))
        found = tuple(self._found(i, best.x[i], std[i]) for i in range(count))
        warnings = (*self._touched(best.fun), *_warnings(found, best.x, std, correlation),
                    *self._rivals(best, tried, std))  # fmt: skip
        return Identification(found, correlation, math.sqrt(2.0 * best.cost / rows), before, rows, warnings)

    def _found(self, index: int, place: float, std: float) -> Parameter:
        p = self.parameters[index]
        std = min(std, 1.0)  # a range without information
        width = math.log(p.high / p.low) if p.term.distribution == "loguniform" else p.high - p.low
        return replace(p, estimate=float(self._number(index, place)), std=float(std * width))

    def _correlated(self, left: np.ndarray) -> float:
        """Over how many rows what is left is correlated, at least 1: 1 + 2 sum of autocorrelations."""
        times, start = [], 0
        for motion in self._motions:
            size = motion.joint_pos.size
            series = left[start : start + size].reshape(motion.joint_pos.shape)
            start += size
            power = np.abs(np.fft.rfft(series, 2 * len(series), axis=0)) ** 2
            auto = np.fft.irfft(power, axis=0)[: len(series) // 2].sum(axis=1)  # joints that err more count more
            rho = auto[1:] / auto[0] if auto[0] > 0 else np.zeros(1)
            below = np.flatnonzero(rho < 0.05)
            times.append(1.0 + 2.0 * rho[: below[0] if len(below) else len(rho)].sum())
        return max(1.0, float(np.mean(times)))

    def _touched(self, left: np.ndarray) -> list[str]:
        """Motions that no candidate explains as well as the others."""
        ends = np.cumsum([m.joint_pos.size for m in self._motions])[:-1]
        rms = np.array([math.sqrt(np.mean(part**2)) for part in np.split(left, ends)])
        best = 1e3 * rms.min()
        return [f"motion {i} leaves {1e3 * rms[i]:.3g} mrad, the best {best:.3g}: did the arm touch something? "
                "Candidates move in free air; leave it out"
                for i in np.flatnonzero(rms > _WORSE * rms.min())]  # fmt: skip

    def _rivals(self, best: Any, tried: list[Any], std: np.ndarray) -> list[str]:
        """Whether another start ended elsewhere and as well."""
        for other in tried:
            apart = np.abs(other.x - best.x) > np.maximum(_SIGMAS * std, 0.01)
            if other.cost <= 1.01 * best.cost and apart.any():
                names = ", ".join(self.parameters[i].name for i in np.flatnonzero(apart))
                return [f"other values of {names} explain the motion as well; narrow their ranges or move more"]
        return []


def _inverse(jac: np.ndarray) -> np.ndarray:
    """(J^T J)^-1, large where J has nearly nothing to say, by the eigenvalues of J with columns of one length."""
    norm = np.linalg.norm(jac, axis=0)
    norm = np.maximum(norm, _NOTHING * max(norm.max(), _NOTHING))
    values, vectors = np.linalg.eigh((jac / norm).T @ (jac / norm))
    return (vectors / np.maximum(values, _NOTHING)) @ vectors.T / np.outer(norm, norm)


def _parameters(candidates: Candidates, term: Term) -> list[Parameter]:
    """What is searched of a term; estimates are still to come."""
    where, (low, high) = f"term {term.name!r}", term.support
    if term.distribution == "integer" or not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(f"{where}: identification searches a range [low, high] of real numbers")
    if WHATS[term.what].numbers != 1:
        raise UsageError(f"{where}: {term.what} is {WHATS[term.what].numbers} numbers a target; identification takes "
                         "terms of one")  # fmt: skip
    kind = term.distribution if term.distribution == "loguniform" else "uniform"
    plain = replace(term, distribution=kind, range=(low, high), mean=None, std=None)
    if term.shared or candidates.dynamics.sizes[term.name] == 1:
        return [Parameter(term.name, plain, math.nan, math.nan, low, high)]
    target = WHATS[term.what].target
    kinds = ("site", "body") if target == "place" else (target,)
    names = [name for kind in kinds for name in names_of(candidates.model, kind)]
    return [Parameter(f"{term.name}/{names[i]}", replace(plain, target=(names[i],)), math.nan, math.nan, low, high)
            for i in match(term, names)]  # fmt: skip


def _nominal(p: Parameter) -> float:
    """The place of what changes nothing, or the end of the range that is nearest to it."""
    value = min(max(1.0 if p.term.operation == "scale" else 0.0, p.low), p.high)
    if p.term.distribution == "loguniform":
        return math.log(value / p.low) / math.log(p.high / p.low)
    return (value - p.low) / (p.high - p.low)


def _warnings(found: Sequence[Parameter], place: np.ndarray, std: np.ndarray, correlation: np.ndarray) -> list[str]:
    lines = []
    for i, p in enumerate(found):
        if 2.0 * _SIGMAS * std[i] >= 1.0:
            lines.append(f"{p.name} cannot be told from this motion: two deviations to either side span its range")
        elif not 0.01 <= place[i] <= 0.99:
            lines.append(f"{p.name} = {p.estimate:.4g} lies at an end of its range [{p.low:g}, {p.high:g}]: widen it")
        for j in range(i):
            if abs(correlation[i, j]) > _ALIKE:
                lines.append(f"{found[j].name} and {p.name} can hardly be told apart: correlation "
                             f"{correlation[i, j]:.2f}; move more, or fix one")  # fmt: skip
    return lines
