"""Franka Research 3 behind the Driver protocol, by the vendor's own library, pylibfranka: `franka:192.168.1.2`.

The robot wants an answer to its state every millisecond and stops after 20 that it misses; a driver's servo period is
5 ms. So a process of its own (franka_loop.py) answers, along a spline through the commands that stays inside the
limits that they keep, and this driver exchanges a command for a state with it once a period. That is also the
watchdog: where commands stop coming, the arm comes to a standstill within the limits and holds; where that process
stops, the robot stops itself with `communication_constraints_violation`.

What stops the robot (its reflexes) becomes `Reading.fault` under the robot's own names, with a comma between several;
`clear_fault` is `automatic_error_recovery`. The hand has a process too (franka_gripper.py). Legend: 7 joints.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..errors import LimitViolatedError, NotConnectedError, RobotError, UsageError, unknown_name
from ..robots import FR3
from .driver import Reading
from .emulators.side_line import Sided, SideLine
from .franka_gripper import WIDTH
from .franka_loop import TARGET, State

OPEN_WAIT, RECOVERY_WAIT, STANDSTILL_WAIT, END_WAIT = 10.0, 3.0, 2.0, 3.0  # [s]
SILENT = 0.2  # [s] without a state, after which the robot counts as gone
STANDING = 4  # periods without a change of the newest control point, after which the path stands
OPTIONS = ("emulator", "gripper")
assert FR3.gripper is not None
FINGERS = 2.0  # a width of the hand is this much of one finger's way


class Franka(Sided):
    """One FR3 with or without (gripper=0) the Franka Hand."""

    realtime = True

    def __init__(self, host: str, options: dict[str, str] | None = None):
        options = options or {}
        for name in options:
            if name not in OPTIONS:
                raise unknown_name("franka option", name, OPTIONS)
        if (hand := options.get("gripper", "1")) not in ("0", "1"):
            raise UsageError(f"franka option gripper={hand}: expected 0 or 1")
        self.host, self._has_hand = host, hand == "1"
        self.robot = FR3 if self._has_hand else replace(FR3, gripper=None)
        self._side = SideLine(options["emulator"]) if "emulator" in options else None
        self._arm: _Process | None = None
        self._hand: _Process | None = None

    # ---- Driver ------------------------------------------------------------------------------

    def open(self) -> None:
        self._arm = _Process("franka_loop", self.host)
        self._state: State | None = None
        self._target = np.array(self.robot.home)
        self._arrived, self._width, self._hand_fault = 0.0, math.nan, ""
        self._wanted: float | None = None  # of the hand, asked for last,
        self._told: float | None = None  # and sent last
        try:
            self._wait(lambda: self._state is not None, OPEN_WAIT, "sends no state")
            if self._has_hand:
                self._hand = _Process("franka_gripper", self.host)
                self._wait(lambda: not math.isnan(self._width), OPEN_WAIT, "tells no width of its hand; "
                           "add ?gripper=0 where none is mounted")  # fmt: skip
        except BaseException:
            self._end()
            raise
        self._target = self._newest().target.copy()

    def now(self) -> float:
        return time.monotonic()

    def read(self) -> Reading:
        self._drain()
        if self.now() - self._arrived > SILENT:
            self._wait_for_state(SILENT)
        state = self._newest()
        fault = ",".join(name for name in (state.fault, self._hand_fault) if name)
        target = state.target if state.fault else self._target
        return Reading(self._arrived, state.time, state.joint_pos.copy(), state.joint_vel.copy(), target.copy(),
                       self._width / FINGERS, state.joint_effort.copy(), fault)  # fmt: skip

    def write(self, joint_pos_target: np.ndarray, gripper_target: float | None = None) -> None:
        arm = self._open_arm()
        if np.shape(joint_pos_target) != (7,) or not np.isfinite(joint_pos_target).all():
            raise LimitViolatedError(f"the FR3 takes 7 finite joint positions, not {joint_pos_target}")
        self._drain()
        arm.send(b"T" + TARGET.pack(*joint_pos_target))
        self._target = np.array(joint_pos_target, np.float64)
        self._move_hand(gripper_target)
        self._wait_for_state(SILENT)

    def _move_hand(self, target: float | None) -> None:
        """The hand takes goals, and hears of no other while it moves: one is sent once it no longer changes."""
        before, self._wanted = self._wanted, self._wanted if target is None else target
        if self._hand is None or self._wanted is None or self._wanted != before or self._wanted == self._told:
            return
        low, high = sorted((FR3.gripper.closed, FR3.gripper.open))  # type: ignore[union-attr]
        self._hand.send(WIDTH.pack(FINGERS * min(max(self._wanted, low), high)))
        self._told = self._wanted

    def brake(self) -> None:
        """Send nothing until the path stands: the process that keeps the 1 kHz brakes within the limits."""
        self._drain()
        standing, last, due = 0, None, time.monotonic() + STANDSTILL_WAIT
        while standing < STANDING and time.monotonic() < due:
            self._wait_for_state(SILENT)
            target = self._newest().target
            standing = standing + 1 if last is not None and np.array_equal(target, last) else 0
            last = target
        self._target = self._newest().target.copy()

    def clear_fault(self) -> None:
        """Recover from a reflex; a line that was lost is opened anew. Raises RobotError, NotConnectedError."""
        arm = self._open_arm()
        try:
            self._wait_for_state(SILENT)
        except NotConnectedError:
            self._end()
            return self.open()
        self._hand_fault = ""
        if self._newest().fault:
            arm.send(b"R")
            self._wait(lambda: not self._newest().fault, RECOVERY_WAIT, f"does not recover from {self._newest().fault}")
        self._target = self._newest().target.copy()

    def _before_side(self) -> None:
        self._open_arm()

    def close(self) -> None:
        self._end()
        if self._side is not None:
            self._side.close()

    # ---- the processes -----------------------------------------------------------------------

    def _open_arm(self) -> _Process:
        if self._arm is None:
            raise NotConnectedError(f"franka:{self.host} is not open; call open() first")
        return self._arm

    def _newest(self) -> State:
        assert self._state is not None
        return self._state

    def _drain(self) -> None:
        for datagram in self._open_arm().receive():
            self._take(datagram)
        if self._hand is not None:
            for datagram in self._hand.receive():
                self._take_of_hand(datagram)

    def _take(self, datagram: bytes) -> None:
        if datagram[:1] == b"S":
            self._state, self._arrived = State.unpack(datagram), self.now()
            return
        text = datagram[1:].decode()
        raise (RobotError if datagram[:1] == b"E" else NotConnectedError)(f"franka:{self.host}: {text}")

    def _take_of_hand(self, datagram: bytes) -> None:
        if datagram[:1] == b"S":
            (self._width,) = WIDTH.unpack_from(datagram, 1)
        elif datagram[:1] == b"E":
            self._hand_fault = f"gripper: {datagram[1:].decode()}"
        else:
            raise NotConnectedError(f"the hand of franka:{self.host}: {datagram[1:].decode()}; add ?gripper=0 where "
                                    "none is mounted")  # fmt: skip

    def _wait_for_state(self, seconds: float) -> None:
        """The next state: the robot's own period paces whoever writes."""
        before = self._arrived
        self._wait(lambda: self._arrived > before, seconds, "has fallen silent")

    def _wait(self, arrived: Callable[[], bool], seconds: float, what: str) -> None:
        due = time.monotonic() + seconds
        self._drain()
        while not arrived():
            left = due - time.monotonic()
            if left <= 0.0:
                raise NotConnectedError(f"the robot at {self.host} {what} (waited {seconds:g} s)")
            lines = [process.line for process in (self._arm, self._hand) if process is not None]
            select.select(lines, [], [], left)
            self._drain()

    def _end(self) -> None:
        for process in (self._arm, self._hand):
            if process is not None:
                process.end()
        self._arm = self._hand = None


