"""A leader arm: a second arm of servos, limp in somebody's hand, whose joints are read and never driven.

    with Leader("so101:/dev/ttyACM1?calibration=leader.json") as leader:
        pose = leader.read()                   joint positions and how far its handle is open

`LeaderSource` turns that into targets for a follower with joints of the same names. Leading begins, and begins again
after every stop, when the handle has been closed and opened: till then the follower stands. It then comes to the leader
at a walking pace (`APPROACH` of its limits), and follows it from there on. A leader that goes silent stops it.

The leader is limp: who lets go of it lets it fall, and the follower with it. Hence put it down before you let go, or
close the handle for GRIP seconds without moving the arm, which ends the leading.
Legend: n joints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..action import shape_command
from ..errors import NotConnectedError, UsageError, unknown_name
from ..robots import RobotSpec
from .calibrate import relax
from .calibration import RAD
from .drivers import split_address
from .roll_call import roll_call
from .servo_driver import ARMS, PATIENCE, PATIENCE_VIRTUAL
from .teleop import Aim, PageSource

APPROACH = 0.1  # fraction of the follower's limits, until it has come to the leader
NEAR = 0.03  # [rad] counts as there
CLOSED, OPENED = 0.15, 0.4  # shares of the handle's range
GRIP, STILL = 2.0, 0.05  # [s] of a closed handle, and [rad] of moving meanwhile, that end the leading
SILENT = 5  # readings missed in a row until the leader counts as gone
OPTIONS = ("calibration", "baud", "emulator", "virtual")


class Pose(NamedTuple):
    """Where the leader is."""

    time: float  # [s], monotonic
    joint_pos: np.ndarray  # (n,) [rad]
    grip: float  # of the handle: 0 closed, 1 open


class Leader:
    """The arm in somebody's hand."""

    def __init__(self, address: str):
        """
        Raises:
            UsageError: no arm of servos, an unknown option, no calibration.
            RobotError: a calibration that does not fit.
        """
        family, path, options = split_address(address)
        if family not in ARMS:
            raise unknown_name("leader arm", family, ARMS)
        for option in options:
            if option not in OPTIONS:
                raise unknown_name("leader option", option, OPTIONS)
        self.address = address
        self._arm, bus_class = ARMS[family]
        self.robot = self._arm.robot
        default = "nominal" if family == "vx300s" or "emulator" in options else ""
        self.calibration = self._arm.calibration(options.get("calibration", default), is_leader=True)
        self._ids = [joint.id for joint in self.calibration.servos.values()]
        patience = PATIENCE_VIRTUAL if options.get("virtual") else PATIENCE
        self._bus = bus_class(path, int(options.get("baud", 1_000_000)), patience)
        handle = self.calibration.servos["gripper"]
        self._handle = sorted((handle.angle(handle.low), handle.angle(handle.high)))
        self._last: Pose | None = None
        self._misses = 0

    def open(self) -> None:
        """Find its servos, and let it go limp. Raises NotConnectedError."""
        self._bus.open()
        try:
            roll_call(self._bus, self._arm, self.calibration)
            relax(self._bus, self._arm)
        except BaseException:
            self._bus.close()
            raise

    def read(self) -> Pose:
        """Where it is now; the last pose where an answer is missing. Raises NotConnectedError once too many are."""
        while True:
            now, states = time.monotonic(), self._bus.states(self._ids)
            if len(states) == len(self._ids):
                break
            self._misses += 1
            if self._misses >= SILENT:
                self.close()
                raise NotConnectedError(f"the leader at {self.address} does not answer; look at its cable")
            if self._last is not None:
                return self._last
        ticks = np.array([states[servo].position for servo in self._ids], np.float64)
        angles = self.calibration.signs * (ticks - self.calibration.zeros) * RAD
        low, high = self._handle
        grip = float(np.clip((angles[-1] - low) / (high - low), 0.0, 1.0))
        self._last, self._misses = Pose(now, angles[:-1], grip), 0
        return self._last

    def close(self) -> None:
        """Let go of the port; the arm stays limp. A second call does nothing."""
        self._bus.close()

    def __enter__(self) -> Leader:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class LeaderSource:
    """Aims for a follower from a leader, as teleoperation asks a source for them."""

    def __init__(self, leader: Leader, follower: RobotSpec, clock: Callable[[], float] = time.monotonic):
        """Raises UsageError where the two arms' joints have different names."""
        if leader.robot.joints != follower.joints:
            raise UsageError(f"a {leader.robot.name} cannot lead a {follower.name}: its joints are "
                             f"{', '.join(leader.robot.joints)}, not {', '.join(follower.joints)}")  # fmt: skip
        self._leader, self._follower, self._clock = leader, follower, clock
        self._low, self._high = np.array(follower.position_low), np.array(follower.position_high)
        self._limits = APPROACH * np.array(follower.velocity), APPROACH * np.array(follower.acceleration)
        self.stopped()

    def stopped(self) -> None:
        """The follower stands: leading begins anew with the handle."""
        self.is_leading = self._is_there = self._was_closed = False
        self._gripped: tuple[float, np.ndarray] | None = None  # since when the handle is closed, and where it was then

    def aim(self, row: Mapping[str, Any], period: float) -> Aim | None:
        """Where the follower shall be a period further; None: stand. Raises NotConnectedError: the leader has gone.

        row: of `Robot.follow`, of which `joint_pos_target` (n,) is read, where the follower was sent last.
        """
        pose = self._leader.read()
        was_leading = self.is_leading
        self._clutch(pose)
        if not self.is_leading:
            return None
        if not was_leading:
            self._position = np.asarray(row["joint_pos_target"], np.float64)
            self._velocity = np.zeros(len(self._position))
        goal = np.clip(pose.joint_pos, self._low, self._high)
        if not self._is_there:
            self._position, self._velocity = shape_command(self._position, self._velocity, goal, *self._limits, period)
            self._is_there = bool(np.abs(goal - self._position).max() < NEAR)
            goal = self._position
        return Aim(goal, self._gripper(pose.grip))

    def requests(self) -> list[str]:
        """A leader arm asks for nothing beside: episodes and stops are the page's."""
        return []

    def _clutch(self, pose: Pose) -> None:
        """Close and open the handle: begin. Keep it closed and the arm still: end."""
        if pose.grip > OPENED:
            if self._was_closed and not self.is_leading:
                self.is_leading = True
            self._was_closed, self._gripped = False, None
        elif pose.grip < CLOSED:
            self._was_closed = True
            if self._gripped is None or np.abs(pose.joint_pos - self._gripped[1]).max() > STILL:
                self._gripped = self._clock(), pose.joint_pos
            elif self.is_leading and self._clock() - self._gripped[0] > GRIP:
                self.stopped()

    def _gripper(self, grip: float) -> float:
        gripper = self._follower.gripper
        assert gripper is not None
        return gripper.closed + grip * (gripper.open - gripper.closed)


class LedByArm:
    """A leader arm, with a page beside it: who marks episodes, stops and releases does so there.

    While the arm leads, the page's pads wait.
    """

    def __init__(self, leader: LeaderSource, page: PageSource):
        self._leader, self._page = leader, page

    def aim(self, row: Mapping[str, Any], period: float) -> Aim | None:
        """See LeaderSource."""
        aim = self._leader.aim(row, period)
        return aim if self._leader.is_leading else self._page.aim(row, period)

    def requests(self) -> list[str]:
        """The page's."""
        return self._page.requests()

    def stopped(self) -> None:
        """Both begin anew."""
        self._leader.stopped()
        self._page.stopped()
