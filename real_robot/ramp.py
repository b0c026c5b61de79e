"""A ramp to standstill that a driver, or what stands in for it, sends by itself: under the limits, jerk included.

Each servo period the acceleration goes towards full braking by at most j dt. The last command but one leaves a speed
below a dt, which the last takes off whole; the acceleration then returns to nothing within a period, which is no jerk
too many where a <= j dt, as on arms of servos (10 rad/s^2, 1000 rad/s^3, 10 ms).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

STILL = 1e-9  # a speed below this share of the acceleration limit is none


def ramp(position: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray, a_max: np.ndarray, j_max: np.ndarray,
         dt: float) -> Iterator[np.ndarray]:  # fmt: skip
    """Positions (n,) of every servo period until the arm stands; none where it does.

    velocity, acceleration: (n,) of the last command; a_max, j_max: (n,) limits. Any unit of angle.
    """
    a_max, j_max = np.multiply(a_max, 1.0 - 1e-9), np.multiply(j_max, 1.0 - 1e-9)
    while (np.abs(velocity) > STILL * a_max).any():
        wanted = np.clip(-velocity / dt, -a_max, a_max)  # the last step takes what is left
        acceleration = np.clip(wanted, acceleration - j_max * dt, acceleration + j_max * dt)
        velocity = velocity + acceleration * dt
        position = position + velocity * dt
        yield position
