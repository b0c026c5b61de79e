"""Following: an arm led by timed joint targets that somebody streams: a person at a page, a leader arm, a recording.

A waypoint says where the joints shall be at a time on the control loop's clock. Between two waypoints the aim is a
straight line; after the last it stays for `patience` and is then gone: the arm brakes, nothing is extrapolated. So a
sender may be late by some milliseconds unnoticed, and one that dies, hangs or lets go leaves a standing arm. A newer
waypoint takes the place of those that are later than it.

    waypoints → aim (n,) [rad], every servo period → shape_command → supervisor → Driver.write

Legend: n joints.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..action import shape_command
from ..errors import UsageError
from ..robots import RobotSpec
from .states import ArmState
from .supervisor import Code, Verdict

if TYPE_CHECKING:
    from .control_loop import ControlLoop

PATIENCE = 0.1  # [s] that an aim lasts beyond its last waypoint
SHARE = 0.9  # of the arm's velocity and acceleration limits, as in simulation: the supervisor has nothing to clip


class Waypoint(NamedTuple):
    """Where to be, and when."""

    at: float  # [s] on the control loop's clock
    target: Any  # (n,) [rad]; judging it is the supervisor's business
    gripper: float | None  # [unit of RobotSpec.gripper]; None leaves it alone


class Waypoints:
    """The aims that lie ahead; `aim(now)` is the present one."""

    def __init__(self, patience: float = PATIENCE):
        self._points: deque[Waypoint] = deque()  # by time; the first may be past
        self._patience = patience

    def add(self, at: float, target: Any, gripper: float | None, now: float, here: np.ndarray) -> None:
        """One more waypoint; an empty plan begins `now` at `here` (n,)."""
        while self._points and self._points[-1].at >= at:
            self._points.pop()
        if not self._points and at > now:
            self._points.append(Waypoint(now, here, None))
        self._points.append(Waypoint(at, target, gripper))

    def clear(self) -> None:
        """Nothing is aimed for any more."""
        self._points.clear()

    def aim(self, now: float) -> Waypoint | None:
        """Where to be now; None where nobody says so."""
        points = self._points
        while len(points) > 1 and points[1].at <= now:
            points.popleft()
        if not points:
            return None
        first = points[0]
        if len(points) == 1:
            if not now <= first.at + self._patience:
                points.clear()
                return None
            return first
        second = points[1]
        share = min(max((now - first.at) / (second.at - first.at), 0.0), 1.0)
        if not _usable(second.target, np.shape(first.target)):
            return second
        return Waypoint(now, first.target + share * (second.target - first.target), second.gripper)


def follow(loop: ControlLoop, waypoints: Waypoints, period: float, source: str = "") -> Iterator[dict[str, Any]]:
    """Follow `waypoints`, which grow meanwhile, until somebody ends it or a stop is latched: one row each `period` [s].

    A row holds time (of its first reading), joint_pos, joint_vel, joint_effort, gripper_pos, target (aimed for then),
    and, of its end, now, joint_pos_target (sent last), gripper_target, following, state, verdict (the worst) and why,
    fault, device_fault, counts.

    Raises:
        UsageError: no period. RobotError: a stop is latched.
    """
    if not 0.0 < period <= 1.0:
        raise UsageError(f"period is the time between two rows, above 0 s and at most 1 s, not {period}")
    driver, supervisor, robot, dt = loop.driver, loop.supervisor, loop.robot, loop.robot.servo_dt
    max_velocity, max_acceleration = SHARE * np.array(robot.velocity), SHARE * np.array(robot.acceleration)
    loop.begin(ArmState.RUN_REPLAY if source == "replay" else ArmState.RUN_TELEOP)
    waypoints.clear()
    target, gripper, grip, aim, hand = supervisor.position, None, None, None, supervisor.gripper
    position, velocity = supervisor.position, supervisor.velocity
    try:
        while not (loop.ended or supervisor.fault):
            worst = Verdict(Code.PASS, "", "", np.nan, np.nan, position, velocity, supervisor.sent)
            first, aimed = None, target
            for _ in range(max(1, round(period / dt))):
                reading = loop.read()
                first = first or reading
                aim = waypoints.aim(driver.now())
                if aim is None:
                    verdict, target = supervisor.brake(), supervisor.position
                else:
                    before, target, gripper = target, aim.target, _within(aim.gripper, robot, gripper)
                    asked = target
                    if _usable(target, position.shape):
                        goal = target
                        if source == "replay" and _usable(before, position.shape):
                            goal = target + _coasting((target - before) / dt, max_velocity, max_acceleration)
                        asked, velocity = shape_command(position, velocity, goal, max_velocity, max_acceleration, dt)
                    grip = None if gripper is None or hand is None else hand.towards(gripper)
                    verdict = supervisor.check(asked, driver.now(), reading.time, gripper=grip)
                if aim is None:
                    loop.send(reading, None, verdict, judged=False)
                else:
                    loop.send(reading, asked, verdict, grip)
                position = verdict.position
                if aim is None or verdict.code is not Code.PASS:
                    velocity = verdict.velocity
                if verdict.code > worst.code:
                    worst = verdict
                if loop.asked_to_end() or supervisor.fault:
                    break
            loop.trail.passed(supervisor.position)
            assert first is not None
            yield {
                "time": first.time,
                "device_time": first.device_time,
                "joint_pos": first.joint_pos.tolist(),
                "joint_vel": first.joint_vel.tolist(),
                "joint_effort": None if first.joint_effort is None else first.joint_effort.tolist(),
                "gripper_pos": first.gripper_pos,
                "target": np.asarray(aimed if _usable(aimed, position.shape) else position).tolist(),
                "now": driver.now(),
                "joint_pos_target": supervisor.sent.tolist(),
                "gripper_target": gripper,
                "following": aim is not None,
                "state": str(loop.state),
                "verdict": int(worst.code),
                "why": "" if worst.code is Code.PASS else str(worst),
                "fault": str(supervisor.fault or ""),
                "device_fault": first.fault,
                "counts": {code.name.lower(): count for code, count in loop.counts.items()},
            }
    finally:
        loop.over()


def add_points(loop: ControlLoop, waypoints: Waypoints, points: Sequence[Sequence[Any]] | None) -> None:
    """What arrived from outside: [at, target, gripper] each; None for "let go"."""
    if points is None:
        waypoints.clear()
        return
    for at, target, gripper in points:
        try:
            array = np.asarray(target, np.float64)
        except (TypeError, ValueError):
            array = np.array(np.nan)  # no shape that an arm has: rejected where it is judged
        waypoints.add(float(at), array, gripper, loop.driver.now(), loop.supervisor.position)


def _coasting(velocity: np.ndarray, max_velocity: np.ndarray, max_acceleration: np.ndarray) -> np.ndarray:
    """How far an aim (n,) that moves at this velocity would run on if it braked.

    `shape_command` goes to where it can stop, and so lags behind a moving aim by this much. A person does not notice
    and is spared an overshoot at the end; a recording that is to be repeated knows where it goes.
    """
    speed = np.minimum(np.abs(velocity), max_velocity)
    return np.sign(velocity) * speed * speed / (2.0 * max_acceleration)


def _usable(target: Any, shape: tuple[int, ...]) -> bool:
    """Whether one can compute with it; what is not goes to the supervisor as it is."""
    return np.shape(target) == shape and bool(np.isfinite(target).all())


def _within(asked: float | None, robot: RobotSpec, before: float | None) -> float | None:
    """The gripper's command inside its range; what is no number changes nothing."""
    if asked is None or robot.gripper is None or not math.isfinite(asked):
        return before
    low, high = sorted((robot.gripper.closed, robot.gripper.open))
    return min(max(asked, low), high)