class _Process:
    """A helper process and the line to it."""

    def __init__(self, module: str, host: str):
        self.line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line.setblocking(False)
        self.module = module
        command = [
            sys.executable,
            "-P",
            "-m",
            f"poise.real_robot.{module}",
            "--fd",
            str(theirs.fileno()),
            "--host",
            host,
        ]
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    def send(self, datagram: bytes) -> None:
        """Raises NotConnectedError where the process has ended; one that is stuck misses what does not fit."""
        try:
            self.line.send(datagram)
        except BlockingIOError:
            pass
        except OSError:
            raise self._gone() from None

    def receive(self) -> list[bytes]:
        """What has arrived. Raises NotConnectedError where the process has ended and all has been read."""
        datagrams: list[bytes] = []
        try:
            while datagram := self.line.recv(4096):
                datagrams.append(datagram)
        except BlockingIOError:
            return datagrams
        except OSError:
            pass
        if not datagrams:
            raise self._gone()
        return datagrams

    def end(self) -> None:
        """Let the arm stand, then end."""
        with contextlib.suppress(OSError):
            self.line.send(b"Q") if self.module == "franka_loop" else None
        try:
            if self.module != "franka_loop":
                self.line.close()
            self._process.wait(END_WAIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.line.close()

    def _gone(self) -> NotConnectedError:
        return NotConnectedError(f"the process that talks to the robot ({self.module}) has ended; clear the fault to "
                                 "start another")  # fmt: skip
