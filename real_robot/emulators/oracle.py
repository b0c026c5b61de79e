"""The oracle: judges every command that arrives at an emulated arm, by code that the supervisor does not share.

As a vendor's control box does, it takes differences between the commands as they arrive,
v_k = (q_k - q_{k-1}) / dt, a_k = (v_k - v_{k-1}) / dt, j_k = (a_k - a_{k-1}) / dt, and holds them against the limits.
Where commands travel in whole ticks of a servo, each may err by half a tick, of which the k-th difference over one
period makes 2^(k-1) ticks / dt^k: 31 rad/s^2 on arms whose limit is 10. So the same differences are taken over longer
strides w too,

    v = (q_k - q_{k-w}) / (w dt),   a = (q_k - 2 q_{k-w} + q_{k-2w}) / (w dt)^2,   j likewise,

which are weighted means over w, 2 w and 3 w periods, so that the limits hold for them as well, and of which rounding
blurs 1 / w, 1 / w^2 and 1 / w^3 as much: over ten periods 0.3 rad/s^2.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from ...robots import RobotSpec

TOLERANCE = 1e-6  # relative, of the limits
STRIDES = (1, 3, 10)  # periods that differences are taken over where commands are rounded
COARSE = 0.01  # of the limit of acceleration: rounding that adds less is not looked at over longer strides
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
        coarse = (2.0 * tick / dt**2 > COARSE * np.array(robot.acceleration)).any()
        self._strides, slack = STRIDES if coarse else STRIDES[:1], 1.0 + TOLERANCE
        # stride -> bounds of velocity, acceleration and jerk; the last with the rounding of positions
        self._bounds = {w: (np.multiply(robot.velocity, slack) + tick / (w * dt),
                            np.multiply(robot.acceleration, slack) + 2.0 * tick / (w * dt) ** 2,
                            np.multiply(robot.jerk, slack) + (4.0 * tick + 1e-14) / (w * dt) ** 3)
                        for w in self._strides}  # fmt: skip
        self._past = deque([self.position] * 3 * self._strides[-1], maxlen=3 * self._strides[-1])  # newest last

    def arrived(self, command: Any) -> bool:
        """Judge one command; whether it is something that an arm can follow at all."""
        self.arrivals += 1
        if np.shape(command) != self.position.shape or not np.isfinite(command).all():
            self._violated("not finite numbers, one a joint", command)
            return False
        velocity = (command - self.position) / self.dt
        if ((command < self._low) | (command > self._high)).any():
            self._violated("position", command)
        elif self._too_fast_near_an_end(command, velocity):
            self._violated("velocity", velocity)
        elif broken := self._too_much(command):
            self._violated(*broken)
        self.acceleration = (velocity - self.velocity) / self.dt
        self.position, self.velocity = np.array(command, np.float64), velocity
        self._past.append(self.position)
        return True

    def _too_much(self, command: np.ndarray) -> tuple[str, np.ndarray] | None:
        """The rate that is beyond its limit over some stride, and its values (n,)."""
        for order, what in enumerate(("velocity", "acceleration", "jerk")):
            for w, bounds in self._bounds.items():
                one, two, three = (self._past[-k * w] for k in (1, 2, 3))
                rate = (command - one, command - 2.0 * one + two, command - 3.0 * one + 3.0 * two - three)[order]
                rate = rate / (w * self.dt) ** (order + 1)
                if (np.abs(rate) > bounds[order]).any():
                    return what + (f", mean over {w} periods" if w > 1 else ""), rate
        return None

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
        self._past.extend([self.position] * len(self._past))

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
