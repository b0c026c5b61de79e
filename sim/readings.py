"""Readings: what reaches the policy of an observation term: late, biased, noisy, and now and then not at all.

    reported = reading of `obs_delay` ago + obs_bias + noise, or what was reported a step before

For what no encoder tells, such as an object's position; sim/sensing.py does the same to joints. Pictures, named by
their groups, can come late or not at all.

Legend: N worlds, n of them, d numbers of a reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..spec import Spec
from .delay_line import DelayLine
from .randomization import Randomization, Term, match
from .rows import on_device, replaced, restored, some, space, zeros
from .white import White

if TYPE_CHECKING:
    import torch

Params = Mapping[str, Any]
Values = dict[str, Any]


class Readings:
    """Reported readings of N worlds."""

    def __init__(self, spec: Spec, randomization: Randomization, num_envs: int, white: White,
                 device: torch.device | None = None):  # fmt: skip
        self._dt, self._num_envs, self._device = spec.control_dt, num_envs, device
        terms = [(t, observed(spec, t)) for t in randomization.terms if t.what.startswith("obs_")]
        of = {what: [(t, sizes) for t, sizes in terms if t.what == what] for what in
              ("obs_delay", "obs_bias", "obs_noise", "obs_dropout")}  # fmt: skip
        images = {group for group in spec.observations if spec.is_image(group)}
        self._late = [(t, {name: DelayLine(num_envs, size, t.support[1] / self._dt, interpolate=False,
                                           dtype="uint8" if name in images else "float", device=device)
                           for name, size in sizes.items()}) for t, sizes in of["obs_delay"]]  # fmt: skip
        self._bias = of["obs_bias"]
        self._noise = [(t, sizes, on_device(np.repeat(np.arange(len(sizes)), list(sizes.values())), device),
                        white.normal(f"randomization/{t.name}/white", sum(sizes.values())))
                       for t, sizes in of["obs_noise"]]  # fmt: skip
        self._dropout = [(t, sizes, white.uniform(f"randomization/{t.name}/white", 1))
                         for t, sizes in of["obs_dropout"]]  # fmt: skip
        self._reported: Values = {}  # what may be held: reading -> (N, ...)
        if device is not None:
            shapes = {t.name: t.shape for group in spec.observations.values() for t in group}
            self._reported = {name: zeros((num_envs, *shapes[name]), device)
                              for _, sizes, _ in self._dropout for name in sizes}  # fmt: skip
        self.perfect = not terms

    def begin(self, worlds: Any, readings: Mapping[str, Any], params: Params) -> Values:
        """Reported readings of worlds (n,) whose episode begins with these, each (n, ...); params are of all N."""
        for _, lines in self._late:
            for name, line in lines.items():
                line.begin(worlds, _flat(readings[name]))
        own = {t.name: some(params[t.name], worlds) for t, *_ in (*self._bias, *self._noise)}
        result = self._disturbed(readings, zeros((len(worlds),), self._device, "int64"), own, worlds)
        for name in (name for _, sizes, _ in self._dropout for name in sizes):
            if name not in self._reported:
                self._reported[name] = np.zeros((self._num_envs, *result[name].shape[1:]), result[name].dtype)
            self._reported[name] = replaced(self._reported[name], worlds, result[name])
        return result

    def report(self, readings: Mapping[str, Any], steps: Any, params: Params) -> Values:
        """Reported readings of all worlds at control step `steps` (N,)."""
        late = dict(readings)
        for term, lines in self._late:
            for name, line in lines.items():
                line.push(_flat(late[name]))
                late[name] = line.read(params[term.name][:, 0] / self._dt).reshape(late[name].shape)
        result, before = self._disturbed(late, steps, params, None), dict(self._reported)
        for term, sizes, chance in self._dropout:
            held = chance.at(steps)[:, 0] < params[term.name][:, 0]
            for name in sizes:
                keep = held.reshape(-1, *(1,) * (result[name].ndim - 1))
                self._reported[name] = result[name] = space(keep).where(keep, before[name], result[name])
        return result

    def _disturbed(self, readings: Mapping[str, Any], steps: Any, params: Params, worlds: Any) -> Values:
        result = dict(readings)
        for term, sizes in self._bias:
            _add(result, sizes, params[term.name])
        for term, sizes, spread, white in self._noise:
            std = params[term.name][:, spread]  # (n, sum of d)
            _add(result, sizes, std * white.at(steps, worlds))
        return result

    def state_dict(self) -> dict[str, Any]:
        lines = {t.name: {name: line.state_dict() for name, line in lines.items()} for t, lines in self._late}
        return {"late": lines, "reported": dict(self._reported)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for term, lines in self._late:
            for name, line in lines.items():
                line.load_state_dict(state["late"][term.name][name])
        if self._device is None:
            self._reported = {name: np.array(values) for name, values in state["reported"].items()}
        else:
            self._reported = {name: restored(state["reported"][name], old) for name, old in self._reported.items()}


def observed(spec: Spec, term: Term) -> dict[str, int]:
    """Observation terms that a randomization term names, with their sizes.

    Raises:
        UsageError: there is no such observation term, with the nearest names.
    """
    sizes = {t.name: t.size for terms in spec.observations.values() for t in terms if t.dtype == "float32"}
    if term.what in ("obs_delay", "obs_dropout"):
        sizes |= {group: terms[0].size for group, terms in spec.observations.items() if spec.is_image(group)}
    names = list(sizes)
    return {names[i]: sizes[names[i]] for i in match(term, names)}


def _add(values: Values, sizes: Mapping[str, int], by: Any) -> None:
    """Add columns of `by` (n, sum of sizes) to the named values."""
    start = 0
    for name, size in sizes.items():
        values[name] = values[name] + by[:, start : start + size].reshape(values[name].shape)
        start += size


def _flat(reading: Any) -> Any:
    return reading.reshape(len(reading), -1)
