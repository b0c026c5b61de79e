"""Automatic domain randomization: ranges that widen where the policy copes and narrow where it does not.

OpenAI 2019, "Solving Rubik's Cube with a Robot Hand", section 5 and appendix B. Every term of a randomization is one
dimension i with bounds low_i <= nominal_i <= high_i, which begin at the nominal value, a world as the model has it.

    an episode      draws every parameter uniformly between its bounds;
    with p_b        it is a boundary episode: one bound is chosen, and that parameter stands exactly on it
    its result      goes into that bound's queue; other episodes only train
    queue full      p = mean, queue emptied: p >= t_high moves the bound out by the step, p <= t_low moves it in
    moved since     an episode that began before its bound moved counts nothing: all of a queue was played on one bound
    entropy         mean over i of log(high_i - low_i), in nats per dimension

A bound never crosses its nominal value nor its limit. One that cannot move at all (no limit beyond the nominal value,
as below for a delay) is never chosen. A dimension without width has no logarithm; its width counts as one step, so the
entropy begins at the mean of the steps' logarithms.

Draws are keyed by (seed, world, episode) as everywhere; the bounds at the time are the state, and are saved.
Legend: N worlds, n of them, k numbers of a term (one for each target), d dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from ..errors import UsageError, unknown_name
from ..keyed import Stream
from .randomization import Randomization, Term
from .whats import WHATS

STEPS = 8  # steps from the nominal value to an end of the term's range
_LEAST = 0.05  # of the nominal value: the lowest limit of what must stay positive


@dataclass(frozen=True)
class Dimension:
    """One term's place in the search: where it begins, how far it may go, and in which steps."""

    nominal: float
    low: float  # limits of the bounds
    high: float
    step: float
    log: bool = False  # all four are natural logarithms of the drawn number


@dataclass(frozen=True)
class Adr:
    """The settings of the search, with a dimension for every term that is drawn anew for each episode."""

    dimensions: Mapping[str, Dimension]  # by the term's name
    boundary: float = 0.5  # share of boundary episodes, p_b
    queue: int = 10  # results that a bound waits for, m
    t_low: float = 0.3
    t_high: float = 0.5
    measure: str = "success"  # an episode's result: success (1 or 0) or return
    wider: float = 1.0  # default limits lie so many times as far from the nominal value as the ends of the term's range

    def __post_init__(self) -> None:
        if not 0.0 < self.boundary <= 1.0:
            raise UsageError(f"adr: boundary is a share above 0, at most 1, not {self.boundary}")
        if self.queue < 1 or self.queue != int(self.queue):
            raise UsageError(f"adr: queue must be at least 1 and whole, not {self.queue}")
        if not 0.0 < self.wider < math.inf:
            raise UsageError(f"adr: wider is a number above 0, not {self.wider}")
        if not self.t_low < self.t_high:
            raise UsageError(f"adr: t_low {self.t_low:g} must be below t_high {self.t_high:g}")
        if self.measure not in ("success", "return"):
            raise UsageError(f"adr: {unknown_name('measure', self.measure, ('success', 'return'))}")
        for name, d in self.dimensions.items():
            finite = all(map(math.isfinite, (d.nominal, d.low, d.high, d.step)))
            if not (finite and d.low <= d.nominal <= d.high and d.low < d.high and d.step > 0):
                raise UsageError(f"adr: {name!r} needs low <= nominal <= high, low < high and a positive step, not {d}")


@dataclass(frozen=True)
class AdaptiveRandomization(Randomization):
    """A randomization whose ranges are found by the search; `terms` are the ranges it is judged and evaluated on.

        {"terms": [ ... ], "adr": {"t_high": 0.9, "dimensions": {"mass": {"step": 0.02}}}}

    What the file leaves out is as `adaptive` has it.
    """

    adr: Adr = Adr({})

    def widest(self) -> Randomization:
        """Every term with the limits of its dimension as its range."""
        bounds = {name: (d.low, d.high) for name, d in self.adr.dimensions.items()}
        return self.with_bounds(bounds)

    def with_bounds(self, bounds: Mapping[str, tuple[float, float]]) -> Randomization:
        """The plain randomization that draws between these bounds (logarithms where the dimension says so)."""
        return Randomization(tuple(self._ranged(t, bounds) for t in self.terms))

    def _ranged(self, term: Term, bounds: Mapping[str, tuple[float, float]]) -> Term:
        if (dimension := self.adr.dimensions.get(term.name)) is None:
            return term
        low, high = (math.exp(x) if dimension.log else x for x in bounds[term.name])
        kind = "loguniform" if dimension.log else term.distribution if term.distribution == "integer" else "uniform"
        if kind == "integer":
            low, high = round(low), round(high)
        return replace(term, distribution=kind, range=(low, high), mean=None, std=None)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "adr": asdict(self.adr)}


