"""ServoLine: an arm of servos on a pseudo-terminal. What the servos' protocols share: tables, a line, faults.

Each servo has a table of registers in memory, which instruction packets read and write, and refreshes what is present
in it from the arm every servo period. Goals that come by one packet while torque is on are one command: judged by the
oracle, with a tolerance of one tick of the servos, and followed. Goals written while torque is off are none.

No real servo notices that its host has gone, and neither do these: what then happens is the watchdog's or the
guardian's business. Legend: n joints; servos are the joints', the gripper's, then shadows.
"""

from __future__ import annotations

import math
import os
import select
import tempfile
import termios
import time
import tty
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ...errors import RobotError, UsageError
from ...robots import RobotSpec
from .arm import ArmOptions
from .emulator import Emulator

TICK = 2.0 * math.pi / 4096  # [rad]
EVERY = 7  # a fault of the line befalls each seventh answer
LATE = 0.02  # [s] that a late answer takes
OVERLOADED = 0.15  # [rad] between a joint and its goal, for
OVERLOAD_AFTER = 0.5  # [s], after which its servo reports overload
SPEEDS = {getattr(termios, f"B{n}"): n for n in (9600, 38400, 57600, 115200, 500000, 1000000, 2000000, 3000000, 4000000)
          if hasattr(termios, f"B{n}")}  # fmt: skip

LINE_FAULTS = {
    "drop": f"each {EVERY}th answer is lost",
    "duplicate": f"each {EVERY}th answer comes twice",
    "corrupt": f"a bit of each {EVERY}th answer is turned",
    "delay": f"each {EVERY}th answer comes {1e3 * LATE:g} ms late",
    "deaf": f"each {EVERY}th command is lost on its way",
    "silent": "the elbow's servo neither answers nor obeys",
    "unplugged": "the port goes away, and comes back with the fault's end",
    "stuck": "the elbow does not move, whatever is commanded, until its servo reports overload",
    "overload": "the elbow's servo gives up and says why",
    "overheating": "the elbow's servo gives up and says why",
    "voltage": "the elbow's servo finds its supply too low, gives up and says why",
}


@dataclass(eq=False)
class TableServo:
    """One servo: its registers, and where it is mounted."""

    id: int
    model: int
    zero: int  # [ticks] at its joint's angle zero
    sign: int = 1
    shadow_of: int | None = None
    table: bytearray = field(default_factory=lambda: bytearray(256))
    latched: int = 0  # bits of the fault that it has latched
    booting: float = 0.0  # until when it does not answer [s, monotonic]

    def put(self, register: tuple[int, int], value: int) -> None:
        address, size = register
        self.table[address : address + size] = (value % (1 << 8 * size)).to_bytes(size, "little")

    def get(self, register: tuple[int, int]) -> int:
        address, size = register
        return int.from_bytes(self.table[address : address + size], "little")


