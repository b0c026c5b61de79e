"""The control loop: driver and supervisor, and what they do together, servo period by servo period.

    Driver.read -> observe -> policy (thinking.py) -> joint target -> shaped command -> supervisor -> Driver.write

It runs in the control process (control.py), or inside a test's process on simulated time.

Legend: n joints, A action.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..action import joint_pos_target, shape_command
from ..errors import LimitViolatedError, NotConnectedError, RobotError
from ..observe import add_kinematics, observe
from ..spec import ActionTerm, Spec
from .cameras import View
from .driver import Driver, Reading
from .following import Waypoints
from .route import Trail
from .self_collision import SelfCollision
from .servo_log import ServoLog
from .states import ArmState
from .supervisor import SAME, Code, Supervisor, Verdict
from .thinking import Thinking

SETTLED = 0.01  # [rad/s] slower than this an arm counts as standing
RECOVERY_SPEED = 0.05  # of the arm's limits
MOST_SILENT = 1.0  # [s] without an action, after which an episode is over
SETTLE_WAIT = 1.0  # [s] for that, after a move
Row = dict[str, Any]


class ControlLoop:
    """Driver and supervisor, and what they do together. Nobody else writes to the driver."""

    def __init__(self, driver: Driver):
        self.driver, self.robot = driver, driver.robot
        self.supervisor = Supervisor(driver.robot, collision=SelfCollision.of(driver.robot))
        self._trail = Trail(driver.robot)
        self.counts = dict.fromkeys(Code, 0)  # verdicts on commands; what braking sends is not judged
        self.waypoints = Waypoints()  # what `follow` goes by
        self.log: ServoLog | None = None
        self.cameras = View({})
        self.interrupted: Callable[[], str] = lambda: ""  # asked every tick: "end" this job, "stop" for good, or ""
        self._ended = self.is_lost = self._opened = False
        self._job = ArmState.HOLD
        self.scheduling = "ordinary" if driver.realtime else "simulated time"

    def open(self) -> None:
        """Connect, and hold the present pose. Raises NotConnectedError, LimitViolatedError."""
        self.driver.open()
        reading = self.driver.read()
        self.supervisor.start(reading.joint_pos_target, reading.joint_pos)
        self._opened = True
        self._trail.begin(self.supervisor.position)

    def episode(self, thinking: Thinking, goal: Mapping[str, np.ndarray], steps: int) -> Iterator[Row]:
        """Run a policy for that many control steps: one row a step, then the last observation.

        Once a step, at the first servo period in which there is an action for it, that makes a new joint target; where
        none comes the target stays, which brings the arm to rest there. Ends early where a stop is latched or somebody
        interrupts; the arm comes to a standstill in any case.
        """
        driver, supervisor, spec, dt = self.driver, self.supervisor, thinking.spec, self.robot.servo_dt
        term, size = spec.actions[0], sum(t.size for t in spec.actions)
        max_velocity, max_acceleration = np.array(term.max_velocity), np.array(term.max_acceleration)
        self._refuse_while_stopped()
        self._job = ArmState.RUN_POLICY
        thinking.begin()
        target, position, velocity = supervisor.position, supervisor.position, supervisor.velocity
        silent = 0.0  # [s] without an action
        try:
            for _ in range(steps):
                worst = Verdict(Code.PASS, "", "", np.nan, np.nan, position, velocity, supervisor.sent)
                asked, action = np.full(size, np.nan), np.zeros(size)  # (A,); nobody has asked for anything yet
                begun, last_target = self._read(), target
                if why := self.cameras.trouble(spec.images):
                    supervisor.latch("camera", why)
                    break
                obs, frames = self._observe(spec, begun, target, goal)
                thinking.see(obs, begun.time)
                has_acted = False
                for tick in range(round(spec.control_dt / dt)):
                    reading = begun if tick == 0 else self._read()
                    if not has_acted and (row := thinking.row(begun.time)) is not None:
                        has_acted, asked = True, row.action
                        action = np.where(np.isfinite(asked), np.clip(asked, -1.0, 1.0), np.nan)  # inf is not "much"
                        target = joint_pos_target(term, action, reading.joint_pos, last_target)
                    silent = 0.0 if has_acted else silent + dt
                    asked_now, verdict = supervisor.position, self._refused(thinking.trouble(), silent)
                    if verdict is None:
                        position, velocity = shape_command(position, velocity, target, max_velocity, max_acceleration,
                                                           dt)  # fmt: skip
                        asked_now, verdict = position, supervisor.check(position, driver.now(), reading.time)
                    self.send(reading, asked_now, verdict)
                    if verdict.code is not Code.PASS:  # go on from what was sent, not from what was asked
                        position, velocity = verdict.position, verdict.velocity
                    if verdict.code > worst.code:
                        worst = verdict
                    if supervisor.fault or self._interrupted():
                        break
                self._trail.passed(supervisor.position)
                executed = self._executed(term, action, worst.code if has_acted else Code.REJECT, begun, last_target)
                yield {
                    "obs": {group: x.tolist() for group, x in obs.items() if group not in frames},
                    "frames": frames,
                    "actions_asked": asked.tolist(),
                    "actions": executed.tolist(),
                    "joint_pos_target": supervisor.sent.tolist(),
                    "verdict": int(worst.code),
                    "why": "" if worst.code is Code.PASS else str(worst),
                    "t_mono": begun.time,
                    "t_device": begun.device_time,
                    "state": {name: x.tolist() for name, x in self._state(reading).items()},
                }
                if supervisor.fault or self._ended:
                    break
            end = np.where(np.isfinite(target), target, supervisor.position)
            obs, frames = self._observe(spec, driver.read(), end, goal)
            yield {"last_obs": {g: x.tolist() for g, x in obs.items() if g not in frames}, "frames": frames}
        finally:
            self._job = ArmState.HOLD
            self._come_to_rest()

    def _refused(self, trouble: str, silent: float) -> Verdict | None:
        """The braking command where the policy's process died, hangs, or has had nothing to say for too long."""
        supervisor = self.supervisor
        if trouble == "died" or silent > MOST_SILENT:
            supervisor.latch("process" if trouble else "policy", trouble or "late", silent, MOST_SILENT)
        return supervisor.refuse("policy") if trouble or supervisor.fault else None

    def move_to(self, joint_pos: np.ndarray, speed: float) -> None:
        """Move to (n,) [rad] in a straight line of joint space, or several, at a fraction `speed` of the arm's limits.

        Raises:
            LimitViolatedError: the pose is out of limits, or no way leads there inside the workspace.
        """
        supervisor, robot = self.supervisor, self.robot
        self._refuse_while_stopped()
        for name, q, low, high in zip(robot.joints, joint_pos, robot.position_low, robot.position_high, strict=True):
            if not low <= q <= high:
                raise LimitViolatedError(f"{name}: asked to move to {q:.5g} rad, outside [{low:.5g}, {high:.5g}]")
        self._ended = False
        self._come_to_rest()
        for pose in self._trail.route(supervisor.position, joint_pos):
            self._move_straight(pose, speed)
        self._settle()
        self._trail.begin(supervisor.position)

    def _move_straight(self, joint_pos: np.ndarray, speed: float) -> None:
        """One line of joint space: `shape_command` moves the share of the way that is done, from 0 to 1."""
        driver, supervisor, robot = self.driver, self.supervisor, self.robot
        self._job = ArmState.RUN_MOVE
        start, way, done, rate = supervisor.position, joint_pos - supervisor.position, np.zeros(1), np.zeros(1)
        if np.abs(way).max() < SAME:
            return
        max_rate = np.array([speed / np.max(np.abs(way) / robot.velocity)])  # [1/s]
        max_change = np.array([speed / np.max(np.abs(way) / robot.acceleration)])  # [1/s^2]
        while 1.0 - done[0] > 1e-9 and not self._ended:
            reading = self._read()
            done, rate = shape_command(done, rate, np.ones(1), max_rate, max_change, robot.servo_dt)
            asked = start + done * way
            verdict = supervisor.check(asked, driver.now(), reading.time, wall=0.0)
            self.send(reading, asked, verdict)
            if verdict.code is Code.REJECT:
                self._come_to_rest()
                raise LimitViolatedError(f"the way to that pose was stopped: {supervisor.fault or verdict}")
            self._interrupted()
        self._come_to_rest()

    def command(self, target: Any, at: float | None, source: str = "") -> Row:
        """One servo period of somebody's own commands: verdict and what was sent."""
        self._refuse_while_lost()
        self._job = ArmState.RUN_REPLAY if source == "replay" else ArmState.RUN_TELEOP
        reading = self._read()
        verdict = self.supervisor.check(target, self.driver.now(), reading.time, at, source=source)
        self.send(reading, target, verdict)
        self._trail.passed(verdict.position)
        return {"verdict": [int(verdict.code), *verdict[1:5]],
                **{name: getattr(verdict, name).tolist() for name in ("position", "velocity", "sent")}}  # fmt: skip

    def hold(self) -> float:
        """One servo period of braking or standing; the fastest measured joint [rad/s]."""
        self._refuse_while_lost()
        reading = self._read()
        self.send(reading, None, self.supervisor.brake(), judged=False)
        return float(np.abs(reading.joint_vel).max())

    def send(self, reading: Reading, asked: Any, verdict: Verdict, gripper: float | None = None,
             judged: bool = True) -> None:  # fmt: skip
        """Send what the verdict says, count it where it was judged, and log the period for whoever reads along."""
        self.driver.write(verdict.sent, gripper)
        if judged:
            self.counts[verdict.code] += 1
        if self.log is not None:
            fault = self.supervisor.fault
            self.log.write(reading, asked, verdict.sent, gripper, verdict.code, verdict.rule,
                           fault.rule if fault else "")  # fmt: skip

    def stop(self, rule: str = "operator") -> None:
        """Latch a stop and come to a standstill."""
        self.supervisor.latch(rule)
        self._come_to_rest()

    def clear_fault(self) -> None:
        """Release a latched stop, the device's and ours, from the pose that the device now holds."""
        if not self.is_lost:
            self._settle()  # while the device still refuses: it may hold another pose than ours
        self.driver.clear_fault()
        reading = self.driver.read()
        self.supervisor.clear_fault(reading.joint_pos_target, reading.joint_pos)
        self.is_lost = False
        self._recover(reading)
        self._trail.passed(self.supervisor.position)

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

    def _read(self) -> Reading:
        """The newest reading, after the supervisor has looked at it."""
        reading = self.driver.read()
        self.supervisor.observe(reading)
        return reading

    def _observe(self, spec: Spec, reading: Reading, target: np.ndarray, goal: Mapping[str, np.ndarray]):
        readings = {
            "joint_pos": reading.joint_pos,
            "joint_vel": reading.joint_vel,
            "target_error": target - reading.joint_pos,
            **goal,
        }
        frames, numbers = self.cameras.newest() if spec.images else ({}, {})
        return observe(spec, add_kinematics(readings, self.robot), frames), numbers

    def _executed(self, term: ActionTerm, action: np.ndarray, code: Code, begun: Reading, last_target: np.ndarray):
        """The action (A,) in [-1, 1] that was carried out: where the supervisor stepped in, the one nearest to it."""
        if code is Code.PASS:
            return action
        reference = {"measured": begun.joint_pos, "last_target": last_target, "home": np.array(term.home)}
        steps = (self.supervisor.position - reference[term.reference]) / np.array(term.scale)
        return np.clip(steps, -1.0, 1.0)

    def _state(self, reading: Reading) -> dict[str, np.ndarray]:
        """Joint positions and velocities (n,) as they truly are, where the device knows that, else as measured."""
        return self.driver.truth() or {"joint_pos": reading.joint_pos, "joint_vel": reading.joint_vel}

    def _interrupted(self) -> bool:
        word = self.interrupted()
        self._ended = bool(word)
        if word == "stop":
            self.supervisor.latch("operator")
        return self._ended

    def _come_to_rest(self) -> None:
        while not self.supervisor.standing:
            self.hold()
        self.supervisor.release()

    def _settle(self) -> None:
        """Stand, and wait for the joints to arrive; a blocked arm is not waited for."""
        self._come_to_rest()
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
