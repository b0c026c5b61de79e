"""The supervisor: every command passes here before it reaches a driver. Pure: no clock, no device, no thread.

The rules, in order, for a command (n,) [rad] that asks where the joints shall be one servo period later:

    stopped       a latched stop: brake until somebody calls clear_fault
    lease         one source drives at a time
    shape         (n,) of float32 or float64
    finite        no NaN, no infinity
    stale         the reading and the command are recent, and commands do not come twice or out of order
    start         the first command lies near the pose that the arm holds
    position      inside the joint range, and slow enough to stop inside it (braking distance), or slower (slowing.py)
    velocity      |v| <= v_max
    acceleration  |v - v_last| <= a_max dt
    tool_speed    the tool is no faster than the arm's maker or whoever works beside it allows
    workspace     the tool, here and on the whole way to standstill if we had to brake from here, stays in its box
    collision     the links, on the same way, keep apart from one another
    gripper_range, gripper_velocity   of a gripper's command beside them (gripper_guard.py)

Position, velocity and acceleration CLIP the command to the nearest that satisfies all three at once, and the gripper's
rules its half; the others REJECT it and send a braking command instead. Rejections that tell of a broken source latch a
stop, and so does what `observe` finds in a reading: a fault of the device's own, joints that do not follow, torque at
its limit.

Why what goes out is always legal: the state (q, v) sent last satisfies an invariant, namely that braking at a_max
from it stays inside the joint range and inside the box. A command is let through only if the state after it
satisfies the invariant again; otherwise the braking command is sent, which does. With s = a_max dt the distance
that braking from speed v covers in steps of dt, the first step at v included, is with k = floor(v / s)

    g(v) = dt [(k + 1) v - s k (k + 1) / 2],                                                                  (1)

piecewise linear and increasing; its inverse is the largest speed at which a limit may be approached. It is exact
in discrete time: g(v - s) = g(v) - v dt, so one step of braking leaves just enough room for the next. Where a maker
limits the speed near a range's end further, slowing.py says how far, and why braking keeps to it.

Jerk comes last. What the driver is sent is the mean of the last m commands, with m the least for which

    |j| <= 2 a_max / (m dt) <= j_max.                                                                         (2)

The range of a joint, its speed and its acceleration are convex limits, so a mean keeps them if its terms do, and
nothing of the above has to know of it. It comes (m - 1) / 2 periods later; m is 1, and the mean the command itself,
where two accelerations apart by 2 a_max within one period are no jerk too many, as on the FR3.

This is not a safety-rated system: a hardware stop belongs within reach.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from ..errors import LimitViolatedError, RobotError
from ..robots import RobotSpec
from .driver import Reading
from .gripper_guard import NAME as GRIPPER
from .gripper_guard import GripperGuard, is_number
from .moving_mean import MovingMean, jerk_periods
from .self_collision import SelfCollision
from .slowing import Slowing
from .stopping import StoppingWay
from .tool_box import ToolBox

ROUNDED = 1e-6  # [rad] that a pose at the end of a joint's range may have been rounded beyond it, as to float32
SAME = 1e-9  # [rad] a command moved by less counts as passed unchanged
INSIDE = 1.0 - 1e-9  # own limits lie this factor inside the published ones, for the rounding of sums
WALL = 0.02  # [m] that commands keep from the box's walls; the way back from there may use them up

# Rejections in a row until a stop is latched. A source that sends garbage is broken at once; a late packet or a
# touch of the box's wall is not.
LATCH_AFTER = {"policy": 100, "lease": 1000, "shape": 1, "finite": 1, "stale": 10, "start": 200, "tool_speed": 100,
               "workspace": 20, "collision": 20}  # fmt: skip


class Code(IntEnum):
    """The verdict on a command; the greater the worse."""

    PASS = 0
    CLIP = 1
    REJECT = 2


class Verdict(NamedTuple):
    """The verdict on one command, why, and what to send."""

    code: Code
    rule: str  # the rule that clipped or rejected; "" for PASS
    joint: str  # the joint concerned, or the axis of the box; "" where there is none
    asked: float  # the value that broke the rule, in the rule's unit
    limit: float  # the limit that it broke
    position: np.ndarray  # (n,) the command as it was let through [rad]
    velocity: np.ndarray  # (n,) its velocity [rad/s]
    sent: np.ndarray  # (n,) what to send: the same, under the limit of jerk [rad]
    gripper: float | None = None  # what to send to the gripper [its unit]; None leaves it alone

    def __str__(self) -> str:
        if self.code is Code.PASS:
            return "PASS"
        where = f" {self.joint}" if self.joint else ""
        return f"{self.code.name} {self.rule}{where}: asked {self.asked:.6g}, limit {self.limit:.6g}"


@dataclass(frozen=True)
class Ages:
    """How old things may be, and how far apart."""

    reading: float = 0.05  # [s]
    command: float = 0.1  # [s]
    lease: float = 0.5  # [s] without a command until another source may drive
    start: float = 0.05  # [rad] from the held pose to the first command
    held: float = 0.5  # [rad] from the measured to the held pose when starting
    recovery: float = 1.5  # [rad] the same when a person has released a stop; the arm is then led back
    tracking: float = 0.35  # [rad] that joints may be behind the commands, beside
    lag: float = 0.15  # [s] of their velocity, and
    patience: float = 0.1  # [s] for so long
    effort: float = 0.98  # of the torque limit, that a joint may take up
    strain: float = 1.0  # [s] for so long


class Supervisor:
    """Judges the stream of commands to one arm."""

    def __init__(self, robot: RobotSpec, ages: Ages | None = None, tool_speed: float | None = None,
                 collision: SelfCollision | None = None):  # fmt: skip
        """
        Args:
            tool_speed: of the tool centre point [m/s]; by default the arm's.
            collision: distances between the arm's links; None leaves that rule out.
        """
        self.robot, self.ages = robot, ages or Ages()
        self.position = np.array(robot.home)  # (n,) sent last [rad]
        self.velocity = np.zeros(robot.num_joints)  # (n,) of what was sent last [rad/s]
        self.fault: Verdict | None = None  # the verdict that latched the stop
        self._dt = robot.servo_dt
        self._low, self._high = _inside(robot.position_low, robot.position_high)
        self._v_max = np.array(robot.velocity) * INSIDE
        self._a_max = np.array(robot.acceleration) * INSIDE
        self._step = self._a_max * self._dt
        self._slowing = Slowing(robot)
        self._mean = MovingMean(self.position, jerk_periods(robot))
        self._tool_box = ToolBox(robot, self._step, self._mean.length, tool_speed or robot.tool_speed)
        self._collision = collision
        self.gripper = None if robot.gripper is None else GripperGuard(robot.gripper, robot.servo_dt)
        self._rejected = {rule: 0 for rule in LATCH_AFTER}
        self._started, self._last_at = False, -np.inf
        self.release()
        self.recovering = False  # the arm is being led back to where it is measured: joints are behind, for a while
        self._behind = self._strained = 0  # servo periods in a row

    # ---- life --------------------------------------------------------------------------------

    def start(self, held: np.ndarray, measured: np.ndarray, apart: float | None = None) -> None:
        """Begin at standstill from the pose (n,) that the device holds.

        apart: how far from it the joints may be measured [rad]; by default what the ages say.

        Raises:
            LimitViolatedError: the pose is out of limits or not where the arm is: no legal command exists.
        """
        apart = self.ages.held if apart is None else apart
        limits = zip(self.robot.position_low, self.robot.position_high, strict=True)
        for name, q, m, (low, high) in zip(self.robot.joints, held, measured, limits, strict=True):
            if not low - ROUNDED <= q <= high + ROUNDED:
                raise LimitViolatedError(f"{name} stands at {q:.5g} rad, outside [{low:.5g}, {high:.5g}]; "
                                         "move it back by hand")  # fmt: skip
            if not abs(m - q) <= apart:
                raise LimitViolatedError(f"{name} is measured at {m:.5g} rad while the device holds {q:.5g} rad; "
                                         f"they may differ by {apart} rad")  # fmt: skip
        self.position, self.velocity = np.clip(held, self._low, self._high), np.zeros(len(held))
        self._mean.fill(self.position)
        still = StoppingWay.standing(len(self.position))
        if outside := self._tool_box.outside(self.position, still):
            axis, value, limit = outside
            raise LimitViolatedError(f"the tool stands at {axis} = {value:.4g} m, beyond the workspace's "
                                     f"{limit:.4g} m; move it back by hand")  # fmt: skip
        if self._collision and (touching := self._collision.touching(held, held, still, apart=0.0)):
            pair, distance, _ = touching
            raise LimitViolatedError(f"{pair} overlap by {-distance:.2g} m; move the arm apart by hand")
        self._started, self._last_at = False, -np.inf
        self._behind = self._strained = 0
        self.release()
        self._rejected = dict.fromkeys(self._rejected, 0)
        if self.gripper is not None:
            self.gripper.begin()

    def latch(self, rule: str, joint: str = "", asked: float = np.nan, limit: float = np.nan) -> None:
        """Stop, and stay stopped until `clear_fault`; a fault that is latched already stays."""
        if self.fault is None:
            self.fault = Verdict(Code.REJECT, rule, joint, asked, limit, self.position, self.velocity, self.sent)

    def release(self) -> None:
        """Whoever drove drives no longer; anybody may."""
        self._holder, self._held_since = "", -np.inf

    def abandon(self) -> None:
        """Nothing more is sent: the device has gone and brakes by itself."""
        self.velocity = np.zeros_like(self.velocity)
        self.position = self.sent
        self._mean.fill(self.position)

    def clear_fault(self, held: np.ndarray, measured: np.ndarray) -> None:
        """Release a latched stop: what a person decides. Raises RobotError while the arm still moves."""
        if not self.standing:
            raise RobotError("the arm is still braking; clear the fault once it stands")
        self.start(held, measured, self.ages.recovery)
        self.fault = None

    @property
    def standing(self) -> bool:
        """Whether what was sent last is a standstill."""
        return not self.velocity.any() and self._mean.rests

    @property
    def sent(self) -> np.ndarray:
        """(n,) what was sent last [rad]."""
        return self._mean.value

    # ---- judging -----------------------------------------------------------------------------

    def observe(self, reading: Reading) -> None:
        """Latch a stop for what a reading shows: a fault of the device's own, joints behind, torque at its limit."""
        if self.gripper is not None:
            self.gripper.observe(reading.gripper_pos)
        if reading.fault:
            self.latch("device", reading.fault)
        if self.recovering:
            return
        behind = np.abs(self.sent - reading.joint_pos) - self.ages.lag * np.abs(self.velocity)
        worst = int(np.argmax(behind))
        self._behind = self._behind + 1 if not behind[worst] <= self.ages.tracking else 0
        if self._behind * self._dt > self.ages.patience:
            self.latch("tracking", self.robot.joints[worst], float(behind[worst]), self.ages.tracking)
        if reading.joint_effort is not None:
            share = np.abs(reading.joint_effort) / self.robot.effort
            worst = int(np.argmax(share))
            self._strained = self._strained + 1 if share[worst] >= self.ages.effort else 0
            if self._strained * self._dt > self.ages.strain:
                limit = self.robot.effort[worst]
                self.latch("effort", self.robot.joints[worst], float(share[worst]) * limit, limit)

    def check(self, asked: Any, now: float, reading_time: float, at: float | None = None, wall: float = WALL,
              source: str = "", gripper: Any = None) -> Verdict:  # fmt: skip
        """The verdict on one command; what it says to send counts as sent.

        Args:
            asked: (n,) joint positions one servo period from now [rad].
            now, reading_time: the present, and when the newest reading was taken [s].
            at: when the command was made [s]; commands that are repeated or out of order carry no later one.
            wall: distance that the tool keeps from the walls of its box [m]; moves away from a wall take 0.
            source: who asks; while one drives, others are turned away.
            gripper: its command [unit of RobotSpec.gripper]; None leaves it alone.
        """
        if self.fault is not None:
            return self._reject("stopped", "", np.nan, np.nan)
        if source != self._holder and now - self._held_since <= self.ages.lease:
            return self._reject("lease", self._holder, np.nan, np.nan)
        if not (type(asked) is np.ndarray and asked.shape == self.position.shape and asked.dtype.char in "fd"):
            return self._reject("shape", "", float(np.size(asked)) if _countable(asked) else np.nan, len(self.position))
        if not np.isfinite(asked).all():
            worst = int(np.argmin(np.isfinite(asked)))
            return self._reject("finite", self.robot.joints[worst], float(asked[worst]), np.nan)
        if gripper is not None and (broken := self._not_for_gripper(gripper)):
            return self._reject(broken, GRIPPER, float(gripper) if is_number(gripper) else np.nan, np.nan)
        if not -self._dt <= now - reading_time <= self.ages.reading:
            return self._reject("stale", "reading", now - reading_time, self.ages.reading)
        if at is not None:
            if not -self._dt <= now - at <= self.ages.command:
                return self._reject("stale", "command", now - at, self.ages.command)
            if not at > self._last_at:
                return self._reject("stale", "order", at, self._last_at)
            self._last_at = at
        if not self._started:
            away = np.abs(asked - self.position)
            worst = int(np.argmax(away))
            if not away[worst] <= self.ages.start:
                return self._reject("start", self.robot.joints[worst], float(away[worst]), self.ages.start)

        position, velocity, lowest, highest = self._nearest(asked)
        if fast := self._tool_box.too_fast(self.position, position, velocity):
            return self._reject("tool_speed", "", *fast)
        way = StoppingWay(velocity, self._step, self._dt)
        if outside := self._tool_box.outside(position, way, wall):
            return self._reject("workspace", *outside)
        if self._collision and (touching := self._collision.touching(self.position, position, way)):
            return self._reject("collision", *touching)
        self._started, self._holder, self._held_since = True, source, now
        code, why = Code.PASS, ("", "", np.nan, np.nan)
        if (np.abs(position - asked) > SAME).any():
            code, why = Code.CLIP, self._why(asked, position, lowest, highest)
        if gripper is not None and self.gripper is not None:
            grip = self.gripper.judge(gripper)
            self.gripper.sent = gripper = grip.sent
            if grip.rule and code is Code.PASS:
                code, why = Code.CLIP, (grip.rule, GRIPPER, grip.asked, grip.limit)
        self._sent(position, velocity)
        self._rejected = dict.fromkeys(self._rejected, 0)
        return Verdict(code, *why, position, velocity, self.sent, gripper)

    def _not_for_gripper(self, asked: Any) -> str:
        """The rule that a gripper's command breaks before anything is compared; "" none."""
        if self.gripper is None or not is_number(asked):
            return "shape"
        return "" if np.isfinite(asked) else "finite"

    def refuse(self, rule: str) -> Verdict:
        """Brake for lack of a command, or of trust in where it would come from; in a row, that latches a stop."""
        return self._reject(rule, "", np.nan, np.nan)

    def brake(self) -> Verdict:
        """The next command of the way to standstill, and then of holding. It needs no permission."""
        velocity = np.sign(self.velocity) * np.maximum(np.abs(self.velocity) - self._step, 0.0)
        self._sent(self.position + velocity * self._dt, velocity)
        return Verdict(Code.PASS, "", "", np.nan, np.nan, self.position, self.velocity, self.sent)

    def _sent(self, position: np.ndarray, velocity: np.ndarray) -> None:
        self.position, self.velocity = position, velocity
        self._mean.add(position)
        position.setflags(write=False)  # shared with the driver and the recording
        velocity.setflags(write=False)

    def _nearest(self, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The legal command nearest to what is asked, its velocity, and the velocities (n,) that were legal."""
        q, v, dt = self.position, self.velocity, self._dt
        goal = np.minimum(np.maximum(asked, self._low), self._high)
        lowest = np.maximum(np.maximum(-self._v_max, v - self._step), -self._approach(q - self._low))
        highest = np.minimum(np.minimum(self._v_max, v + self._step), self._approach(self._high - q))
        slowest, fastest = self._slowing.bounds(q)
        lowest, highest = np.maximum(lowest, slowest * INSIDE), np.minimum(highest, fastest * INSIDE)
        error = goal - q
        wanted = error / dt
        velocity = np.minimum(np.maximum(wanted, lowest), highest)
        short = np.abs(wanted - velocity) > SAME / dt
        if short.any():  # out of reach in one period: go there as to a resting target, lest the arm swings about it
            resting = np.sign(error) * self._approach(np.abs(error))
            velocity = np.minimum(np.maximum(np.where(short, resting, wanted), lowest), highest)
        return np.where(velocity == wanted, goal, q + velocity * dt), velocity, lowest, highest

    def _approach(self, distance: np.ndarray) -> np.ndarray:
        """The largest speed (n,) from which braking stops within `distance` (n,): the inverse of (1)."""
        steps = distance / (self._dt * self._step)
        k = np.floor(np.sqrt(np.maximum(0.25 + 2.0 * steps, 0.25)) - 0.5)
        return self._step * (steps + 0.5 * k * (k + 1.0)) / (k + 1.0)

    def _why(self, asked, position, lowest, highest) -> tuple[str, str, float, float]:
        """Rule, joint, asked value and limit of the joint that was clipped most."""
        i = int(np.argmax(np.abs(position - asked)))
        joint, a, q, v = self.robot.joints[i], float(asked[i]), self.position[i], self.velocity[i]
        if not self._low[i] <= a <= self._high[i]:
            return "position", joint, a, float(self._low[i] if a < self._low[i] else self._high[i])
        speed = (a - q) / self._dt
        up = speed > highest[i]
        bound = float(highest[i] if up else lowest[i])
        if abs(abs(bound) - self._v_max[i]) <= SAME:
            return "velocity", joint, float(speed), bound
        if abs(abs(bound - v) - self._step[i]) <= SAME:
            return "acceleration", joint, float((speed - v) / self._dt), float((bound - v) / self._dt)
        return "position", joint, float(speed), bound  # the braking distance: a speed, too high this near the end

    def _reject(self, rule: str, joint: str, asked: float, limit: float) -> Verdict:
        sent = self.brake()
        verdict = Verdict(Code.REJECT, rule, joint, asked, limit, sent.position, sent.velocity, sent.sent)
        if rule in self._rejected:
            self._rejected[rule] += 1
            if self._rejected[rule] >= LATCH_AFTER[rule]:
                self.fault = verdict
        return verdict


def down_to(robot: RobotSpec, lowest: float) -> RobotSpec:
    """The arm with a box in which commands may bring the tool down to `lowest` [m, base frame], and no further."""
    x, y, _ = robot.workspace_low
    return replace(robot, workspace_low=(x, y, lowest - WALL))


def lowest_of(robot: RobotSpec) -> float:
    """How low commands may bring the tool [m, base frame]."""
    return robot.workspace_low[2] + WALL


def _inside(low: tuple[float, ...], high: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    margin = (np.array(high) - np.array(low)) * (1.0 - INSIDE)
    return np.array(low) + margin, np.array(high) - margin


def _countable(value: Any) -> bool:
    return isinstance(value, np.ndarray | list | tuple | float | int)
