"""Teleoperation: a person leads an arm, through a source of joint targets and the supervisor.

    Source.aim(row) → Robot.aim → waypoints → supervisor → Driver.write          every `period` (10 to 25 ms)

A source answers with a target, or None while nobody holds its dead-man's switch: the arm then brakes at once. If this
process dies or hangs, the waypoints end and the arm brakes after LEAD periods and following.PATIENCE at the latest; a
latched stop ends the following until a person releases it. Legend: n joints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..errors import NotConnectedError, RobotError, UsageError
from ..robots import RobotSpec
from .demonstrations import Demonstrations
from .desk import Desk
from .jog import Jog, Speeds
from .robot import Robot

LEAD = 2  # periods that a waypoint lies ahead: what a late one may be late
LONGEST = 0.025  # [s] of a period
Row = Mapping[str, Any]


class Aim(NamedTuple):
    """Where the joints shall be."""

    joint_pos_target: np.ndarray  # (n,) [rad]
    gripper_target: float | None = None  # [unit of RobotSpec.gripper]


class Source(Protocol):
    """Who leads: a page, a leader arm, a script."""

    def aim(self, row: Row, period: float) -> Aim | None:
        """Where the joints shall be a period further; None while the dead-man's switch is not held.

        row: what the arm said last; see `Robot.follow`.
        """
        ...

    def requests(self) -> list[str]:
        """What was asked for since: clear (release a stop), record, success, failure, discard (an episode)."""
        ...

    def stopped(self) -> None:
        """A stop was latched or released: whatever is held counts only once it was let go of."""
        ...


class PageSource:
    """The pages at a desk, by way of jogging."""

    def __init__(self, robot: RobotSpec, desk: Desk, speeds: Speeds | None = None,
                 clock: Callable[[], float] = time.monotonic):  # fmt: skip
        self._desk, self._jog, self._clock, self._driving = desk, Jog(robot, speeds), clock, False

    def aim(self, row: Row, period: float) -> Aim | None:
        wish = self._desk.wish(self._clock())
        sent = np.asarray(row["joint_pos_target"])
        if wish is not None and not self._driving:
            gripper = row["gripper_target"] if row["gripper_target"] is not None else row["gripper_pos"]
            self._jog.begin(sent, gripper if np.isfinite(gripper) else None)
        self._driving = wish is not None
        return None if wish is None else Aim(*self._jog.step(wish, sent, period))

    def requests(self) -> list[str]:
        return self._desk.requests()

    def stopped(self) -> None:
        self._driving = False
        self._desk.must_release()


def period_of(robot: RobotSpec, control_dt: float) -> float:
    """The longest time between two aims: whole servo periods, whole in a recorded step `control_dt`, within LONGEST.

    Raises:
        UsageError: the step is no whole number of servo periods.
    """
    ticks = round(control_dt / robot.servo_dt)
    if ticks < 1 or abs(ticks * robot.servo_dt - control_dt) > 1e-9:
        raise UsageError(f"a recorded step of {control_dt:g} s is no whole number of {robot.name}'s servo periods of "
                         f"{robot.servo_dt:g} s")  # fmt: skip
    fitting = [t for t in range(1, ticks + 1) if ticks % t == 0 and t * robot.servo_dt <= LONGEST + 1e-9]
    return max(fitting) * robot.servo_dt


class Teleoperation:
    """One arm, one source, and a recording where there is one."""

    def __init__(self, robot: Robot, source: Source, control_dt: float = 0.05, record: Demonstrations | None = None,
                 show: Callable[[Row], None] = lambda row: None):  # fmt: skip
        """show: called with every row, and what is recorded in it as `recording` (steps, or None) and `episodes`."""
        self.robot, self.source, self.record, self.show = robot, source, record, show
        self.period = period_of(robot.spec, control_dt)
        self._last: dict[str, Any] = {}

    def run(self, ended: Callable[[], bool]) -> None:
        """Lead the arm until `ended` says so."""
        while not ended():
            if self.robot.status()["fault"]:
                self._stand(ended)
                continue
            try:
                self._lead(ended)
            except RobotError:
                if not self.robot.status()["fault"]:  # else a stop came in between
                    raise

    def _lead(self, ended: Callable[[], bool]) -> None:
        aiming = False
        for row in self.robot.follow(self.period):
            aim = self.source.aim(row, self.period)
            if aim is not None:
                self.robot.aim(aim.joint_pos_target, row["now"] + LEAD * self.period, aim.gripper_target)
            elif aiming:
                self.robot.aim_along(None)
            aiming = aim is not None
            if self.record is not None:
                self.record.row(row)
            for request in self.source.requests():
                self._answer(request)
            self._tell(row)
            if ended():
                return
        self.source.stopped()

    def _stand(self, ended: Callable[[], bool]) -> None:
        """A stop is latched: wait for a person to release it."""
        if self.record is not None:
            self.record.stop()
        while self.robot.fault and not ended():
            for request in self.source.requests():
                self._answer(request)
            self._tell({**self._last, "fault": self.robot.fault, "following": False})
            time.sleep(self.period)
        self.source.stopped()

    def _answer(self, request: str) -> None:
        if request == "clear":
            if self.robot.fault:
                try:
                    self.robot.clear_fault()
                except NotConnectedError:
                    raise
                except RobotError as error:  # it still moves, or stands where nothing may start
                    self._last["why"] = str(error)
        elif self.record is not None:
            self.record.request(request)

    def _tell(self, row: Row) -> None:
        record = self.record
        self._last = {**row, "recording": None if record is None or not record.open else record.steps,
                      "episodes": None if record is None else record.episodes}  # fmt: skip
        self.show(self._last)
