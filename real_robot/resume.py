"""Resume: back onto a path, inside the limits, after cycles that the robot has filled in by itself.

A Franka that gets no answer goes on by itself: it keeps the last acceleration and integrates it, v += a dt, q += v dt.
The path has gone its own way meanwhile, and the first answer after the gap is judged against what the robot filled in.
So the answer starts from there, and comes back by

    a = a_path + 2 w (v_path - v) + w^2 (q_path - q),                                                         (1)

held to the limits of acceleration and, from one cycle to the next, of jerk: with no gap it is the path itself. The
errors are of some 1e-5 rad. Legend: n joints; a cycle is a millisecond.
"""

from __future__ import annotations

import numpy as np

from ..robots import RobotSpec

CYCLE = 0.001  # [s]
W = 100.0  # [1/s] of (1)
SHARE = 0.999  # of the limits
SEEN = 1e-6  # [rad] a difference that can be seen in states, which travel in single precision
ON = 1e-9  # [rad] nearer to the path than this, with what a cycle of the speeds' difference makes, is on it


class Resume:
    """What goes out, a cycle at a time."""

    def __init__(self, robot: RobotSpec, pose: np.ndarray):
        self._hardest = SHARE * np.array(robot.acceleration)
        self._change = SHARE * np.array(robot.jerk) * CYCLE
        self.position = np.array(pose, np.float64)  # (n,) of the last cycle
        self.velocity = np.zeros_like(self.position)
        self.acceleration = np.zeros_like(self.position)
        self._path, self._path_velocity = self.position, self.velocity
        self._before = self.position, self.velocity, self.acceleration
        self.on = True  # on the path

    def filled_in(self, cycles: int) -> None:
        """The robot has gone on by itself for so many cycles."""
        for _ in range(cycles):
            self.velocity = self.velocity + self.acceleration * CYCLE
            self.position = self.position + self.velocity * CYCLE
            self.on = False

    def heard(self, followed: np.ndarray, cycles: int) -> None:
        """The robot's next state comes `cycles` after the last and says that it followed (n,) [rad] at its end.

        Where that is what it would have filled in without our last answer, the answer has not arrived.
        """
        self.filled_in(cycles - 1)
        answered = self.position, self.velocity, self.acceleration, self.on
        self.position, self.velocity, self.acceleration = self._before
        self.filled_in(cycles)
        if np.abs(answered[0] - self.position).max() < SEEN or (
            np.abs(followed - answered[0]).max() <= np.abs(followed - self.position).max()
        ):
            self.position, self.velocity, self.acceleration, self.on = answered

    def step(self, path: np.ndarray, cycles: int = 1) -> np.ndarray:
        """The answer (n,) [rad] where the path is at `path` now, `cycles` after it was last asked for."""
        self._before = self.position, self.velocity, self.acceleration
        velocity = (path - self._path) / (cycles * CYCLE)
        if self.on and cycles == 1:
            acceleration, position = (velocity - self.velocity) / CYCLE, path
        else:
            of_path = (velocity - self._path_velocity) / (cycles * CYCLE)
            before = path - velocity * CYCLE  # where the path was one cycle ago
            wanted = of_path + 2.0 * W * (velocity - of_path * CYCLE - self.velocity) + W * W * (before - self.position)
            wanted = np.clip(wanted, self.acceleration - self._change, self.acceleration + self._change)
            acceleration = np.clip(wanted, -self._hardest, self._hardest)
            position = self.position + (self.velocity + acceleration * CYCLE) * CYCLE
        now = (position - self.position) / CYCLE
        self.position, self.velocity, self.acceleration = position, now, acceleration
        self._path, self._path_velocity = path, velocity
        self.on = self.on or bool((np.abs(position - path) + CYCLE * np.abs(now - velocity) < ON).all())
        return position
