"""The twin: an emulated arm behind the Driver protocol, without a line or a protocol between.

A delay of commands in milliseconds lies before the arm of emulators/arm.py, and the oracle judges what arrives, as a
vendor's control box does: `counters()["out_of_limit"]`.

Simulated time: `write` advances the clock by servo_dt and returns; with `realtime` it waits for the wall clock.
MuJoCo is imported when the twin is opened, not before.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..errors import NotConnectedError, UsageError, unknown_name
from ..robots import ROBOTS, RobotSpec
from .driver import Reading
from .emulators import arm
from .emulators.arm import PHYSICS_DT, ArmOptions, EmulatedArm, moves_gripper, task_at
from .emulators.oracle import Oracle
from .supervisor import down_to


@dataclass(frozen=True)
class TwinOptions(ArmOptions):
    """How this arm differs from the model, and how it is reached."""

    latency: float = 0.0  # [s] from `write` to the joints' controllers, in whole milliseconds
    realtime: float = 0  # 1: keep pace with the wall clock


RANGES = {"latency": (0.0, 0.5), **arm.RANGES, "realtime": (0, 1)}


def options_from(texts: Mapping[str, str]) -> TwinOptions:
    """The options of an address.

    Raises:
        UsageError: an unknown option, something that is no number, or a number out of range.
    """
    options = arm.options_from(texts, TwinOptions, RANGES, "twin")
    if (ms := options.latency * 1000) and abs(ms - round(ms)) > 1e-6:
        raise UsageError(f"twin option latency={texts['latency']}: expected whole milliseconds, as in latency=0.04")
    return options


def in_scene(robot: RobotSpec, name: str) -> RobotSpec:
    """The arm as it stands in a task's scene: without a gripper where it has rigid fingers, and down to its table."""
    if (task := task_at(name, robot)) is None:
        return robot
    lowest = getattr(task, "lowest", None)
    found = robot if moves_gripper(task) else replace(robot, gripper=None)
    return found if lowest is None else down_to(found, lowest)


class Twin:
    """An emulated arm. Before anybody connects, its control box has held it at home for a while."""

    def __init__(self, robot: RobotSpec, options: TwinOptions | None = None):
        if robot.name not in ROBOTS:
            raise unknown_name("twin", robot.name, ROBOTS)
        self.options = options or TwinOptions()
        self._model, self.robot = robot, in_scene(robot, self.options.task)
        self.realtime = bool(self.options.realtime)
        self._arm: EmulatedArm | None = None

    # ---- Driver ------------------------------------------------------------------------------

    def open(self) -> None:
        self._arm = EmulatedArm(self._model, self.options)
        home = np.array(self.robot.home)
        per_tick = round(self.robot.servo_dt / PHYSICS_DT)
        ticks, late = divmod(round(self.options.latency / PHYSICS_DT), per_tick)
        self._late = late * PHYSICS_DT
        # oldest first; [1] takes over `late` seconds into a servo period
        self._underway = deque([home] * (ticks + 2), maxlen=ticks + 2)
        self._oracle = Oracle(self.robot, home)
        self._ticks, self._due = 0, time.monotonic()

    def now(self) -> float:
        return time.monotonic() if self.realtime else self._ticks * self.robot.servo_dt

    def read(self) -> Reading:
        arm = self._open_arm()
        joint_pos, joint_vel = arm.measure()
        stamp = self._ticks * self.robot.servo_dt
        return Reading(self.now(), stamp, joint_pos, joint_vel, self._underway[-1].copy(), arm.gripper_pos,
                       arm.joint_effort)  # fmt: skip

    def write(self, joint_pos_target: np.ndarray, gripper_target: float | None = None) -> None:
        arm = self._open_arm()
        usable = self._oracle.arrived(joint_pos_target)
        if gripper_target is not None and self._oracle.gripper_arrived(gripper_target):
            arm.command_gripper(gripper_target)
        self._follow(np.array(joint_pos_target, np.float64) if usable else self._underway[-1])

    def brake(self) -> None:
        """The control box's own ramp to standstill, under the acceleration limit from the last command."""
        self._open_arm()
        for joint_pos in self._oracle.braking():
            self._follow(joint_pos)
        self._oracle.restart(self._underway[-1])

    def clear_fault(self) -> None:
        """The twin has no fault of its own to release."""

    def truth(self) -> dict[str, np.ndarray]:
        return self._open_arm().truth()

    def arrange(self, qpos: np.ndarray) -> None:
        """Put the objects of its scene where a state (nq,) of its task has them. Raises UsageError without a scene."""
        self._open_arm().arrange(qpos)

    def counters(self) -> dict[str, int]:
        self._open_arm()
        return self._oracle.counters()

    def close(self) -> None:
        if self._arm is not None:
            self.brake()
            self._arm = None

    # ---- the inside --------------------------------------------------------------------------

    def _open_arm(self) -> EmulatedArm:
        if self._arm is None:
            raise NotConnectedError(f"twin:{self.robot.name} is not open; call open() first")
        return self._arm

    def _follow(self, joint_pos: np.ndarray) -> None:
        """One servo period, at whose beginning this command sets out."""
        arm, dt = self._open_arm(), self.robot.servo_dt
        self._underway.append(joint_pos)
        if self._late:
            arm.command(self._underway[0])
            arm.advance(self._late)
        arm.command(self._underway[1])
        arm.advance(dt - self._late)
        self._ticks += 1
        if self.realtime:
            self._due = max(self._due + dt, time.monotonic() - dt)
            time.sleep(max(0.0, self._due - time.monotonic()))
