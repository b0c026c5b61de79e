"""Schedule: which draw of a term that changes within an episode is in force in each of N worlds.

A term with `when="interval"` is drawn where an episode begins and again whenever a time drawn from its `interval` [s]
has passed, at the beginning of a control step. Draws and times are keyed by (seed, term, world, episode, draw), so any
episode can be played alone; what is saved is which draw each world is at.

Legend: N worlds, n of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..keyed import Stream
from .randomization import Randomization, Term
from .rows import copied, integers, restored, some, space, written, zeros
from .task import Key

if TYPE_CHECKING:
    import torch


class Schedule:
    """The draws of all terms that change within episodes."""

    def __init__(self, randomization: Randomization, num_envs: int, control_dt: float,
                 device: torch.device | None = None):  # fmt: skip
        self._timers = [_Timer(t, num_envs, control_dt, device) for t in randomization.terms if t.when == "interval"]
        self.empty = not self._timers

    def begin(self, rows: Any, key: Key) -> None:
        """The episodes `key` of n worlds begin in rows (n,)."""
        for timer in self._timers:
            timer.draw, timer.next = written(timer.draw, rows, 0), written(timer.next, rows, 0)
            timer.wait(rows, key)

    def due(self, steps: Any, key: Key) -> dict[str, Any]:
        """Terms to be drawn anew before control step `steps` (N,), with the rows (n,) where; all have moved on.

        On a device every term is there, with a mask (N,) which may be False throughout.
        """
        if not isinstance(steps, np.ndarray):
            return {timer.name: timer.move_on(steps, key) for timer in self._timers}
        rows = {timer.name: np.flatnonzero(steps >= timer.next) for timer in self._timers}
        for timer in self._timers:
            if len(due := rows[timer.name]):
                timer.draw[due] += 1
                timer.wait(due, key.some(due))
        return {name: due for name, due in rows.items() if len(due)}

    def draws(self, rows: Any) -> dict[str, Any]:
        """The number (n,) of the draw in force, of every term that changes."""
        return {timer.name: some(timer.draw, rows) for timer in self._timers}

    def state_dict(self) -> dict[str, Any]:
        return {timer.name: {"draw": copied(timer.draw), "next": copied(timer.next)} for timer in self._timers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for timer in self._timers:
            timer.draw, timer.next = (restored(state[timer.name][k], timer.draw) for k in ("draw", "next"))


class _Timer:
    """When one term is drawn."""

    def __init__(self, term: Term, num_envs: int, control_dt: float, device: torch.device | None):
        assert term.interval is not None
        self.name, self._interval, self._dt = term.name, term.interval, control_dt
        self.draw = zeros((num_envs,), device, "int64")
        self.next = zeros((num_envs,), device, "int64")  # the control step before which the next draw happens

    def move_on(self, steps: Any, key: Key) -> Any:
        """On a device: the mask of the worlds where the time has come."""
        due = steps >= self.next
        self.draw = self.draw + due
        self.wait(due, key)
        return due

    def wait(self, rows: Any, key: Key) -> None:
        """Add the time until the next draw."""
        stream = Stream(key.seed, f"randomization/{self.name}/interval")
        low, high = self._interval
        seconds = low + (high - low) * stream.uniform(key.worlds, key.episodes, 1, step=some(self.draw, rows))[:, 0]
        steps = integers(space(seconds).round(seconds / self._dt)).clip(min=1)
        self.next = written(self.next, rows, some(self.next, rows) + steps)
