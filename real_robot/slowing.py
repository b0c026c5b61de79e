"""Slowing: how fast a joint may still go near the ends of its range, on arms whose maker limits that beside braking.

The FR3 stops where a joint moves towards the end E of its range, at the distance D from it, faster than

    f(D) = sqrt(2 d D) - c,                                                                                   (1)

with a deceleration d and an offset c of the joint's own (RobotSpec.slowing). A command that moves by v dt ends at the
distance D - v dt, so the fastest that is legal where it ends solves v = f(D - v dt),

    v = sqrt(B^2 - c^2 + 2 d D) - B,   B = c + d dt.                                                          (2)

From v = f(D), that takes v - v' = 2 d v' dt / (v + v' + 2 c) < d dt off a period's speed: where d is no more than the
arm's limit of acceleration a, an arm that keeps (1) can keep it by braking, so of d and a the lesser is taken. f is
concave, so a mean of commands, or a spline through them, keeps (1) too. The robot takes D where it measures the joint,
which gravity may have pulled beyond its command, and for v the mean of its last cycle: AHEAD leaves room for both.
Legend: n joints.
"""

from __future__ import annotations

import numpy as np

from ..robots import RobotSpec

AHEAD = 0.005  # [rad] that a joint may be measured nearer to its end than its command is


class Slowing:
    """The speeds that (2) allows; without bounds where an arm has no such limits."""

    def __init__(self, robot: RobotSpec):
        self._has = bool(robot.slowing)
        low, high, offset, deceleration = np.array(robot.slowing or [(0.0,) * 4] * robot.num_joints).T
        self._low, self._high = low, high
        self._twice = 2.0 * np.minimum(deceleration, robot.acceleration)
        self._b = offset + 0.5 * self._twice * robot.servo_dt
        self._constant = self._b**2 - offset**2
        self._free = np.full(robot.num_joints, np.inf)

    def bounds(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest velocity (n,) of a command from `position` (n,)."""
        if not self._has:
            return -self._free, self._free
        return -self._towards(position - self._low), self._towards(self._high - position)

    def _towards(self, distance: np.ndarray) -> np.ndarray:
        distance = distance - AHEAD
        return np.maximum(np.sqrt(np.maximum(self._constant + self._twice * distance, 0.0)) - self._b, 0.0)