def adaptive(randomization: Randomization, settings: Mapping[str, Any] | None = None) -> AdaptiveRandomization:
    """The search over the terms of `randomization`, whose ranges say what matters and in which proportion.

    A dimension begins at what changes nothing: 1 for a term that scales, 0 for one that adds, 0 for noise, delays and
    payloads that are set. Its limits are `wider` times as far away as the ends of the range, as far as is possible.
    A normal distribution counts as the range of three deviations. Terms that have no such value, or are not drawn for
    each episode, stay as they are; so do those that are told to.

    Args:
        settings: fields of `Adr`; "dimensions" maps names of terms to the fields of `Dimension` that differ, or to None
            for a term that keeps its range.

    Raises:
        UsageError: an unknown setting or term, or values that make no sense.
    """
    given = dict(settings or {})
    wishes = given.pop("dimensions", {})
    known = [f.name for f in fields(Adr)]
    for name in given:
        if name not in known:
            raise unknown_name("setting of adr", name, known)
    if not isinstance(wishes, Mapping):
        raise UsageError(f"adr: dimensions is an object of terms, not {wishes!r}")
    wider = given.get("wider", Adr.wider)
    if not isinstance(wider, int | float) or not 0.0 < wider < math.inf:
        raise UsageError(f"adr: wider is a number above 0, not {wider!r}")
    found = {t.name: d for t in randomization.terms if (d := _dimension(t, wider)) is not None}
    for name, wish in wishes.items():
        term = next((t for t in randomization.terms if t.name == name), None)
        if term is None or term.when != "reset":
            raise unknown_name("adr: term drawn for every episode", name, [t.name for t in randomization.terms])
        if wish is None:
            found.pop(name, None)
            continue
        if not isinstance(wish, Mapping):
            raise UsageError(f"adr: dimension {name!r} is an object, or null to keep the term's range, not {wish!r}")
        names = [f.name for f in fields(Dimension)]
        for field in wish:
            if field not in names:
                raise unknown_name(f"adr: field of dimension {name!r}:", field, names)
        if name not in found and not set(names) - {"log"} <= set(wish):
            raise UsageError(f"adr: nothing says where {name!r} begins; give its nominal, low, high and step")
        found[name] = replace(found[name], **wish) if name in found else Dimension(**wish)
    if not found:
        raise UsageError("adr: no term of this randomization has a range to search; name some under dimensions")
    try:
        adr = Adr(found, **given)
    except TypeError as error:
        raise UsageError(f"adr: a setting has the wrong form ({error})") from None
    result = AdaptiveRandomization(randomization.terms, adr)
    result.widest()  # refuses limits that the terms cannot have
    return result


def _dimension(term: Term, wider: float) -> Dimension | None:
    """The default dimension of a term, None where nothing says what changes nothing."""
    what = WHATS[term.what]
    low, high = term.support
    if term.when != "reset" or what.family == "appearance":
        return None
    if term.distribution == "normal" and term.range is None:
        assert term.mean is not None and term.std is not None
        low, high = term.mean - 3.0 * term.std, term.mean + 3.0 * term.std
    if term.operation == "set" and what.family == "physics" and term.what != "payload":
        return None
    nominal = 1.0 if term.operation == "scale" else 0.0
    log = term.distribution == "loguniform"
    if log:
        low, high, nominal = math.log(low), math.log(high), math.log(nominal) if nominal else math.log(low)
    low, high = min(low, nominal), max(high, nominal)
    if low == high:
        return None
    lowest, highest = nominal - wider * (nominal - low), nominal + wider * (high - nominal)
    if not log and (what.positive or what.nonnegative):
        if term.operation == "add":  # the default value bears what the range says, and perhaps no more
            lowest = low
        elif what.positive:
            lowest = max(lowest, _LEAST * nominal)
        else:
            lowest = max(lowest, 0.0)
    if term.operation == "set":
        highest = min(highest, what.most)
    step = max(nominal - low, high - nominal) / STEPS
    if term.distribution == "integer":
        lowest, highest, step = float(math.ceil(lowest)), float(math.floor(highest)), max(1.0, float(round(step)))
    return Dimension(nominal, lowest, highest, step, log)


