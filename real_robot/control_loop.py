"""The control loop: driver and supervisor, and what they do together, servo period by servo period.

    Driver.read -> whoever drives -> supervisor -> Driver.write

A job drives: a policy (policy_run.py), a stream of waypoints (following.py), a move or single commands (here). It runs
in the control process (control.py), or inside a test's process on simulated time.

Legend: n joints.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..action import shape_command
from ..errors import LimitViolatedError, NotConnectedError, RobotError, UsageError
from .cameras import View
from .driver import Driver, Reading
from .following import Waypoints
from .gripper_guard import is_number
from .route import Trail
from .self_collision import SelfCollision
from .servo_log import ServoLog
from .states import ArmState
from .supervisor import SAME, Code, Supervisor, Verdict

SETTLED = 0.01  # [rad/s] slower than this an arm counts as standing
RECOVERY_SPEED = 0.05  # of the arm's limits
SETTLE_WAIT = 1.0  # [s] for that, after a move
GRIP_WAIT, GRIP_STILL, GRIP_NEAR = 2.0, 0.15, 0.01  # [s] for fingers; [s] that they rest; share of their way
Row = dict[str, Any]


class ControlLoop:
    """Driver and supervisor, and what they do together. Nobody else writes to the driver."""

    def __init__(self, driver: Driver):
        self.driver, self.robot = driver, driver.robot
        links = SelfCollision.of(driver.robot)
        self.supervisor = Supervisor(driver.robot, collision=links)
        self.trail = Trail(driver.robot, links)
        self.counts = dict.fromkeys(Code, 0)  # verdicts on commands; what braking sends is not judged
        self.waypoints = Waypoints()  # what `follow` goes by
        self.log: ServoLog | None = None
        self.cameras = View({})
        self.interrupted: Callable[[], str] = lambda: ""  # asked every tick: "end" this job, "stop" for good, or ""
        self.ended = self.is_lost = self._opened = False
        self._job = ArmState.HOLD
        self.scheduling = "ordinary" if driver.realtime else "simulated time"

    def open(self) -> None:
        """Connect, and hold the present pose. Raises NotConnectedError, LimitViolatedError."""
        self.driver.open()
        reading = self.driver.read()
        self.supervisor.start(reading.joint_pos_target, reading.joint_pos)
        self._opened = True
        self.trail.begin(self.supervisor.position)

    def begin(self, job: ArmState) -> None:
        """A job starts. Raises RobotError where a stop is latched."""
        self._refuse_while_stopped()
        self._job, self.ended = job, False

    def over(self) -> None:
        """The job is over: come to a standstill."""
        self._job = ArmState.HOLD
        self.come_to_rest()

    def move_to(self, joint_pos: np.ndarray, speed: float, gripper: float | None = None) -> None:
        """Move to (n,) [rad] in a straight line of joint space, or several, at a fraction `speed` of the arm's limits.

        gripper: where the fingers go once the arm is there [unit of RobotSpec.gripper]; None leaves them alone.

        Raises:
            LimitViolatedError: the pose is out of limits, or no way leads there inside the workspace.
            UsageError: the arm has no gripper.
        """
        supervisor, robot = self.supervisor, self.robot
        self._refuse_while_stopped()
        if gripper is not None:
            self._check_gripper(gripper)
        for name, q, low, high in zip(robot.joints, joint_pos, robot.position_low, robot.position_high, strict=True):
            if not low <= q <= high:
                raise LimitViolatedError(f"{name}: asked to move to {q:.5g} rad, outside [{low:.5g}, {high:.5g}]")
        self.ended = False
        self.come_to_rest()
        for pose in self.trail.route(supervisor.position, joint_pos):
            self._move_straight(pose, speed)
        self._settle()
        if gripper is not None and not self.ended:
            self._grip(gripper)
        self.trail.begin(supervisor.position)

    def _check_gripper(self, goal: float) -> None:
        hand, guard = self.robot.gripper, self.supervisor.gripper
        if hand is None or guard is None:
            raise UsageError(f"this {self.robot.name} moves no gripper")
        if not (is_number(goal) and guard.low <= goal <= guard.high):
            raise LimitViolatedError(f"gripper: asked for {goal} {hand.unit}, outside [{guard.low:g}, {guard.high:g}]")

    def _grip(self, goal: float) -> None:
        """Send the fingers there, and wait until they are or something holds them."""
        supervisor, guard, still, last = self.supervisor, self.supervisor.gripper, 0.0, np.nan
        assert guard is not None
        near = GRIP_NEAR * (guard.high - guard.low)
        for _ in range(round(GRIP_WAIT / self.robot.servo_dt)):
            reading, asked = self.read(), guard.towards(goal)
            verdict = supervisor.check(supervisor.position, self.driver.now(), reading.time, wall=0.0, gripper=asked)
            self.send(reading, supervisor.position, verdict, asked)
            moved, last = abs(reading.gripper_pos - last), reading.gripper_pos
            still = still + self.robot.servo_dt if asked == goal and not moved > near / 10.0 else 0.0
            if abs(last - goal) < near or still > GRIP_STILL or self.asked_to_end() or supervisor.fault:
                break
        self.come_to_rest()

    def _move_straight(self, joint_pos: np.ndarray, speed: float) -> None:
        """One line of joint space: `shape_command` moves the share of the way that is done, from 0 to 1."""
        driver, supervisor, robot = self.driver, self.supervisor, self.robot
        self._job = ArmState.RUN_MOVE
        start, way, done, rate = supervisor.position, joint_pos - supervisor.position, np.zeros(1), np.zeros(1)
        if np.abs(way).max() < SAME:
            return
        max_rate = np.array([speed / np.max(np.abs(way) / robot.velocity)])  # [1/s]
        max_change = np.array([speed / np.max(np.abs(way) / robot.acceleration)])  # [1/s^2]
        while 1.0 - done[0] > 1e-9 and not self.ended:
            reading = self.read()
            done, rate = shape_command(done, rate, np.ones(1), max_rate, max_change, robot.servo_dt)
            asked = start + done * way
            verdict = supervisor.check(asked, driver.now(), reading.time, wall=0.0)
            self.send(reading, asked, verdict)
            if verdict.code is Code.REJECT:
                self.come_to_rest()
                raise LimitViolatedError(f"the way to that pose was stopped: {supervisor.fault or verdict}")
            self.asked_to_end()
        self.come_to_rest()

    def command(self, target: Any, at: float | None, source: str = "", gripper: Any = None) -> Row:
        """One servo period of somebody's own commands: verdict and what was sent."""
        self._refuse_while_lost()
        self._job = ArmState.RUN_REPLAY if source == "replay" else ArmState.RUN_TELEOP
        reading = self.read()
        verdict = self.supervisor.check(target, self.driver.now(), reading.time, at, source=source,
                                        gripper=gripper)  # fmt: skip
        self.send(reading, target, verdict, gripper)
        self.trail.passed(verdict.position)
        return {"verdict": [int(verdict.code), *verdict[1:5]], "gripper": verdict.gripper,
                **{name: getattr(verdict, name).tolist() for name in ("position", "velocity", "sent")}}  # fmt: skip

    def hold(self) -> float:
        """One servo period of braking or standing; the fastest measured joint [rad/s]."""
        self._refuse_while_lost()
        reading = self.read()
        self.send(reading, None, self.supervisor.brake(), judged=False)
        return float(np.abs(reading.joint_vel).max())

    def send(self, reading: Reading, asked: Any, verdict: Verdict, asked_gripper: Any = None,
             judged: bool = True) -> None:  # fmt: skip
        """Send what the verdict says, count it where it was judged, and log the period for whoever reads along."""
        self.driver.write(verdict.sent, verdict.gripper)
        if judged:
            self.counts[verdict.code] += 1
        if self.log is not None:
            fault = self.supervisor.fault
            self.log.write(reading, asked, verdict.sent, asked_gripper, verdict.gripper, verdict.code, verdict.rule,
                           fault.rule if fault else "")  # fmt: skip

    def stop(self, rule: str = "operator") -> None:
        """Latch a stop and come to a standstill."""
        self.supervisor.latch(rule)
        self.come_to_rest()

    def clear_fault(self) -> None:
        """Release a latched stop, the device's and ours, from the pose that the device now holds."""
        if not self.is_lost:
            self._settle()  # while the device still refuses: it may hold another pose than ours
        self.driver.clear_fault()
        reading = self.driver.read()
        self.supervisor.clear_fault(reading.joint_pos_target, reading.joint_pos)
        self.is_lost = False
        self._recover(reading)
        self.trail.passed(self.supervisor.position)

    def _recover(self, reading: Reading) -> None:
        """Lead an arm that was held back to where it is measured, slowly, so that it does not leap once it is free."""
        measured = np.clip(reading.joint_pos, self.robot.position_low, self.robot.position_high)
        if np.abs(measured - self.supervisor.position).max() > self.supervisor.ages.tracking / 2:
            self.supervisor.recovering = True
            try:
                self._move_straight(measured, RECOVERY_SPEED)
            finally:
                self.supervisor.recovering = False

    @property
    def state(self) -> ArmState:
        """What the arm is doing at present."""
        if self.is_lost or not self._opened:
            return ArmState.DISCONNECTED
        if fault := self.supervisor.fault:
            if not self.supervisor.standing:
                return ArmState.STOPPING
            return ArmState.ESTOP if fault.rule == "operator" else ArmState.FAULT
        if self.supervisor.recovering:
            return ArmState.RECOVERY
        return self._job if not self.supervisor.standing or self._job is ArmState.RUN_POLICY else ArmState.HOLD

    def status(self) -> Row:
        """Time, the latched fault ("" for none) and the counts."""
        fault = self.supervisor.fault
        passed, clipped, rejected = (self.counts[code] for code in Code)
        counts = {"commands": passed + clipped + rejected, "clipped": clipped, "rejected": rejected}
        return {"time": self.driver.now(), "fault": str(fault) if fault else "", "state": str(self.state),
                "scheduling": self.scheduling,
                "counts": {**counts, **self.driver.counters()}}  # fmt: skip

    def read(self) -> Reading:
        """The newest reading, after the supervisor has looked at it."""
        reading = self.driver.read()
        self.supervisor.observe(reading)
        return reading

    def asked_to_end(self) -> bool:
        """Whether somebody wants the job to end, looked up anew; "stop" is latched here."""
        word = self.interrupted()
        self.ended = bool(word)
        if word == "stop":
            self.supervisor.latch("operator")
        return self.ended

    def come_to_rest(self) -> None:
        """Brake to a standstill; then anybody may drive."""
        while not self.supervisor.standing:
            self.hold()
        self.supervisor.release()

    def _settle(self) -> None:
        """Stand, and wait for the joints to arrive; a blocked arm is not waited for."""
        self.come_to_rest()
        for _ in range(round(SETTLE_WAIT / self.robot.servo_dt)):
            if self.hold() < SETTLED:
                break

    def lost(self) -> None:
        """The device went away: latch that. It brakes by itself, and nothing is sent until the fault is cleared."""
        self.supervisor.latch("device")
        self.supervisor.abandon()
        self.is_lost = True
        with contextlib.suppress(RobotError):
            self.driver.brake()

    def _refuse_while_lost(self) -> None:
        if self.is_lost:
            raise NotConnectedError(f"{self.robot.name} went away; look at it, then call clear_fault()")

    def _refuse_while_stopped(self) -> None:
        if fault := self.supervisor.fault:
            raise RobotError(f"the arm is stopped ({fault}); look at it, then call clear_fault()")
