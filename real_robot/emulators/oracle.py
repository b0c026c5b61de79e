"""The oracle: judges every command that arrives at an emulated arm, by code that the supervisor does not share.

As a vendor's control box does, it takes differences between the commands as they arrive,
v_k = (q_k - q_{k-1}) / dt, a_k = (v_k - v_{k-1}) / dt, j_k = (a_k - a_{k-1}) / dt, and holds them against the limits.
Where commands travel in whole ticks of a servo, each may err by what rounding to the tick can add: half a tick a
command, so one tick / dt in velocity, two / dt^2 in acceleration and four / dt^3 in jerk.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...robots import RobotSpec

TOLERANCE = 1e-6  # relative, of the limits
KEPT = 10  # violations that are told in words


class Oracle:
    """Counts commands beyond the limits."""

    def __init__(self, robot: RobotSpec, held: np.ndarray, dt: float | None = None, tick: float = 0.0):
        """
        Args:
            held: (n,) pose that the arm holds before the first command [rad].
            dt: seconds between commands; by default the arm's servo_dt.
            tick: resolution of commands on the wire [rad].
        """
        self.robot, self.position = robot, np.array(held, np.float64)
        self.velocity, self.acceleration = np.zeros_like(self.position), np.zeros_like(self.position)
        self.arrivals = self.out_of_limit = 0
        self.told: list[str] = []  # the first violations
        dt = self.dt = dt or robot.servo_dt
        span = np.subtract(robot.position_high, robot.position_low) * TOLERANCE + 0.5 * tick
        self._low, self._high = np.array(robot.position_low) - span, np.array(robot.position_high) + span
        slack = 1.0 + TOLERANCE
        self._fastest = np.multiply(robot.velocity, slack) + tick / dt
        self._hardest = np.multiply(robot.acceleration, slack) + 2.0 * tick / dt**2
        self._harshest = np.multiply(robot.jerk, slack) + (4.0 * tick + 1e-14) / dt**3  # rounding of positions

    def arrived(self, command: Any) -> bool:
        """Judge one command; whether it is something that an arm can follow at all."""
        self.arrivals += 1
        if np.shape(command) != self.position.shape or not np.isfinite(command).all():
            self._violated("not finite numbers, one a joint", command)
            return False
        velocity = (command - self.position) / self.dt
        acceleration = (velocity - self.velocity) / self.dt
        jerk = (acceleration - self.acceleration) / self.dt
        if ((command < self._low) | (command > self._high)).any():
            self._violated("position", command)
        elif (np.abs(velocity) > self._fastest).any() or self._too_fast_near_an_end(command, velocity):
            self._violated("velocity", velocity)
        elif (np.abs(acceleration) > self._hardest).any():
            self._violated("acceleration", acceleration)
        elif (np.abs(jerk) > self._harshest).any():
            self._violated("jerk", jerk)
        self.position = np.array(command, np.float64)
        self.velocity, self.acceleration = velocity, acceleration
        return True

    def _too_fast_near_an_end(self, command: np.ndarray, velocity: np.ndarray) -> bool:
        """Whether a joint approaches the end of its range faster than its maker allows there, where it does."""
        for q, v, (low, high, offset, deceleration) in zip(command, velocity, self.robot.slowing, strict=False):
            left = high - q if v > 0.0 else q - low
            if abs(v) > max(0.0, math.sqrt(max(0.0, 2.0 * deceleration * left)) - offset) + TOLERANCE:
                return True
        return False

    def gripper_arrived(self, command: float, tick: float = 0.0) -> bool:
        """Judge a gripper's command [its unit], rounded to `tick` on its way; whether it is a number at all."""
        gripper = self.robot.gripper
        if gripper is None or not np.isfinite(command):
            self._violated("a gripper's command, and no number or no gripper", command)
            return False
        low, high = sorted((gripper.closed, gripper.open))
        slack = TOLERANCE * (high - low) + 0.5 * tick
        if not low - slack <= command <= high + slack:
            self._violated("gripper", command)
        return True

    def restart(self, held: np.ndarray) -> None:
        """The arm stands at (n,) [rad] by its own doing; differences start anew from there."""
        self.position = np.array(held, np.float64)
        self.velocity, self.acceleration = np.zeros_like(self.position), np.zeros_like(self.position)

    def braking(self) -> np.ndarray:
        """Poses (T, n) [rad] of the control box's own ramp to standstill, under the limits, from the last command."""
        step = np.array(self.robot.acceleration) * self.dt * (1.0 - 1e-9)
        position, velocity, path = self.position, self.velocity, []
        while velocity.any():
            velocity = np.sign(velocity) * np.maximum(np.abs(velocity) - step, 0.0)
            velocity[np.abs(velocity) < 1e-9] = 0.0
            position = position + velocity * self.dt
            path.append(position)
        return np.array(path).reshape(-1, len(position))

    def counters(self) -> dict[str, int]:
        """How many commands arrived, and how many of them were out of limits."""
        return {"arrived": self.arrivals, "out_of_limit": self.out_of_limit}

    def _violated(self, what: str, values: Any) -> None:
        self.out_of_limit += 1
        if len(self.told) < KEPT:
            self.told.append(f"command {self.arrivals}: {what} {np.array2string(np.asarray(values), precision=5)}")
