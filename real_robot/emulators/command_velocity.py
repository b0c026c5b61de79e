"""The velocity of a stream of commands, as a controller knows it that feeds it forward (sim/lead.py).

It is the last change over the time it took. Two clocks of one rate beat against each other, none in one period and two
commands in the next, so a velocity is held for HELD periods; a command that has stood for longer stands still, and one
that changes after that has changed within a period. Legend: n joints.
"""

from __future__ import annotations

import numpy as np

HELD = 3  # periods


class CommandVelocity:
    """Begins at standstill at (n,) [rad]; period: [s] between commands."""

    def __init__(self, command: np.ndarray, period: float):
        self._last, self._period, self.held = np.array(command, np.float64), period, HELD * period
        self._velocity, self._changed = np.zeros(len(command)), -np.inf

    def at(self, time: float, command: np.ndarray) -> np.ndarray:
        """(n,) [rad/s] at a time [s] at which this command (n,) [rad] is in force."""
        elapsed = time - self._changed
        stale = elapsed > self.held - 1e-9
        if (command != self._last).any():
            self._velocity = (command - self._last) / (self._period if stale else elapsed)
            self._last, self._changed = np.array(command, np.float64), time
        elif stale:
            self._velocity = np.zeros_like(self._velocity)
        return self._velocity
