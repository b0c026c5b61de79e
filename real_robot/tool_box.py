"""ToolBox: whether the tool stays in its box and below its speed, cheaply.

From the last anchor q0, where the tool stood at p0 with the Jacobian J, a way q0 + d leads it to

    p = p0 + J d + r,    |r| <= 1/2 sum_ij R_max(i,j) |d_i| |d_j|,                                            (1)

since the second derivative of p by joints i <= j is a product of unit axes with an arm no longer than R_j, the length
of the chain beyond joint j. Most commands are settled by (1), over the whole way to standstill at once; where it leaves
a doubt, the anchor moves on, and where that does not help, forward kinematics looks at every period of the way.
Legend: n joints, T servo periods.
"""

from __future__ import annotations

import math

import numpy as np

from ..kinematics import forward_kinematics, tool_jacobian
from ..robots import RobotSpec
from .stopping import StoppingWay

NEAR = 0.02  # [rad] from the anchor, where it need not move
BOX_MARGIN = 1e-6  # [m] the box lies so much inside the published one, for the rounding of sums


def reach(robot: RobotSpec) -> np.ndarray:
    """How far the tool can be from each joint's axis: (n,) [m]."""
    lengths = [float(np.linalg.norm(frame.pos)) for frame in (*robot.chain[1:], robot.tool)]
    return np.cumsum(lengths[::-1])[::-1]


class ToolBox:
    """The box of one arm, and the speed of its tool."""

    def __init__(self, robot: RobotSpec, step: np.ndarray, periods: int, max_speed: float):
        """
        Args:
            step: (n,) change of velocity in one servo period [rad/s].
            periods: over which what is sent is a mean of commands; it cuts corners by a bound, and so do the walls.
            max_speed: of the tool [m/s].
        """
        self._robot, self._dt, self._max_speed = robot, robot.servo_dt, max_speed
        self._reach = reach(robot)
        # a mean over the time D of a path with |p''| <= a is off it by at most a D^2 / 24, and a dt^2 / 8 between rows
        span, acceleration = (periods - 1) * robot.servo_dt, step / robot.servo_dt
        corner = acceleration * (span**2 / 24.0 + (robot.servo_dt**2 / 8.0 if periods > 1 else 0.0))
        margin = BOX_MARGIN + float(self._reach @ corner)
        self._low, self._high = np.array(robot.workspace_low) + margin, np.array(robot.workspace_high) - margin
        self._curvature = 0.5 * self._reach[np.maximum.outer(np.arange(len(step)), np.arange(len(step)))]  # (n, n) [m]
        self._move_anchor(np.array(robot.home))

    def too_fast(self, before: np.ndarray, position: np.ndarray, velocity: np.ndarray) -> tuple[float, float] | None:
        """Speed of the tool from `before` to `position` (n,) and its limit [m/s], where it is above."""
        speed = np.abs(velocity)
        if self._reach @ speed <= self._max_speed:
            return None
        away = np.maximum(np.abs(before - self._anchor), np.abs(position - self._anchor))
        along = self._jacobian @ velocity
        if math.sqrt(along @ along) + 2.0 * float(away @ self._curvature @ speed) <= self._max_speed:
            return None
        (here, _), (there, _) = tool_jacobian(self._robot, before), tool_jacobian(self._robot, position)
        fastest = float(np.linalg.norm(there - here)) / self._dt
        return (fastest, self._max_speed) if fastest > self._max_speed else None

    def outside(self, position: np.ndarray, way: StoppingWay, wall: float = 0.0) -> tuple[str, float, float] | None:
        """Axis, value and limit [m] where the tool comes nearer to a wall than that, here or on its way to stand."""
        stop = np.copysign(way.distance, way.velocity)
        if self._surely_inside(position, stop, wall):
            return None
        halfway = position + 0.5 * stop  # no pose of the way is farther from there than half of it
        if np.abs(halfway - self._anchor).max() > NEAR:
            self._move_anchor(halfway)
            if self._surely_inside(position, stop, wall):
                return None
        path = position[None] + way.path  # (T, n)
        tool, _ = forward_kinematics(self._robot, path)  # (T, 3)
        excess = np.maximum(self._low - tool, tool - self._high)
        if (excess <= -wall).all():
            return None
        t, axis = np.unravel_index(int(np.argmax(excess)), excess.shape)
        value = float(tool[t, axis])
        low, high = self._low[axis] + wall, self._high[axis] - wall
        return "xyz"[axis], value, float(low if value < low else high)

    def _surely_inside(self, position: np.ndarray, stop: np.ndarray, wall: float) -> bool:
        """Whether (1) says so for all poses between here and here + stop (n,), joint by joint."""
        here = position - self._anchor
        there = here + stop
        away = np.maximum(np.abs(here), np.abs(there))
        curved = float(away @ self._curvature @ away) + wall
        a, b = self._jacobian * here, self._jacobian * there  # (3, n)
        low, high = np.minimum(a, b).sum(axis=1) - curved, np.maximum(a, b).sum(axis=1) + curved
        return bool((self._tool + low >= self._low).all() and (self._tool + high <= self._high).all())

    def _move_anchor(self, position: np.ndarray) -> None:
        self._anchor = position.copy()
        self._tool, self._jacobian = tool_jacobian(self._robot, position)
