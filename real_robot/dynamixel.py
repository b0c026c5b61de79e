"""ViperX 300 S and kin: arms of Dynamixel X servos, Protocol 2.0, through `dynamixel_sdk`
(pip install 'poise[dynamixel]').

Registers of the XM430 and XM540 (ROBOTIS' e-manual); ids, models and drive modes of the arm as Interbotix delivers it.
Shoulder and elbow have two servos each: the second follows the first by its Secondary ID, and is read, never written.

The servos' own watchdog (register 98, Bus Watchdog, 20 ms a step) stops the arm where the line falls silent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..errors import NotConnectedError, UsageError
from ..robots import VX300S
from .serial_port import patient
from .servo_arm import Servo, ServoArm, crank
from .servo_bus import ServoBus, ServoState

XM430_W350, XM540_W270 = 1020, 1120
POSITION_MODE = 3
NO_SHADOW = 253  # Secondary IDs from here on mean none
VELOCITY = 0.229 / 60.0 * 4096  # [ticks/s] a unit of velocity registers
CURRENT = 2.69e-3  # [A] a unit
XM430, XM540 = 4.1 / 2.3, 10.6 / 4.4  # [N m/A] at stall and 12 V
ALERT = 0x80  # bit of the error byte: look at hardware_error
REFUSALS = {1: "failed", 2: "no such instruction", 3: "checksum", 4: "out of range, or its watchdog has stopped it",
            5: "length", 6: "beyond a limit register", 7: "read-only, or torque is on"}  # fmt: skip
FAULTS = {0: "input voltage", 2: "overheating", 3: "encoder", 4: "electrical shock", 5: "overload"}
WATCHDOG_STEP, TRIPPED = 0.02, 255  # [s]; what register 98 reads once it has stopped the servo
PROFILE_ACCELERATION = 107  # of the servo's own way to a goal that lies far, 0.374 rad/s^2 each: 40 rad/s^2
BOOT = 0.6  # [s] that a servo takes to start again

_to_angle, _from_angle = crank(radius=0.022, rod=0.036, closed=0.021)
_joints = dict(zip(VX300S.joints, (1, 2, 4, 6, 7, 8), strict=True))
VX300S_ARM = ServoArm(
    VX300S,
    {
        "waist": Servo(1, XM540_W270, XM540),
        "shoulder": Servo(2, XM540_W270, 2 * XM540, drive_mode=1),
        "elbow": Servo(4, XM540_W270, 2 * XM540, drive_mode=1),
        "forearm_roll": Servo(6, XM540_W270, XM540),
        "wrist_angle": Servo(7, XM540_W270, XM540, drive_mode=1),
        "wrist_rotate": Servo(8, XM430_W350, XM430),
        "gripper": Servo(9, XM430_W350, XM430),
    },
    shadows={
        "shoulder shadow": Servo(3, XM540_W270, 0.0, shadow_of=2),
        "elbow shadow": Servo(5, XM540_W270, 0.0, shadow_of=4),
    },
    turning=("waist", "forearm_roll", "wrist_rotate"),
    to_angle=_to_angle,
    from_angle=_from_angle,
)


class DynamixelBus(ServoBus):
    """A line of X servos."""

    registers: ClassVar[Mapping[str, tuple[int, int]]] = {
        "model": (0, 2),
        "drive_mode": (10, 1),
        "mode": (11, 1),
        "secondary": (12, 1),
        "torque": (64, 1),
        "hardware_error": (70, 1),
        "watchdog": (98, 1),
        "acceleration": (108, 4),
        "goal_speed": (112, 4),
        "goal": (116, 4),
        "position": (132, 4),
    }
    state_at: ClassVar[tuple[int, int]] = (126, 10)  # present current, velocity, position
    bauds: ClassVar[Sequence[int]] = (1_000_000, 2_000_000, 3_000_000, 4_000_000, 115_200, 57_600, 9_600)

    def make(self) -> tuple[type, Any]:
        try:
            import dynamixel_sdk
        except ImportError:
            raise UsageError("Dynamixel arms need ROBOTIS' SDK: pip install 'poise[dynamixel]'") from None
        return patient(dynamixel_sdk.PortHandler), dynamixel_sdk.Protocol2PacketHandler()

    def ask_states(self, ids: list[int]) -> int:
        return self._packets.syncReadTx(self._port, *self.state_at, ids, len(ids), False)

    def receive(self) -> tuple[list[int], int]:
        return self._packets.rxPacket(self._port, False)

    def take_apart(self, packet: list[int]) -> tuple[int, int, Sequence[int]]:
        return packet[4], packet[8], packet[9 : 5 + (packet[5] | packet[6] << 8)]

    def decode(self, data: Sequence[int], error: int) -> ServoState:
        raw = bytes(data)
        current, velocity, position = (
            int.from_bytes(raw[a:b], "little", signed=True) for a, b in ((0, 2), (2, 6), (6, 10))
        )
        return ServoState(position, velocity * VELOCITY, current * CURRENT, error)

    def refusal(self, error: int) -> str:
        return REFUSALS.get(error & ~ALERT, "")

    # ---- what the driver asks ----------------------------------------------------------------

    def refuse_settings(self, name: str, here: int, servo: Servo) -> None:
        """Raise NotConnectedError where a servo is set up for something else than joint positions of this arm."""
        who = f"{name} (id {here})"
        if servo.shadow_of is None and (mode := self.get(here, "mode")) != POSITION_MODE:
            raise NotConnectedError(f"{who} is in operating mode {mode}, expected {POSITION_MODE} (position); "
                                    "set register 11 with Dynamixel Wizard")  # fmt: skip
        drive = self.get(here, "drive_mode") & 0b101
        if drive != servo.drive_mode:
            raise NotConnectedError(f"{who} has drive mode {drive}, expected {servo.drive_mode} "
                                    f"({'turned' if servo.drive_mode else 'not turned'}, velocity-based profile); "
                                    "set register 10 with Dynamixel Wizard")  # fmt: skip
        secondary = self.get(here, "secondary")
        follows = servo.shadow_of if servo.shadow_of is not None else NO_SHADOW
        if min(secondary, NO_SHADOW) != follows:
            told = f"follows id {secondary}" if secondary < NO_SHADOW else "follows none"
            wanted = f"id {follows}" if servo.shadow_of is not None else "none"
            raise NotConnectedError(f"{who} {told}, expected {wanted}; set register 12 (Secondary ID) "
                                    "with Dynamixel Wizard")  # fmt: skip

    def faults(self, servo: int, error: int) -> str:
        """The names of the faults in a servo's Hardware Error Status, where the alert bit tells of one."""
        if not error & ALERT:
            return ""
        status = self.get(servo, "hardware_error")
        return ", ".join(name for bit, name in FAULTS.items() if status >> bit & 1) or "hardware error"

    def prepare(self, servo: int, speed: int) -> None:
        """Bounds of the servo's own way to a goal that lies far: its acceleration, and `speed` [ticks/s]."""
        self.put(servo, "acceleration", PROFILE_ACCELERATION)
        self.put(servo, "goal_speed", round(speed / VELOCITY))

    def release(self, servo: int) -> None:
        """End a latched fault: only a restart of the servo does."""
        with self._line():
            self._packets.reboot(self._port, servo)
        time.sleep(BOOT)

    def arm_watchdog(self, servos: Sequence[int], seconds: float) -> None:
        """Let the servos stop where the line is silent for so long; 0 disarms, and ends a stop."""
        for servo in servos:
            self.put(servo, "watchdog", 0)
        if seconds:
            self.send("watchdog", dict.fromkeys(servos, min(127, max(1, round(seconds / WATCHDOG_STEP)))))

    def watchdog_bit(self, servo: int) -> bool:
        """Whether the servo's own watchdog has stopped it."""
        return self.get(servo, "watchdog") == TRIPPED
