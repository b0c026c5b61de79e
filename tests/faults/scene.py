"""A fault, and the scene that it comes into: an arm that moves, whose commands stream through the supervisor."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from poise.errors import PoiseError, RobotError
from poise.real_robot.control import handle
from poise.real_robot.emulators.launch import Running
from poise.real_robot.robot import Robot

STANDS, STILL = 0.05, 3  # [rad/s] that counts as standing, and servo periods in a row of it
SWING, PERIOD = 0.05, 1.0  # [rad] amplitude and [s] of the motion of the first joint
NOBODY = 0.2  # [s] nobody is quicker to find a cause; a device's own watchdog (0.1 s) has seen it by then
LOOK = 0.002  # [s] between looks at an arm whose line is lost


@dataclass(frozen=True)
class Fault:
    """One fault: how it is made, and what it must end in.

    Any of `told` is right: "" the arm goes on | a rule of the supervisor that latches ("finite", "stale", …) | "device"
    the device's own latched fault, or its line is lost.
    """

    name: str
    told: tuple[str, ...]
    make: Callable[[Scene], None]
    kind: str  # "command", "clock", "device", "line": who has it


class Scene:
    """An arm that moves, inside this process."""

    def __init__(self, robot: Robot, running: Running | None, virtual: bool, say: Callable[[str], dict[str, Any]]):
        """say: a word to the relay of the line, where there is one; what it answers."""
        self.robot, self.running, self.virtual, self.say = robot, running, virtual, say
        self.dt, self.n = robot.spec.servo_dt, robot.spec.num_joints
        self.centre = robot.read().joint_pos_target
        self.tick = 0

    @property
    def loop(self) -> Any:
        return self.robot._link._loop  # type: ignore[union-attr]

    def target(self, joint: int = 0, swing: float = SWING) -> np.ndarray:
        """The next pose of the swing."""
        self.tick += 1
        away = 0.5 * swing * (1.0 - np.cos(2.0 * np.pi * self.tick * self.dt / PERIOD))
        return self.centre + away * (np.arange(self.n) == joint)

    def stream(self, seconds: float, joint: int = 0, swing: float = SWING) -> None:
        """Commands for so long, or until a stop is latched. Raises NotConnectedError where the line is lost."""
        for _ in range(round(seconds / self.dt)):
            self.robot.command(self.target(joint, swing))
            if self.robot.fault:
                return

    def told(self) -> str:
        """What is latched: the rule's name, or ""."""
        fault = self.loop.supervisor.fault
        return fault.rule if fault else ""

    def speed(self) -> float:
        """The fastest joint as it truly is [rad/s]."""
        truth = self.running.side_line.truth() if self.running else self.robot.truth()
        return float(np.abs(truth["joint_vel"]).max())

    def out_of_limit(self) -> int:
        """Commands out of limits, by the device's oracle."""
        if self.running:
            return self.running.side_line.counters()["out_of_limit"]
        return int(self.robot.status()["counts"]["out_of_limit"])

    def altered(self) -> int:
        """Datagrams that the relay has lost, doubled or garbled; it passes on whatever comes from now on."""
        return int(self.say("clear").get("altered", 0))

    def speed_after(self, seconds: float) -> float:
        """The fastest joint [rad/s] once the arm stands, or after so long, braked for as long as there is a line.

        A device on its own clock stands still in time while its line is lost; then there is nothing to see.
        """
        due, still, left = time.monotonic() + seconds, 0, round(seconds / self.dt)
        while (left if self.virtual else time.monotonic() < due) and still < STILL:
            left -= 1
            if not self.loop.is_lost:
                for _ in handle(self.loop, {"do": "hold"}):
                    pass
            elif self.virtual:
                return 0.0
            else:
                time.sleep(LOOK)
            speed = self.speed()
            still = still + 1 if speed < STANDS else 0
        return 0.0 if still else speed

    def clear(self) -> None:
        """Take the cause away, release the stop, and move again."""
        if self.robot.fault and not self.virtual:
            time.sleep(NOBODY)
        self.say("clear")
        if self.running:
            self.running.side_line.ask("clear")
        for attempt in range(20):  # a line that comes back needs a moment
            try:
                self.robot.clear_fault()
                break
            except RobotError:
                if attempt == 19:
                    raise
                time.sleep(0.1)
        home = np.array(self.robot.spec.home)
        if np.abs(self.robot.read().joint_pos_target - home).max() > 4 * SWING:  # each fault leaves it somewhere else
            self.robot.move_to(home, 0.5)
        self.centre, self.tick = self.robot.read().joint_pos_target, 0
        self.stream(0.3)

    def end(self) -> None:
        """Take the cause away, whatever state the arm is in."""
        with contextlib.suppress(PoiseError):
            self.say("clear")
            if self.running:
                self.running.side_line.ask("clear")
