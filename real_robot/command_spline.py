"""CommandSpline: commands of every servo period become a path for a device that wants one every millisecond.

The commands p_k, dt apart, are the control points of a uniform cubic B-spline. In the segment that p_k opens, with
u in [0, 1) the time since then in periods,

    q(u) = [(1 - u)^3 p_{k-3} + (3 u^3 - 6 u^2 + 4) p_{k-2} + (1 + 3 u + 3 u^2 - 3 u^3) p_{k-1} + u^3 p_k] / 6     (1)

Its velocity is a quadratic spline of v_k = (p_k - p_{k-1}) / dt and its acceleration joins a_k = (v_k - v_{k-1}) / dt
by straight lines, both with weights that are positive and add up to one. So whatever box the commands keep, of
position, velocity and acceleration, the path keeps too, and its jerk is |a_k - a_{k-1}| / dt <= 2 a_max / dt: for the
FR3, 4000 rad/s^3 of the 5000 that it allows. The price is that the path follows 1.5 periods after the commands.

A command that does not come, or that would be out of reach after one that did not come, is filled in: without one the
points brake to a standstill, and afterwards they catch up as `shape_command` does, in the frame that moves with the
commands. So it goes on, too, where the device has left the path for a while (`resume`). Legend: n joints.
"""

from __future__ import annotations

import numpy as np

from ..action import shape_command
from ..robots import RobotSpec
from .slowing import Slowing

SLACK = 1e-12  # relative, for the rounding of differences
OWN = 0.8  # share of the acceleration that filling in and catching up use: a device that fills in adds to the jerk


class CommandSpline:
    """The path, one segment at a time."""

    def __init__(self, robot: RobotSpec, start: np.ndarray):
        self.dt = robot.servo_dt
        self._velocity, self._acceleration = np.array(robot.velocity), np.array(robot.acceleration)
        self._slowing = Slowing(robot)
        self.restart(start)

    def restart(self, pose: np.ndarray) -> None:
        """Stand at (n,) [rad]."""
        self.point, self.velocity = np.array(pose, np.float64), np.zeros(len(pose))  # of the newest control point
        self._points = np.repeat(self.point[None], 4, axis=0)  # (4, n), oldest first
        self._last: np.ndarray | None = None

    def resume(self, position: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray,
               target: np.ndarray | None) -> None:  # fmt: skip
        """Open a segment that goes on from a motion, each (n,), which has left the path; then on with `command`.

        target: a command that has come meanwhile; without one the path goes on at its speed for this segment.
        By (1) at u = 0: q = (p_0 + 4 p_1 + p_2) / 6, v = (p_2 - p_0) / 2 dt, a = (p_0 - 2 p_1 + p_2) / dt^2.
        """
        bend = acceleration * self.dt**2
        middle = position - bend / 6.0
        before, after = (middle + sign * velocity * self.dt + 0.5 * bend for sign in (-1.0, 1.0))
        self._points = np.array([before, before, middle, after])
        self.point, self.velocity = after, (after - middle) / self.dt
        if target is None:
            self._push(after + self.velocity * self.dt, self.velocity)
        else:
            self.command(target)

    @property
    def standing(self) -> bool:
        """Whether the path has come to rest."""
        return bool((self._points == self.point).all())

    def command(self, target: np.ndarray | None) -> None:
        """Open the next segment with the command (n,) [rad] for it; None where none has come."""
        step = OWN * self._acceleration * self.dt
        if target is None:
            velocity = np.sign(self.velocity) * np.maximum(np.abs(self.velocity) - step, 0.0)
            self._push(self.point + velocity * self.dt, velocity)
            self._last = None
            return
        velocity = (target - self.point) / self.dt
        reachable = np.abs(velocity - self.velocity) <= self._acceleration * self.dt * (1 + SLACK)
        if (reachable & (np.abs(velocity) <= self._velocity * (1 + SLACK))).all():
            self._push(np.array(target, np.float64), velocity)
        else:
            rate = np.zeros_like(target) if self._last is None else (target - self._last) / self.dt
            ahead = target - rate * self.dt - self.point  # where a path that has caught up stood one period ago
            _, faster = shape_command(np.zeros_like(target), self.velocity - rate, ahead, np.inf, step / self.dt,
                                      self.dt)  # fmt: skip
            velocity = np.clip(rate + faster, self.velocity - step, self.velocity + step)
            velocity = np.clip(velocity, -self._velocity, self._velocity)
            velocity = np.clip(velocity, *self._slowing.bounds(self.point))
            self._push(self.point + velocity * self.dt, velocity)
        self._last = np.array(target, np.float64)

    def at(self, u: float) -> np.ndarray:
        """The path (n,) [rad] at u in [0, 1], in periods since the newest command: equation (1)."""
        weights = ((1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, 1 + 3 * u + 3 * u**2 - 3 * u**3, u**3)
        return np.array(weights) @ self._points / 6.0

    def _push(self, point: np.ndarray, velocity: np.ndarray) -> None:
        self.point, self.velocity = point, velocity
        self._points[:-1] = self._points[1:]
        self._points[-1] = point
