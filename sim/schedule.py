"""Schedule: which draw of a term that changes within an episode is in force in each of N worlds.

A term with `when="interval"` is drawn where an episode begins and again whenever a time drawn from its `interval` [s]
has passed, at the beginning of a control step. Draws and times are keyed by (seed, term, world, episode, draw), so any
episode can be played alone; what is saved is which draw each world is at.

Legend: N worlds, n of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..keyed import Stream
from .randomization import Randomization, Term
from .task import Key


class Schedule:
    """The draws of all terms that change within episodes."""

    def __init__(self, randomization: Randomization, num_envs: int, control_dt: float):
        self._timers = [_Timer(t, num_envs, control_dt) for t in randomization.terms if t.when == "interval"]
        self.empty = not self._timers

    def begin(self, rows: np.ndarray, key: Key) -> None:
        """The episodes `key` of n worlds begin in rows (n,)."""
        for timer in self._timers:
            timer.draw[rows], timer.next[rows] = 0, 0
            timer.wait(rows, key)

    def due(self, steps: np.ndarray, key: Key) -> dict[str, np.ndarray]:
        """Terms to be drawn anew before control step `steps` (N,), with the rows (n,) where; all have moved on."""
        rows = {timer.name: np.flatnonzero(steps >= timer.next) for timer in self._timers}
        for timer in self._timers:
            if len(due := rows[timer.name]):
                timer.draw[due] += 1
                timer.wait(due, key.some(due))
        return {name: due for name, due in rows.items() if len(due)}

    def draws(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The number (n,) of the draw in force, of every term that changes."""
        return {timer.name: timer.draw[rows] for timer in self._timers}

    def state_dict(self) -> dict[str, Any]:
        return {timer.name: {"draw": timer.draw.copy(), "next": timer.next.copy()} for timer in self._timers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for timer in self._timers:
            timer.draw, timer.next = (np.array(state[timer.name][k]) for k in ("draw", "next"))


class _Timer:
    """When one term is drawn."""

    def __init__(self, term: Term, num_envs: int, control_dt: float):
        assert term.interval is not None
        self.name, self._interval, self._dt = term.name, np.asarray(term.interval), control_dt
        self.draw = np.zeros(num_envs, np.int64)
        self.next = np.zeros(num_envs, np.int64)  # the control step before which the next draw happens

    def wait(self, rows: np.ndarray, key: Key) -> None:
        """Add the time until the next draw."""
        stream = Stream(key.seed, f"randomization/{self.name}/interval")
        low, high = self._interval
        seconds = low + (high - low) * stream.uniform(key.worlds, key.episodes, 1, step=self.draw[rows])[:, 0]
        self.next[rows] += np.maximum(np.rint(seconds / self._dt), 1).astype(np.int64)