class ServoLine(Emulator):
    """A line of servos; a protocol's subclass frames packets and knows the registers."""

    FAULTS: ClassVar[Mapping[str, str]] = LINE_FAULTS
    BITS: ClassVar[Mapping[str, int]]  # the bit of each fault of a servo
    BROADCAST = 254
    TORQUE: ClassVar[tuple[int, int]]  # registers (address, bytes) that every protocol has
    GOAL: ClassVar[tuple[int, int]]
    GRIPPER_TICK = TICK  # of the gripper's servo, in the gripper's unit
    ELBOW = 2  # index of the joint that faults befall

    def __init__(self, robot: RobotSpec, servos: Sequence[TableServo], link: str, options: ArmOptions | None,
                 virtual: bool, baud: int = 1_000_000):  # fmt: skip
        super().__init__(robot, options, virtual, tick=TICK)
        n = robot.num_joints
        self.joints, self.gripper, self.shadows = list(servos[:n]), servos[n], list(servos[n + 1 :])
        self.servos = {servo.id: servo for servo in servos}
        self.baud, self._link = baud, link or f"{tempfile.gettempdir()}/poise-{robot.name}-{os.getpid()}-{id(self):x}"
        self._master = self._slave = -1
        self._answers = self._commands = 0
        self._late: list[tuple[float, bytes]] = []
        self._strained = 0.0  # [s] for which the elbow has been far from its goal
        self._stuck_at = math.nan
        self._input = bytearray()
        self.heard = time.monotonic()  # the last instruction [s]
        for servo in servos:
            self.start_servo(servo)
        self.refresh()
        for servo in self.servos.values():
            servo.put(self.GOAL, self.angle_to_tick(servo, self._angle_of(servo)))
        self._grip_goal = self.gripper.get(self.GOAL)

    # ---- the protocol's own ------------------------------------------------------------------

    def start_servo(self, servo: TableServo) -> None:
        """Fill the table as after power-up: torque off, no fault."""
        raise NotImplementedError

    def show(self, servo: TableServo, position: int, velocity: float, effort: float) -> None:
        """Write what is present: [ticks], [ticks/s], [N m]."""
        raise NotImplementedError

    def packets(self, data: bytearray) -> Iterable[tuple[int, int, bytes]]:
        """Take whole instruction packets off the front of what came: (id, instruction, parameters)."""
        raise NotImplementedError

    def obey(self, who: int, instruction: int, parameters: bytes) -> None:
        """Carry out one instruction packet."""
        raise NotImplementedError

    def status(self, servo: TableServo, parameters: bytes, error: int = 0) -> bytes:
        """A status packet."""
        raise NotImplementedError

    def gripper_angle(self, position: float) -> float:
        """Angle of the gripper's servo [rad] for the gripper's position."""
        return position

    def gripper_command(self, angle: float) -> float:
        """And back."""
        return angle

    # ---- the line ----------------------------------------------------------------------------

    @property
    def address(self) -> str:
        return f"{self.robot.name}:{self._link}"

    def open(self) -> None:
        if os.path.lexists(self._link):
            if not os.path.islink(self._link):
                raise UsageError(f"{self._link} exists and is no link; name another for the serial line")
            os.unlink(self._link)
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.symlink(os.ttyname(self._slave), self._link)

    def unplug(self) -> None:
        """Take the port away."""
        if self._master >= 0:
            os.unlink(self._link)
            os.close(self._master)
            os.close(self._slave)
            self._master = self._slave = -1
            self._input.clear()

    def serve(self) -> None:
        try:
            while not self.ended.is_set():
                self._serve_once()
        finally:
            self.unplug()

    def _serve_once(self) -> None:
        if self.has("unplugged"):
            self.unplug()
            time.sleep(0.01)
            return
        if self._master < 0:
            self.open()
        wait = 0.1 if not self._late else max(0.0, self._late[0][0] - time.monotonic())
        ready = select.select([self._master], [], [], min(wait, 0.1))[0]
        while self._late and self._late[0][0] <= time.monotonic():
            os.write(self._master, self._late.pop(0)[1])
        if not ready:
            return
        data = os.read(self._master, 4096)
        if not self._right_speed():
            return  # to the servos it is noise
        self._input += data
        for who, instruction, parameters in self.packets(self._input):
            with self.lock:
                self.heard = time.monotonic()
                self.obey(who, instruction, parameters)

    def _right_speed(self) -> bool:
        return SPEEDS.get(termios.tcgetattr(self._slave)[5], 0) == self.baud

    def reply(self, servo: TableServo, parameters: bytes, error: int = 0) -> None:
        """Answer, unless a fault of the line gets in the way."""
        if self.silent(servo):
            return
        packet = self.status(servo, parameters, error)
        self._answers += 1
        if self._answers % EVERY == 0:
            if self.has("drop"):
                return
            if self.has("delay"):
                self._late.append((time.monotonic() + LATE, packet))
                return
            if self.has("corrupt"):
                packet = packet[:-3] + bytes([packet[-3] ^ 0x10]) + packet[-2:]
            if self.has("duplicate"):
                packet += packet
        os.write(self._master, packet)

    def silent(self, servo: TableServo) -> bool:
        """Whether a servo is out of the world at present."""
        return time.monotonic() < servo.booting or (self.has("silent") and servo is self.joints[self.ELBOW])

    # ---- registers ---------------------------------------------------------------------------

    def write(self, servo: TableServo, address: int, data: bytes) -> None:
        """Write to a servo's table; where torque goes on or off, what the arm holds begins anew."""
        before = servo.get(self.TORQUE)
        servo.table[address : address + len(data)] = data
        if address <= self.TORQUE[0] < address + len(data):
            self.torque_told(servo)
        if servo.get(self.TORQUE) != before:
            self.held = self.goals()
            self.oracle.restart(self.held)

    def torque_told(self, servo: TableServo) -> None:
        """Torque was commanded on or off."""

    def write_all(self, writes: Sequence[tuple[TableServo, int, bytes]]) -> None:
        """One packet writes to several servos' tables; goals among that, while torque is on, are a command."""
        goals, is_command = self.goals(), False
        for servo, address, data in writes:
            if servo in self.joints and address <= self.GOAL[0] < address + len(data):
                start, is_command = self.GOAL[0] - address, True
                ticks = int.from_bytes(data[start : start + self.GOAL[1]], "little")
                goals[self.joints.index(servo)] = self.tick_to_angle(servo, ticks)
        is_command = is_command and all(servo.get(self.TORQUE) or servo.latched for servo in self.joints)
        self._commands += is_command
        is_heard = not (is_command and self.has("deaf") and self._commands % EVERY == 0)
        for servo, address, data in writes:
            if is_heard and not self.silent(servo):
                self.write(servo, address, data)
        if is_command:
            self._follow_goals(goals)

    def _follow_goals(self, goals: np.ndarray) -> None:
        """Judge what the wire carried (n,); follow what the servos have heard."""
        if (goal := self.gripper.get(self.GOAL)) != self._grip_goal:
            self._grip_goal = goal
            self.grip(self.gripper_command(self.tick_to_angle(self.gripper, goal)), self.GRIPPER_TICK)
        if np.array_equal(heard := self.goals(), goals):
            self.follow(goals)
            return
        self.oracle.arrived(goals)
        self.held = heard
        if self.virtual:
            self._advance()

    def goals(self) -> np.ndarray:
        """(n,) [rad] in the joints' goal registers."""
        return np.array([self.tick_to_angle(servo, servo.get(self.GOAL)) for servo in self.joints])

    def tick_to_angle(self, servo: TableServo, ticks: int) -> float:
        return servo.sign * (ticks - servo.zero) * TICK

    def angle_to_tick(self, servo: TableServo, angle: float) -> int:
        return round(servo.zero + servo.sign * angle / TICK)

    # ---- time --------------------------------------------------------------------------------

    def driven(self, held: np.ndarray) -> np.ndarray:
        held, elbow = held.copy(), self.ELBOW
        joint_pos = self.arm.joint_pos
        if self.has("stuck"):
            self._stuck_at = joint_pos[elbow] if math.isnan(self._stuck_at) else self._stuck_at
            held[elbow] = self._stuck_at
        else:
            self._stuck_at = math.nan
        for i, servo in enumerate(self.joints):
            if not servo.get(self.TORQUE) or servo.latched:
                held[i] = joint_pos[i]
        return held

    def tick(self) -> None:
        self.refresh()
        strained = abs(self.held[self.ELBOW] - self.arm.joint_pos[self.ELBOW]) > OVERLOADED
        self._strained = self._strained + self.dt if strained and self.has("stuck") else 0.0
        if self._strained > OVERLOAD_AFTER:
            self.latch("overload")

    def refresh(self) -> None:
        """What is present, into the tables."""
        joint_pos, joint_vel = self.arm.measure()
        effort = self.arm.joint_effort
        for i, servo in enumerate(self.joints):
            self.show(servo, self.angle_to_tick(servo, joint_pos[i]), servo.sign * joint_vel[i] / TICK,
                      servo.sign * effort[i])  # fmt: skip
        self.show(self.gripper, self.angle_to_tick(self.gripper, self._jaw()), 0.0, 0.0)
        for servo in self.shadows:
            for own in self.joints:
                if own.id == servo.shadow_of:
                    i = self.joints.index(own)
                    self.show(servo, self.angle_to_tick(servo, joint_pos[i]), joint_vel[i] / TICK, effort[i])

    def _angle_of(self, servo: TableServo) -> float:
        for i, own in enumerate(self.joints):
            if own.id in (servo.id, servo.shadow_of):
                return float(self.arm.joint_pos[i])
        return self._jaw()

    def _jaw(self) -> float:
        """Angle of the gripper's servo [rad]; in a scene with rigid fingers it stands at its zero."""
        position = self.arm.gripper_pos
        return 0.0 if math.isnan(position) else self.gripper_angle(position)

    # ---- faults ------------------------------------------------------------------------------

    def inject(self, fault: str) -> None:
        if fault in self.BITS:
            self.latch(fault)

    def latch(self, fault: str) -> None:
        """The elbow's servo gives up: torque off, and it says why."""
        servo = self.joints[self.ELBOW]
        servo.latched |= 1 << self.BITS[fault]
        servo.put(self.TORQUE, 0)

    def still_there(self, servo: TableServo) -> int:
        """Bits of faults whose cause lasts, which no clearing ends."""
        if servo is not self.joints[self.ELBOW]:
            return 0
        return sum(1 << bit for name, bit in self.BITS.items() if self.has(name))

    def _answer(self, request: dict[str, Any]) -> Mapping[str, Any]:
        """Beyond what all emulators answer: {"do": "hand", "joint_pos": […], "gripper": x} moves the arm by hand."""
        if request["do"] != "hand":
            return super()._answer(request)
        with self.lock:
            if any(servo.get(self.TORQUE) for servo in self.joints):
                raise RobotError("torque is on: a hand does not move this arm")
            self.by_hand(np.asarray(request["joint_pos"], np.float64), request.get("gripper"))
        return {}

    def by_hand(self, joint_pos: np.ndarray, gripper: float | None) -> None:
        """Put the limp arm somewhere."""
        self.arm.place(joint_pos, gripper)
        self.held = joint_pos
        self.refresh()
