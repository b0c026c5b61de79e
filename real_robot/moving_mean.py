"""MovingMean: the mean of the last m commands, which limits jerk and keeps every convex limit that the commands keep.

Commands whose acceleration stays within a_max may change it by 2 a_max from one period dt to the next. Their mean over
m periods changes it by (a_k - a_{k-m}) / m, so its jerk is at most 2 a_max / (m dt). Legend: n joints.
"""

from __future__ import annotations

import math

import numpy as np

from ..robots import RobotSpec


def jerk_periods(robot: RobotSpec) -> int:
    """The least m for which the mean's jerk stays within the arm's limit."""
    needed = 2.0 * np.array(robot.acceleration) / (np.array(robot.jerk) * robot.servo_dt)
    return max(1, math.ceil(float(needed.max()) - 1e-9))


class MovingMean:
    """Of the last `length` commands (n,)."""

    def __init__(self, position: np.ndarray, length: int):
        self.length = length
        self.fill(position)

    def fill(self, position: np.ndarray) -> None:
        """As if the arm had stood at (n,) for long."""
        self._last = [position] * self.length  # oldest first
        self.value = position

    def add(self, position: np.ndarray) -> None:
        """One more command."""
        self._last = [*self._last[1:], position]
        if self.length == 1 or self.rests:
            self.value = position
            return
        # about the newest, so that rounding stays that of small numbers
        self.value = position + sum(p - position for p in self._last[:-1]) / self.length
        self.value.setflags(write=False)

    @property
    def rests(self) -> bool:
        """Whether all of them are the same."""
        newest = self._last[-1]
        return all(p is newest or np.array_equal(p, newest) for p in self._last[:-1])
