"""Universal Robots: a Driver on `ur-rtde`, by servoJ every 2 ms. Address: `ur:192.168.1.11?lookahead=0.03&gain=2000`.

ur-rtde lives in a process of its own (ur_process.py), which may be killed at any time: the controller then stops the
arm, because its watchdog misses commands. The controller's own safety modes are told as `Reading.fault`; while there is
one nothing is sent, and `clear_fault` releases it, uploads the control script anew and waits until that runs.

    protective_stop   unlocked by clear_fault, 5 s after it happened at the earliest
    safeguard_stop, emergency_stop   told until somebody has released the gate or the button
    robot_mode_…      the arm is not powered: clear_fault switches it on and releases the brakes
    program_stopped   somebody or the watchdog ended the program
    safety_violation, safety_fault, safety_recovery   need the teach pendant

A UR arm has no gripper of its own, and none is driven here: gripper_pos is NaN. It has no sensors of torque either, and
Universal Robots publishes no torque for an ampere: joint_effort is RTDE's `target_moment`, what the controller's own
model says that the motion needs. It shows gravity, payload and acceleration, and no contact, at which the controller
stops by itself. Legend: n = 6 joints.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import LimitViolatedError, NotConnectedError, RobotError, UsageError, unknown_name
from ..robots import UR5E
from .driver import Reading
from .emulators.side_line import Sided, SideLine
from .ur_process import State

CONNECTS_WITHIN, ANSWERS_WITHIN = 15.0, 10.0  # [s]
LOST = 0.2  # [s] without a word from the arm
LOST_VIRTUAL = 10.0  # [s] of the wall's time without an answer to a command, on a virtual clock
UNLOCKS_WITHIN, POWERED_WITHIN = 7.0, 30.0  # [s]
RUNNING, IDLE, PLAYING = 7, 5, 2  # robot modes, runtime state
SAFETY = {3: "protective_stop", 4: "safety_recovery", 5: "safeguard_stop", 6: "emergency_stop", 7: "emergency_stop",
          8: "safety_violation", 9: "safety_fault"}  # fmt: skip
MODES = {-1: "no_controller", 0: "disconnected", 1: "confirm_safety", 2: "booting", 3: "power_off", 4: "power_on",
         5: "idle", 6: "backdrive", 8: "updating_firmware"}  # fmt: skip


@dataclass(frozen=True)
class UROptions:
    """How servoJ follows, and which emulator answers."""

    lookahead: float = 0.03  # [s] 0.03 to 0.2: smooths, and lags by as much
    gain: float = 2000.0  # 100 to 2000: pull towards the target
    emulator: str = ""  # HOST:PORT of an emulator's side line
    virtual: bool = False  # the emulator's time passes with commands alone


def options_from(texts: Mapping[str, str]) -> UROptions:
    """The options of an address. Raises UsageError."""
    ranges = {"lookahead": (0.03, 0.2), "gain": (100.0, 2000.0)}
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name == "emulator":
            values[name] = text
        elif name == "virtual":
            values[name] = text == "1"
        elif name in ranges:
            low, high = ranges[name]
            try:
                values[name] = float(text)
            except ValueError:
                values[name] = np.nan
            if not low <= values[name] <= high:
                raise UsageError(f"ur option {name}={text}: expected a number between {low:g} and {high:g}")
        else:
            raise unknown_name("ur option", name, (*ranges, "emulator", "virtual"))
    return UROptions(**values)


def fault_of(state: State) -> str:
    """The controller's own fault by its name; "" where the arm takes commands."""
    if state.safety_mode in SAFETY:
        return SAFETY[state.safety_mode]
    if state.robot_mode != RUNNING:
        return f"robot_mode_{MODES.get(state.robot_mode, state.robot_mode)}"
    return "" if state.runtime_state == PLAYING else "program_stopped"


