"""Emulator: what the emulators of all protocols share. One arm, one oracle, one clock, faults to order.

A protocol's emulator subclasses it, opens its ports in `open`, serves them in `serve`, and names its faults in FAULTS.
On a wall clock a thread advances the arm; on a virtual clock the arm advances by one servo period with every command
that arrives, and stands still in between, so that a run is the same every time, however loaded the machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ...errors import RobotError
from ...robots import RobotSpec
from ..realtime import schedule
from .arm import PHYSICS_DT, ArmOptions, EmulatedArm
from .oracle import Oracle
from .side_line import SideServer

WATCHDOG = 0.1  # [s] without a command until the device brakes by itself, where the vendor names no other


class Emulator:
    """A device of one protocol, in a process of its own. All state is touched under `lock`."""

    FAULTS: ClassVar[Mapping[str, str]] = {}  # name: what it does

    def __init__(self, robot: RobotSpec, options: ArmOptions | None = None, virtual: bool = False, tick: float = 0.0):
        self.robot, self.virtual, self.dt = robot, virtual, robot.servo_dt
        self.arm = EmulatedArm(robot, options)
        self.held = np.array(robot.home)  # (n,) the pose that the joints' controllers follow [rad]
        self.oracle = Oracle(robot, self.held, tick=tick)
        self.lock = threading.RLock()
        self.ended = threading.Event()
        self._until: dict[str, float] = {}  # end of each fault of the line, on the monotonic clock
        self._ramp: list[np.ndarray] = []  # poses still to come of the device's own way to standstill

    # ---- for the protocol --------------------------------------------------------------------

    @property
    def address(self) -> str:
        """What a driver is given, without the side line."""
        raise NotImplementedError

    def open(self) -> None:
        """Open ports or lines; from then on a client may come."""
        raise NotImplementedError

    def serve(self) -> None:
        """Serve the protocol until `ended` is set."""
        raise NotImplementedError

    def inject(self, fault: str) -> None:
        """Begin a fault of the device itself; faults of the line are asked for by `has`."""

    def cleared(self) -> None:
        """Called once all faults are taken away."""

    def follow(self, joint_pos_target: np.ndarray) -> None:
        """A command has arrived, decoded to (n,) [rad]: judge it, follow it, and on a virtual clock let time pass."""
        with self.lock:
            self._ramp = []
            if self.oracle.arrived(joint_pos_target):
                self.held = np.array(joint_pos_target, np.float64)
            if self.virtual:
                self._advance()

    def grip(self, target: float, tick: float = 0.0) -> None:
        """A gripper's command has arrived, decoded to its unit, in which it was rounded to `tick`."""
        with self.lock:
            if self.oracle.gripper_arrived(target, tick) and self.arm.robot.gripper is not None:
                self.arm.command_gripper(target)

    def brake(self) -> None:
        """The device's own ramp to standstill, from the last command."""
        with self.lock:
            if not self._ramp:
                self._ramp = list(self.oracle.braking())
            if self.virtual:
                while self._ramp:
                    self._advance()

    def has(self, fault: str) -> bool:
        """Whether a fault is on at present."""
        return time.monotonic() < self._until.get(fault, -np.inf)

    # ---- running -----------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until killed; call `open` first."""
        if not self.virtual:
            schedule(inherited=True)  # a control box keeps its time, however busy the machine that emulates it
            threading.Thread(target=self._keep_time, daemon=True).start()
        self.serve()

    def side_line(self) -> SideServer:
        """The server of this emulator's side line."""
        return SideServer(self._answer)

    def _keep_time(self) -> None:
        due = time.monotonic()
        while not self.ended.is_set():
            with self.lock:
                self._advance()
            due = max(due + self.dt, time.monotonic() - self.dt)
            time.sleep(max(0.0, due - time.monotonic()))

    def _advance(self) -> None:
        """One servo period."""
        if self._ramp:
            self.held = self._ramp.pop(0)
            self.oracle.restart(self.held)
        self.arm.command(self.driven(self.held))
        self.arm.advance(max(self.dt, PHYSICS_DT))
        self.tick()

    def driven(self, held: np.ndarray) -> np.ndarray:
        """What the joints' controllers get for the pose (n,) that they are to follow: less where a motor is off."""
        return held

    def tick(self) -> None:
        """Called after every servo period, under the lock: watchdogs and the like."""

    def _answer(self, request: dict[str, Any]) -> Mapping[str, Any]:
        with self.lock:
            match request["do"]:
                case "truth":
                    return {**self.arm.truth(), "time": self.arm.time}
                case "arrange":
                    self.arm.arrange(np.asarray(request["qpos"], np.float64))
                    return {}
                case "counters":
                    return {**self.oracle.counters(), "told": self.oracle.told}
                case "faults":
                    return {"faults": dict(self.FAULTS)}
                case "inject":
                    name = request["fault"]
                    if name not in self.FAULTS:
                        raise RobotError(f"no fault {name!r}; known: {', '.join(self.FAULTS)}")
                    seconds = request.get("seconds")
                    self._until[name] = np.inf if seconds is None else time.monotonic() + seconds
                    self.inject(name)
                    return {}
                case "clear":
                    self._until.clear()
                    self.cleared()
                    return {}
                case "shutdown":
                    self.ended.set()
                    return {}
                case other:
                    raise RobotError(f"no request {other!r}")