class Search:
    """The bounds of one training run, and which of them each world's episode stands on."""

    def __init__(self, randomization: AdaptiveRandomization, num_envs: int):
        self.randomization, self.adr = randomization, randomization.adr
        self._names = list(self.adr.dimensions)
        every = [self.adr.dimensions[name] for name in self._names]
        self._nominal, self._step = (np.array([getattr(d, f) for d in every]) for f in ("nominal", "step"))
        self._limits = np.array([[d.low, d.high] for d in every])  # (d, 2)
        self._movable = np.flatnonzero(self._limits != self._nominal[:, None])  # places in bounds.ravel()
        self._num_envs = num_envs
        self.restart()

    def restart(self) -> None:
        """Every range at its nominal value, as at the beginning of training."""
        self.bounds = np.repeat(self._nominal[:, None], 2, axis=1)  # (d, 2) low and high
        self._queues = np.zeros((self.bounds.size, self.adr.queue))
        self._queued = np.zeros(self.bounds.size, np.int64)
        self._moves = np.zeros(self.bounds.size, np.int64)  # how often each bound has moved
        self._on = np.full(self._num_envs, -1, np.int64)  # the bound that each world's episode stands on, or -1
        self._began = np.zeros(self._num_envs, np.int64)  # how often it had moved when the episode began
        self._returns = np.zeros(self._num_envs)
        self._results = np.zeros(2)  # sum and count of boundary results since they were last asked for
        self._ranges: Randomization | None = None  # the present ones, made when they are needed

    # ---- drawing -----------------------------------------------------------------------------

    def draw(self, seed: int, worlds: np.ndarray, episodes: np.ndarray, sizes: Mapping[str, int],
             rows: np.ndarray | None = None) -> dict[str, np.ndarray]:  # fmt: skip
        """What the given episodes draw under the present bounds: term -> (n, k).

        rows: the places of these worlds among all N; by default all of them.
        """
        u = Stream(seed, "adr/boundary").uniform(worlds, episodes, 2)
        on = np.where(u[:, 0] < self.adr.boundary, self._movable[(u[:, 1] * len(self._movable)).astype(int)], -1)
        rows = np.arange(len(worlds)) if rows is None else rows
        self._on[rows], self._began[rows], self._returns[rows] = on, self._moves[on], 0.0
        drawn = self.ranges().draw(seed, worlds, episodes, sizes)
        for place in np.unique(on[on >= 0]).tolist():
            name, bound = self._names[place // 2], float(self.bounds.flat[place])
            values = np.array(drawn[name])
            values[on == place] = math.exp(bound) if self.adr.dimensions[name].log else bound
            drawn[name] = values
        return drawn

    # ---- learning from results ---------------------------------------------------------------

    def add_rewards(self, reward: np.ndarray) -> None:
        """One step's rewards (N,), where returns are what counts."""
        if self.adr.measure == "return":
            self._returns = self._returns + reward

    def ended(self, rows: np.ndarray, success: np.ndarray | None) -> None:
        """Episodes of the worlds in `rows` (n,) have ended, in this order; success (N,)."""
        results = self._returns if self.adr.measure == "return" else success
        if results is None:
            raise UsageError(
                'adr: this task defines no success; give "measure": "return" and t_low and t_high in returns'
            )
        for row in rows.tolist():
            if (place := int(self._on[row])) >= 0:
                self._record(place, float(results[row]), int(self._began[row]))

    def _record(self, place: int, result: float, began: int) -> None:
        self._results += result, 1.0
        if began != self._moves[place]:
            return
        self._queues[place, self._queued[place]] = result
        self._queued[place] += 1
        if self._queued[place] < self.adr.queue:
            return
        self._queued[place] = 0
        mean = self._queues[place].mean()
        outward = 1.0 if mean >= self.adr.t_high else -1.0 if mean <= self.adr.t_low else 0.0
        i, side = divmod(place, 2)
        moved = self.bounds[i, side] + outward * self._step[i] * (1.0 if side else -1.0)
        inner, outer = (self._limits[i, 0], self._nominal[i]) if side == 0 else (self._nominal[i], self._limits[i, 1])
        moved = min(max(moved, inner), outer)
        if moved != self.bounds[i, side]:
            self.bounds = self.bounds.copy()
            self.bounds[i, side], self._ranges = moved, None
            self._moves[place] += 1

    # ---- looking at it -----------------------------------------------------------------------

    @property
    def entropy(self) -> float:
        """Mean over the dimensions of log(high - low) [nats], a width of nothing counting as one step."""
        return float(np.log(np.maximum(self.bounds[:, 1] - self.bounds[:, 0], self._step)).mean())

    def metrics(self) -> dict[str, float]:
        """The entropy, every bound (of the drawn number) and width, and the mean result on bounds since the last call.

        A width is a share of the widest, and so comparable between terms of different units.
        """
        values = {"adr/entropy": self.entropy}
        if self._results[1]:
            values["adr/boundary"] = float(self._results[0] / self._results[1])
        self._results = np.zeros(2)
        widths = np.ptp(self.bounds, axis=1) / np.ptp(self._limits, axis=1)
        for name, (low, high), width in zip(self._names, self.bounds.tolist(), widths.tolist(), strict=True):
            values[f"adr/{name}/width"] = width
            log = self.adr.dimensions[name].log
            values[f"adr/{name}/low"], values[f"adr/{name}/high"] = (math.exp(x) if log else x for x in (low, high))
        return values

    def ranges(self) -> Randomization:
        """The plain randomization of the present bounds."""
        if self._ranges is None:
            self._ranges = self.randomization.with_bounds(
                dict(zip(self._names, map(tuple, self.bounds.tolist()), strict=True))
            )
        return self._ranges

    def state_dict(self) -> dict[str, Any]:
        return {"bounds": self.bounds.copy(), "queues": self._queues.copy(), "queued": self._queued.copy(),
                "moves": self._moves.copy(), "on": self._on.copy(), "began": self._began.copy(),
                "returns": self._returns.copy(), "results": self._results.copy()}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.bounds, self._queues, self._queued, self._moves, self._on, self._began, self._returns, self._results = (
            np.array(state[name])
            for name in ("bounds", "queues", "queued", "moves", "on", "began", "returns", "results")
        )
        self._ranges = None
