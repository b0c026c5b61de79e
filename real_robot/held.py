"""Held: what a Franka holds, cycle by cycle: our last answer, or what it has filled in where none was in time.

A Franka that gets no answer goes on by itself: it keeps the last acceleration and integrates it, v += a T, q += v T,
where v and a are the differences of answers that its limits are held against, and T a cycle of 1 ms. The next answer is
judged against that. So where the path would be a jump from there, whoever answers again has to go on from there.

States travel in single precision, so what is held is reckoned here, and a state only decides whether the last answer
has arrived. One that has not may be lost, or late: then the robot counts it after all, in place of what it filled in
(franka-sim does, where its clock slips). Which of the two it was shows in no state, so both are kept, until three
answers more have made them one, and what is answered meanwhile keeps the limits either way where it can. Where it
cannot, the clock tells: a state that comes at once after an answer was sent before that answer came.
Legend: n joints.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..robots import RobotSpec

CYCLE = 0.001  # [s]
HARD, HARSH = 0.95, 0.8  # shares of the limits of acceleration and jerk: what is held is known to SEEN alone
CATCHING = 0.97  # share of the jerk for an answer that suits all that may be held
AT_ONCE = 0.5 * CYCLE  # [s] an answer that arrives has that long before the next state
MOST = 4  # motions that are kept
SAME = 1e-2  # [rad/s^2] no difference
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
        self._hardest, self._jerk = HARD * np.array(robot.acceleration), np.array(robot.jerk)
        still = np.zeros(len(pose))
        self._now = self._before = [Motion(np.array(pose, np.float64), still, still)]  # what may be, likeliest first

    @property
    def motion(self) -> Motion:
        """What is likeliest."""
        return self._now[0]

    @property
    def middle(self) -> Motion:
        """The mean of all that may be held."""
        return Motion(*(np.mean(parts, axis=0) for parts in zip(*self._now, strict=True)))

    def answer(self, position: np.ndarray) -> None:
        """(n,) [rad] goes out for the cycle that begins."""
        self._before, self._now = self._now, [m.to(np.array(position, np.float64)) for m in self._now]

    def leads_to(self, *answers: np.ndarray, share: float = HARSH, surely: bool = True) -> bool:
        """Whether these answers, (n,) [rad] each and a cycle apart, keep the limits from here on.

        share: of the limit of jerk. surely: whatever is held, else from what is likeliest.
        """
        return all(self._keeps(motion, answers, share) for motion in (self._now if surely else self._now[:1]))

    def _keeps(self, motion: Motion, answers: tuple[np.ndarray, ...], share: float) -> bool:
        for position in answers:
            after = motion.to(position)
            jerk = np.abs(after.acceleration - motion.acceleration) / CYCLE
            if (np.abs(after.acceleration) > self._hardest).any() or (jerk > share * self._jerk).any():
                return False
            motion = after
        return True

    def heard(self, followed: np.ndarray, cycles: int, waited: float = CYCLE) -> bool:
        """Whether the robot has or may have filled in anything, as its next state tells, `cycles` after the last.

        followed: (n,) [rad] what it says that it holds. waited: [s] from the answer to this state.
        """

        def away(motion: Motion) -> float:
            return float(np.abs(followed - motion.position).max())

        all_arrived = [now.filled_in(cycles - 1) for now in self._now]
        arrived = min(all_arrived, key=away)
        missed = min((before.filled_in(cycles) for before in self._before), key=away)
        if np.abs(arrived.position - missed.position).max() < SEEN or away(arrived) <= away(missed):
            self._now = _apart([arrived, *(m for m in all_arrived if away(m) <= away(arrived) + SEEN)])
            return cycles > 1 or len(self._now) > 1
        late = waited < AT_ONCE
        self._now = _apart([*all_arrived, missed] if late else [missed, *all_arrived])[:MOST]
        return True


def _apart(motions: list[Motion]) -> list[Motion]:
    """Those that differ from the ones before them."""
    kept: list[Motion] = []
    for motion in motions:
        if all(np.abs(motion.acceleration - other.acceleration).max() > SAME or
               np.abs(motion.velocity - other.velocity).max() > SAME * CYCLE for other in kept):  # fmt: skip
            kept.append(motion)
    return kept
