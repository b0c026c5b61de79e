"""Held: what a Franka holds, cycle by cycle: our last answer, or what it has filled in where none was in time.

A Franka that gets no answer goes on by itself: it keeps the last acceleration and integrates it, v += a T, q += v T,
where v and a are the differences of answers that its limits are held against, and T a cycle of 1 ms. The next answer is
judged against that. So where the path would be a jump from there, whoever answers again has to go on from there.

States travel in single precision, so what is held is reckoned here, and a state only decides whether the last answer
has arrived. Legend: n joints.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..robots import RobotSpec

CYCLE = 0.001  # [s]
HARD, HARSH = 0.95, 0.8  # shares of the limits of acceleration and jerk: what is held is known to SEEN alone
SEEN = 2.5e-7  # [rad] a difference that can be seen in a state: one digit of a float32 above 2


class Motion(NamedTuple):
    """A pose and its backward differences, each (n,)."""

    position: np.ndarray  # [rad]
    velocity: np.ndarray  # [rad/s]
    acceleration: np.ndarray  # [rad/s^2]

    def to(self, position: np.ndarray) -> Motion:
        """One cycle later, by an answer."""
        velocity = (position - self.position) / CYCLE
        return Motion(position, velocity, (velocity - self.velocity) / CYCLE)

    def filled_in(self, cycles: int) -> Motion:
        """So many cycles later, by the robot itself."""
        position, velocity, acceleration = self
        for _ in range(cycles):
            velocity = velocity + acceleration * CYCLE
            position = position + velocity * CYCLE
        return Motion(position, velocity, acceleration)


class Held:
    """Begins at standstill at (n,) [rad]."""

    def __init__(self, robot: RobotSpec, pose: np.ndarray):
        self._hardest, self._harshest = HARD * np.array(robot.acceleration), HARSH * np.array(robot.jerk)
        still = np.zeros(len(pose))
        self.motion = self._before = Motion(np.array(pose, np.float64), still, still)

    def answer(self, position: np.ndarray) -> None:
        """(n,) [rad] goes out for the cycle that begins."""
        self._before, self.motion = self.motion, self.motion.to(np.array(position, np.float64))

    def leads_to(self, *answers: np.ndarray) -> bool:
        """Whether these answers, (n,) [rad] each and a cycle apart, keep the limits from here on."""
        motion = self.motion
        for position in answers:
            after = motion.to(position)
            jerk = np.abs(after.acceleration - motion.acceleration) / CYCLE
            if (np.abs(after.acceleration) > self._hardest).any() or (jerk > self._harshest).any():
                return False
            motion = after
        return True

    def heard(self, followed: np.ndarray, cycles: int) -> bool:
        """Whether the robot has filled in anything, as its next state tells, `cycles` after the last.

        followed: (n,) [rad] what it says that it holds.
        """
        arrived, missed = self.motion.filled_in(cycles - 1), self._before.filled_in(cycles)
        to_arrived, to_missed = (np.abs(followed - m.position).max() for m in (arrived, missed))
        if np.abs(arrived.position - missed.position).max() < SEEN or to_arrived <= to_missed:
            self.motion = arrived
            return cycles > 1
        self.motion = missed
        return True
