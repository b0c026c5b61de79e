"""UFACTORY's xArm7 behind the Driver protocol, by the vendor's own client, xarm-python-sdk: `xarm:192.168.1.217`.

Each servo period asks for the joint states (position, velocity, effort) and sends one command of servo mode 1
(`set_servo_angle_j`), a question and an answer each over TCP port 502, in float32. The report stream (port 30003,
100 Hz) is the second witness: it tells a mode or a state that somebody else has set, and that the box is alive.

The box has no watchdog to arm: where commands stop coming, it stays at the last one. It latches errors by itself
(speed, joint range, collision, safety boundary …); `Reading.fault` then names them, and every command is refused
until `clear_fault`. A command whose answer is missing is looked up in what the box follows, and sent again only where
it has not arrived, so that the box gets each once.

xarm_sdk.py keeps the SDK quiet. Legend: n joints.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import LimitViolatedError, NotConnectedError, RobotError, UsageError, unknown_name
from ..robots import XARM7
from .driver import Reading
from .emulators.side_line import Sided, SideLine
from .xarm_sdk import connected_api, disconnect, error_name

ANSWER_WAIT, VIRTUAL_WAIT = 0.05, 2.0  # [s] for one answer of a box, and of an emulator on its own clock
READY_WAIT = 2.0  # [s] until motors, mode and state that were asked for are in the report
SILENT = 1.0  # [s] without a report, after which the box counts as gone
STILL, STILL_WAIT = 0.01, 3.0  # [rad/s] that counts as standing, and [s] for it after a stop
JUMP = 0.05  # [rad] that a joint may differ from where its speed can have taken it, or the answer is corrupt
assert XARM7.gripper is not None
CLOSED, OPEN = XARM7.gripper.closed, XARM7.gripper.open  # [m] each finger
GRIPPER_COUNTS, GRIPPER_SPEED = 850, 5000  # of the gripper: counts when open, counts a second
GRIPPER_EVERY = 20  # servo periods between two questions for its position
SERVO, READY, STOP = 1, 0, 4  # the box's mode for streams of joint positions, and the states to ask it for
REFUSED, OUT_OF_RANGE = (1, 9), -8  # the SDK's codes: the box has an error or is stopped; beyond its joint range
STATES = {3: "paused", 4: "stopped", 5: "not ready after a change of mode"}
BROKEN = -99  # stands for a code where the SDK stumbled over an answer
OPTIONS = ("emulator", "virtual", "gripper")


class XArm(Sided):
    """One xArm7. gripper=1: the vendor's gripper is mounted (asking for it where it is not latches an error)."""

    def __init__(self, host: str, options: dict[str, str] | None = None):
        options = options or {}
        for name, text in options.items():
            if name not in OPTIONS:
                raise unknown_name("xarm option", name, OPTIONS)
            if name != "emulator" and text not in ("0", "1"):
                raise UsageError(f"xarm option {name}={text}: expected 0 or 1")
        self.host, self.realtime = host, options.get("virtual", "0") == "0"
        self._has_gripper = options.get("gripper", "0") == "1"
        self.robot = XARM7 if self._has_gripper else replace(XARM7, gripper=None)
        self._side = SideLine(options["emulator"]) if "emulator" in options else None
        self._arm: Any = None
        if not self.realtime and self._side is None:
            raise UsageError("xarm option virtual=1 is for emulators: it needs emulator=HOST:PORT beside it")

    # ---- life --------------------------------------------------------------------------------

    def open(self) -> None:
        self._connect()
        try:
            if self._error():
                self._held = self._followed()
            else:
                self._begin()
        except BaseException:
            self._disconnect()
            raise

    def _connect(self) -> None:
        self._arm = arm = connected_api(self.host, ANSWER_WAIT if self.realtime else VIRTUAL_WAIT, self._report)
        self._reported, self._lost, self._refused = time.monotonic(), False, False
        self._held = np.array(self.robot.home)  # (n,) sent last, or what the box follows by itself [rad]
        self._last: tuple[float, np.ndarray] | None = None  # when and where the joints were last
        self._gripper_pos, self._gripper_fault, self._periods = math.nan, "", 0
        self._gripper_wanted: int | None = None  # counts asked for last,
        self._gripper_target: int | None = None  # and sent last
        self._due = time.monotonic()
        self._read_clock()
        if arm.axis != self.robot.num_joints:
            self._disconnect()
            raise NotConnectedError(f"the arm at {self.host} has {arm.axis} joints; Poise knows the xArm7")

    def _begin(self) -> None:
        """Motors on, servo mode, ready; the held pose is sent once, so that both sides count from the same."""
        arm = self._arm
        for what, value in (("motion_enable", True), ("set_mode", SERVO), ("set_state", READY)):
            if code := self._ask(lambda what=what, value=value: getattr(arm, what)(value))[0]:
                raise NotConnectedError(f"the xArm at {self.host} answered {what} with code {code}; see the vendor's "
                                        "list of API codes")  # fmt: skip
        self._wait(lambda: arm.mode == SERVO and self._ask(arm.get_state)[1] in (0, 1, 2), READY_WAIT,
                   "did not get ready for servo mode")  # fmt: skip
        if self._has_gripper:
            for what, value in (("mode", 0), ("enable", True), ("speed", GRIPPER_SPEED)):
                if code := self._ask(lambda what=what, value=value: getattr(arm, f"set_gripper_{what}")(value))[0]:
                    raise NotConnectedError(f"the gripper of the xArm at {self.host} answered with code {code}; "
                                            "leave gripper=1 out where none is mounted")  # fmt: skip
        self._wait(self._stands, STILL_WAIT, "does not stand still")
        self._refused = False
        self._read_clock()
        self._held = self._followed()
        self.write(self._held)

    def brake(self) -> None:
        self._halt()
        if not self._error():
            self._ask(lambda: self._arm.set_state(READY))
        self._held, self._last = self._followed(), None
        self._read_clock()

    def _halt(self) -> None:
        """The box's own ramp to standstill: state 4."""
        arm = self._open_arm()
        if code := self._ask(lambda: arm.set_state(STOP))[0]:
            raise self._gone(f"answered a stop with code {code}")
        self._wait(self._stands, STILL_WAIT, "did not come to a standstill")

    def _stands(self) -> bool:
        return bool(np.abs(self._states()[1]).max() < STILL)

    def clear_fault(self) -> None:
        """Clean the box's errors and get ready again; a line that was lost is opened anew. Raises RobotError."""
        if self._open_arm() and self._lost:
            self._disconnect()
            self._connect()
        elif not self._fault():
            return  # the arm may be moving
        arm = self._arm
        self._ask(arm.clean_error)
        self._ask(arm.clean_warn)
        if name := self._error():
            raise RobotError(f"the xArm at {self.host} still reports {name}; see to its cause (a stop button that is "
                             "pressed?), then clear the fault again")  # fmt: skip
        self._begin()

    def close(self) -> None:
        if self._arm is not None:
            with contextlib.suppress(RobotError):
                self._halt()
            self._disconnect()
        if self._side is not None:
            self._side.close()

    def _disconnect(self) -> None:
        arm, self._arm = self._arm, None
        if arm is not None:
            disconnect(arm)

    # ---- each servo period -------------------------------------------------------------------

    def now(self) -> float:
        return time.monotonic() if self.realtime else self._began + self._steps * self.robot.servo_dt

    def read(self) -> Reading:
        self._open_arm()
        if self._lost:
            raise self._gone("went away")
        if (silence := time.monotonic() - self._reported) > SILENT:
            raise self._gone(f"has sent no report for {silence:.1f} s (port 30003)")
        joint_pos, joint_vel, effort = self._states()
        if fault := self._fault():
            self._held = self._followed()
        if self._has_gripper and self._periods % GRIPPER_EVERY == 0 and not fault:
            self._gripper_pos = self._measured_gripper()
        time_ = self.now()
        return Reading(time_, time_, joint_pos, joint_vel, self._held.copy(), self._gripper_pos, effort, fault)

    def write(self, joint_pos_target: np.ndarray, gripper_target: float | None = None) -> None:
        arm, command = self._open_arm(), np.array(joint_pos_target, np.float64)
        if self._lost:
            raise self._gone("went away")
        code = self._ask(lambda: arm.set_servo_angle_j(command.tolist(), is_radian=True))[0]
        if code == OUT_OF_RANGE:
            raise LimitViolatedError(f"the joint range of the xArm at {self.host} is narrower than the command "
                                     f"{np.round(command, 4).tolist()} rad")  # fmt: skip
        self._refused = code in REFUSED
        if code and not self._refused:
            self._confirm(command)
        if not self._refused:
            self._held = command
        self._steps, self._periods = self._steps + 1, self._periods + 1
        if self._has_gripper and not self._refused:
            self._move_gripper(gripper_target)
        if self.realtime:
            self._due = max(self._due + self.robot.servo_dt, time.monotonic() - self.robot.servo_dt)
            time.sleep(max(0.0, self._due - time.monotonic()))

    def _confirm(self, command: np.ndarray) -> None:
        """A command got no proper answer: ask what the box follows, and send it again if it has not arrived."""
        followed = self._followed()
        if np.array_equal(followed, np.float32(command)):
            return
        if not np.array_equal(followed, np.float32(self._held)):
            raise self._gone("did not answer a command, and has stopped following")
        code = self._ask(lambda: self._arm.set_servo_angle_j(command.tolist(), is_radian=True))[0]
        self._refused = code in REFUSED
        if code and not self._refused:
            raise self._gone(f"did not answer a command twice (code {code})")

    def _states(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions, velocities and efforts (n,); asked for twice where the first answer is late or makes no sense."""
        arm = self._open_arm()
        for _ in range(2):
            code, states = self._ask(lambda: arm.get_joint_states(is_radian=True, num=3))
            if code == 0 and (found := self._plausible(states)) is not None:
                return found
            self._read_clock()
        raise self._gone(f"did not tell its joint states (code {code})")

    def _plausible(self, states: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The answer as arrays, unless it holds what cannot be: the protocol has no checksums of its own."""
        values = np.array(states, np.float64)  # (3, n)
        if values.shape != (3, self.robot.num_joints) or not np.isfinite(values).all():
            return None
        limits, now = np.array(self.robot.velocity), self.now()
        if self._last is not None and (np.abs(values[0] - self._last[1]) > limits * (now - self._last[0]) + JUMP).any():
            return None
        if (np.abs(values[1]) > 2.0 * limits).any():
            return None
        self._last = now, values[0]
        return values[0].copy(), values[1], values[2]

    def _followed(self) -> np.ndarray:
        """(n,) [rad] the pose that the box follows, in the very float32 that it was sent."""
        for _ in range(2):
            code, pose = self._ask(lambda: (lambda answer: (answer[0], answer[1:8]))(self._arm.core.get_joint_pos()))
            if code in (0, 1, 2) and np.isfinite(pose).all():
                return np.array(pose, np.float64)
        raise self._gone(f"did not tell the pose that it follows (code {code})")

    # ---- faults ------------------------------------------------------------------------------

    def _fault(self) -> str:
        """What keeps the box from following commands, by its own name for it; "" nothing."""
        arm = self._arm
        if arm.has_err_warn and (name := self._error()):
            return name
        if not arm.core.state_is_ready or arm.state in STATES or arm.mode != SERVO:
            state = self._ask(arm.get_state)[1]
            if state in STATES:
                return f"{STATES[state]} (state {state})"
            if arm.mode != SERVO:
                return f"mode {arm.mode} was set in place of servo mode"
        return self._gripper_fault

    def _error(self) -> str:
        code, found = self._ask(self._arm.get_err_warn_code)
        if code:
            raise self._gone(f"did not tell its error (code {code})")
        return error_name(found[0]) if found[0] else ""

    def _report(self, _: dict[str, Any]) -> None:
        self._reported = time.monotonic()

    def _ask(self, question: Callable[[], Any]) -> tuple[int, Any]:
        """Code and value of a call of the SDK, which raises all sorts of things where an answer is garbled."""
        try:
            answer = question()
        except Exception:
            return BROKEN, None
        return answer if isinstance(answer, tuple) else (answer, None)

    def _wait(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise self._gone(what)
            time.sleep(0.005)

    def _gone(self, what: str) -> NotConnectedError:
        self._lost = True
        return NotConnectedError(
            f"the xArm at {self.host} {what}; look at it, then clear the fault, which connects anew"
        )

    def _open_arm(self) -> Any:
        if self._arm is None:
            raise NotConnectedError(f"xarm:{self.host} is not open; call open() first")
        return self._arm

    # ---- the gripper -------------------------------------------------------------------------

    def _move_gripper(self, target: float | None) -> None:
        """Its command [m] in the gripper's own counts: a goal, which is sent once it no longer changes."""
        before = self._gripper_wanted
        if target is not None:
            self._gripper_wanted = round((target - CLOSED) / (OPEN - CLOSED) * GRIPPER_COUNTS)
        counts = self._gripper_wanted
        if counts == before and counts != self._gripper_target:
            code, _ = self._ask(lambda: self._arm.set_gripper_position(counts, wait=False, no_check=True))
            self._gripper_target = counts if code == 0 else None
            self._gripper_fault = f"gripper: code {code}" if code else ""

    def _measured_gripper(self) -> float:
        code, counts = self._ask(self._arm.get_gripper_position)
        self._gripper_fault = f"gripper: code {code}" if code else ""
        return math.nan if code else CLOSED + counts / GRIPPER_COUNTS * (OPEN - CLOSED)

    # ---- emulators ---------------------------------------------------------------------------

    def _before_side(self) -> None:
        self._open_arm()

    def _read_clock(self) -> None:
        """What an emulator's own clock says, which goes on where it brakes by itself."""
        self._steps = 0
        self._began = 0.0 if self.realtime or self._side is None else float(self._side.ask("truth")["time"])
