"""The gripper's half of a command: one number beside the joints', which the supervisor judges with them.

    policy's number in [-1, 1] → control_value → slewed → GripperGuard → Driver.write(joints, gripper)

The convention is one for all arms: a command lies between RobotSpec.gripper's `closed` and `open`, in its unit. What a
device makes of that (counts, ticks, a width, which end is which) stays inside its driver. Joints and gripper are one
command: what rejects the one leaves the other alone, so lease, age and order hold for both. Beyond these:

    finite            no NaN, no infinity                                     REJECT, latched at once
    gripper_range     between the two ends                                    CLIP
    gripper_velocity  the command goes from end to end no faster than stated  CLIP

A gripper that nobody has commanded is left alone. The first command sets out from where the fingers are measured.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..robots import Gripper
from ..spec import ActionTerm, Spec

NAME = "gripper"  # as a verdict calls it
SAME = 1e-9  # [unit] a command moved by less counts as passed unchanged
INSIDE = 1.0 - 1e-9  # own limits lie this factor inside the stated ones, for the rounding of sums


class GripperVerdict(NamedTuple):
    """What to send, and where that is not what was asked, why."""

    sent: float  # [unit]
    rule: str = ""  # "" where it passed
    asked: float = math.nan  # the value that broke the rule
    limit: float = math.nan  # the limit that it broke


class GripperGuard:
    """Judges the stream of commands to one gripper."""

    def __init__(self, gripper: Gripper, dt: float):
        self.low, self.high = sorted((gripper.closed, gripper.open))
        self.sent: float | None = None  # last; None where nobody has commanded it yet
        self._step, self._dt, self._measured = gripper.velocity * dt * INSIDE, dt, math.nan

    def begin(self) -> None:
        """Nobody commands it any more: the next command sets out from where it is measured."""
        self.sent = None

    def observe(self, measured: float) -> None:
        """Where the fingers are [unit]; NaN where the device does not tell."""
        self._measured = min(max(measured, self.low), self.high) if math.isfinite(measured) else math.nan

    @property
    def position(self) -> float:
        """Where the next command sets out from [unit]; NaN where nobody knows."""
        return self._measured if self.sent is None else self.sent

    def towards(self, goal: float) -> float:
        """The next command on the way to `goal`, as fast as the rules allow; what is no number comes back as it is."""
        here = self.position
        if not (math.isfinite(goal) and math.isfinite(here)):
            return goal
        goal = min(max(goal, self.low), self.high)
        return goal if abs(goal - here) <= self._step else here + math.copysign(self._step, goal - here)

    def judge(self, asked: float) -> GripperVerdict:
        """The verdict on a finite number, which does not count as sent yet."""
        inside = min(max(asked, self.low), self.high)
        sent = self.towards(inside)
        if abs(inside - asked) > SAME:
            return GripperVerdict(sent, "gripper_range", asked, self.low if asked < self.low else self.high)
        if abs(sent - inside) > SAME:
            speed = (inside - self.position) / self._dt
            return GripperVerdict(sent, "gripper_velocity", speed, math.copysign(self._step / self._dt, speed))
        return GripperVerdict(sent)


def is_number(asked: Any) -> bool:
    """Whether somebody's command is one number, finite or not."""
    return isinstance(asked, int | float) and not isinstance(asked, bool)  # numpy's float64 is a float


def gripper_term(spec: Spec) -> ActionTerm | None:
    """The action that a policy moves a gripper by, where it has one: a single number of kind `control`."""
    return next((term for term in spec.actions if is_gripper(term)), None)


def is_gripper(term: ActionTerm) -> bool:
    """Whether an action is meant for a gripper: no arm has a single joint."""
    return term.kind == "control" and term.size == 1


def share_of(term: ActionTerm, command: float) -> float:
    """The action in [-1, 1] that asks for a command: the inverse of `control_value`, clipped."""
    (low,), (high,) = term.low, term.high
    return min(max(2.0 * (command - low) / (high - low) - 1.0, -1.0), 1.0)