class UR(Sided):
    """A UR arm behind the Driver protocol."""

    def __init__(self, host: str, options: UROptions | None = None):
        self.robot = replace(UR5E, gripper=None)
        self.host, self.options = host, options or UROptions()
        self.realtime = not self.options.virtual
        self._side = SideLine(self.options.emulator) if self.options.emulator else None
        self._process: subprocess.Popen[bytes] | None = None
        self._gone = ""  # why the line is lost
        self._commanded: np.ndarray | None = None  # (n,) what servoJ is following

    # ---- Driver ------------------------------------------------------------------------------

    def open(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", "-m", "poise.real_robot.ur_process", "--fd", str(theirs.fileno())]
        command += ["--host", self.host, "--lookahead", str(self.options.lookahead), "--gain", str(self.options.gain)]
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        self._line, self._state, self._commanded, self._gone = ours, None, None, ""
        try:
            self._greet()
        except NotConnectedError:
            self.close()
            raise

    def now(self) -> float:
        return time.monotonic() if self.realtime else self._newest().timestamp

    def read(self) -> Reading:
        deadline = time.monotonic() + self.robot.servo_dt
        while not _plausible(state := self._newest()):
            if not self._wait(deadline):
                raise self._lost("what it says is damaged")
        target = np.array(state.target) if self._commanded is None or fault_of(state) else self._commanded.copy()
        joint_pos, joint_vel = np.array(state.joint_pos), np.array(state.joint_vel)
        return Reading(self._stamp(state), state.timestamp, joint_pos, joint_vel, target,
                       joint_effort=np.array(state.moment), fault=fault_of(state))  # fmt: skip

    def write(self, joint_pos_target: np.ndarray, gripper_target: float | None = None) -> None:
        if gripper_target is not None:
            raise UsageError(
                "a UR arm has no gripper of its own, and this driver none to command; send gripper_target=None"
            )
        before = self._newest()
        if not np.isfinite(joint_pos_target).all() or np.shape(joint_pos_target) != (self.robot.num_joints,):
            raise LimitViolatedError(f"expected {self.robot.num_joints} finite joint positions, got {joint_pos_target}")
        if fault_of(before):
            self._commanded = None
        else:
            self._send(b"W" + struct.pack("<6d", *joint_pos_target))
            self._commanded = np.array(joint_pos_target, np.float64)
        if self.realtime:
            self._wait(time.monotonic() + 2.0 * self.robot.servo_dt)
        elif self._commanded is not None:
            self._await_step(before.timestamp + 0.5 * self.robot.servo_dt)

    def _await_step(self, timestamp: float) -> None:
        """On a virtual clock: wait until the controller's time has come so far, or it has a fault."""
        state = self._newest()
        while state.timestamp < timestamp and not fault_of(state):
            if not self._wait(time.monotonic() + LOST_VIRTUAL):
                raise self._lost("a command was not answered")
            assert self._state is not None
            state = self._state

    def brake(self) -> None:
        if self._process is not None and not self._gone and not fault_of(self._newest()):
            self._request("brake")
            self._commanded = None

    def clear_fault(self) -> None:
        if self._gone:
            self.close()
            self.open()
        fault = fault_of(self._newest())
        if fault == "":
            return
        if fault == "protective_stop":
            self._unlock()
        elif not fault.startswith(("robot_mode", "program")):
            raise RobotError(
                f"{self.host} is in {fault.replace('_', ' ')}: release the button or the gate, or see to "
                "it on the teach pendant; then clear the fault again"
            )
        if self._newest().robot_mode != RUNNING:
            self._request("power_on")
            self._until(lambda state: state.robot_mode in (IDLE, RUNNING), POWERED_WITHIN, "is not switched on")
            self._request("release_brakes")
            self._until(lambda state: state.robot_mode == RUNNING, POWERED_WITHIN, "does not release its brakes")
        self._start()

    def close(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(RobotError):
            self.brake()
        self._line.close()  # ends the program, and the process
        try:
            self._process.wait(ANSWERS_WITHIN if not self._gone else 0.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._side is not None:
            self._side.close()
        self._process, self._gone = None, ""

    # ---- the controller ----------------------------------------------------------------------

    def _greet(self) -> None:
        """Wait for the connection, see that this is the arm, and take it. Raises NotConnectedError."""
        self._answer("a connection", CONNECTS_WITHIN)
        if "5" not in (model := str(self._request("model"))):
            raise NotConnectedError(f"at {self.host} there is a {model}, expected a UR5 or UR5e")
        if self._newest().speed_fraction < 1.0:
            raise NotConnectedError(f"the speed slider of {self.host} stands at {self._newest().speed_fraction:.0%}; "
                                    "set it to 100 % on the teach pendant: commands here are timed")  # fmt: skip
        if fault_of(self._newest()) in ("", "program_stopped"):
            self._start()

    def _start(self) -> None:
        """Upload the script, wait until it runs, and arm the watchdog."""
        self._commanded = None
        if self._request("start") is not True:
            raise NotConnectedError(
                f"the control script does not start on {self.host}; is it in remote control, and "
                "is nothing else using its registers?"
            )
        self._until(lambda state: not fault_of(state), ANSWERS_WITHIN, "does not run the control script")

    def _unlock(self) -> None:
        deadline = time.monotonic() + UNLOCKS_WITHIN
        while (answer := self._request("unlock")) is not True:
            if time.monotonic() > deadline:
                raise RobotError(f"{self.host} does not release its protective stop: {answer}")
            time.sleep(0.1)
        self._until(lambda state: state.safety_mode not in SAFETY, ANSWERS_WITHIN, "does not leave its protective stop")

    def _until(self, holds: Any, seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not holds(self._newest()):
            if not self._wait(deadline):
                raise RobotError(f"{self.host} {otherwise}")

    # ---- the process -------------------------------------------------------------------------

    def _newest(self) -> State:
        """The newest state that has come. Raises NotConnectedError where none came for too long."""
        if self._process is None:
            raise NotConnectedError(f"ur:{self.host} is not open; call open() first")
        if self._gone:
            raise NotConnectedError(self._gone)
        while self._receive(time.monotonic()):
            pass
        if self._state is None:
            self._wait(time.monotonic() + ANSWERS_WITHIN)
        state = self._state
        if state is None or (self.realtime and time.monotonic() - state.arrived > LOST):
            raise self._lost(f"it has said nothing for {LOST} s")
        return state

    def _wait(self, deadline: float) -> bool:
        """Wait for the next state; whether it came."""
        before = self._state
        while self._state is before:
            if not self._receive(deadline):
                return False
        return True

    def _receive(self, deadline: float) -> bytes:
        """The next message, taken note of; empty where none comes in time."""
        if not select.select([self._line], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return b""
        try:
            message = self._line.recv(65536)
        except OSError:
            message = b""
        if message[:1] == b"S":
            self._state = State.unpack(message)
        elif message[:1] != b"R":
            raise self._lost(message[1:].decode(errors="replace") or "ur-rtde has crashed")
        return message

    def _request(self, what: str) -> Any:
        self._newest()
        self._send(b"J" + json.dumps({"do": what}).encode())
        return self._answer(what, ANSWERS_WITHIN)

    def _answer(self, what: str, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while message := self._receive(deadline):
            if message[:1] == b"R":
                return json.loads(message[1:])
        raise self._lost(f"{what} was not answered within {seconds:g} s")

    def _send(self, message: bytes) -> None:
        try:
            self._line.send(message, socket.MSG_DONTWAIT)
        except OSError:
            raise self._lost("ur-rtde takes no more commands") from None

    def _lost(self, why: str) -> NotConnectedError:
        """The line is lost: end the process; the arm's watchdog stops the arm."""
        assert self._process is not None
        self._process.kill()
        self._gone = f"{self.host} does not answer: {why}; see that it is on and reachable, then clear the fault"
        self._commanded = None
        return NotConnectedError(self._gone)

    def _stamp(self, state: State) -> float:
        return state.arrived if self.realtime else state.timestamp


def _plausible(state: State) -> bool:
    """Whether these can be joints at all: within two turns, slower and weaker than ten times any arm."""
    limits = ((state.joint_pos + state.target, 4.0 * np.pi), (state.joint_vel, 30.0), (state.moment, 2000.0))
    return all(bool((np.abs(values) < limit).all()) for values, limit in limits)  # which a NaN fails
