"""StoppingWay: where the joints go if the arm brakes now, computed once for the rules that look along it.

Each servo period takes s = a dt off every joint's speed, so braking from v covers sum_k max(|v| - k s, 0) dt, k = 1, …
Legend: n joints, T servo periods.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np


class StoppingWay:
    """From one velocity (n,) [rad/s], braking by `step` (n,) [rad/s] a servo period `dt` [s]."""

    def __init__(self, velocity: np.ndarray, step: np.ndarray, dt: float):
        self.velocity, self._step, self._dt = velocity, step, dt

    @classmethod
    def standing(cls, joints: int) -> StoppingWay:
        """None at all."""
        return cls(np.zeros(joints), np.ones(joints), 1.0)

    @cached_property
    def distance(self) -> np.ndarray:
        """Joint angles (n,) [rad] that it covers, or a little more."""
        return 0.5 * self.velocity * self.velocity / self._step * self._dt

    @cached_property
    def path(self) -> np.ndarray:
        """Where it leads, in joint angles from here: (T, n) [rad], the first row zero."""
        speed = np.abs(self.velocity)
        k = np.arange(int(np.max(speed / self._step)) + 2)[:, None]
        speeds = np.maximum(speed - k * self._step, 0.0)
        speeds[0] = 0.0
        return np.sign(self.velocity) * np.cumsum(speeds, axis=0) * self._dt
