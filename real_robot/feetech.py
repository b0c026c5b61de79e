"""SO-101 and kin: arms of Feetech STS3215 servos, through `scservo_sdk` (pip install 'poise[feetech]').

Registers of the STS3215 (memory table of Feetech's STS series). Numbers below zero are a magnitude with a sign bit:
bit 15 of position and velocity, bit 10 of load. A status packet's error byte tells of the servo, not of the packet.

The STS3215 has no watchdog: left alone it holds its last goal for ever. real_robot/guardian.py stands in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..errors import NotConnectedError, UsageError
from ..robots import SO101
from .serial_port import patient
from .servo_arm import Servo, ServoArm
from .servo_bus import TICKS, ServoBus, ServoState

STS3215 = 777
POSITION_MODE = 0
FAULTS = {0: "input voltage", 1: "encoder", 2: "overheating", 3: "overcurrent", 5: "overload"}
ACCELERATION = 254  # of the servo's own way to a goal that lies far, 100 ticks/s^2 each: 39 rad/s^2, its most

SO101_ARM = ServoArm(
    SO101,
    {name: Servo(i, STS3215, 2.94) for i, name in enumerate((*SO101.joints, "gripper"), 1)},
    zeros={"gripper": 1536},  # the middle of what the jaw can do at 2048, as a calibration by LeRobot has it
    turning=("wrist_roll",),
)


class FeetechBus(ServoBus):
    """A line of STS servos."""

    registers: ClassVar[Mapping[str, tuple[int, int]]] = {
        "model": (3, 2),
        "min_position": (9, 2),
        "max_position": (11, 2),
        "position_offset": (31, 2),
        "mode": (33, 1),
        "torque": (40, 1),
        "acceleration": (41, 1),
        "goal": (42, 2),
        "goal_speed": (46, 2),
        "lock": (55, 1),
        "position": (56, 2),
        "voltage": (62, 1),
    }
    state_at: ClassVar[tuple[int, int]] = (56, 6)  # present position, velocity, load
    bauds: ClassVar[Sequence[int]] = (1_000_000, 500_000, 250_000, 128_000, 115_200, 57_600, 38_400)

    def make(self) -> tuple[type, Any]:
        try:
            import scservo_sdk
        except ImportError:
            raise UsageError("SO-101 needs Feetech's SDK: pip install 'poise[feetech]'") from None
        return patient(scservo_sdk.PortHandler), scservo_sdk.protocol_packet_handler()

    def ask_states(self, ids: list[int]) -> int:
        return self._packets.syncReadTx(self._port, *self.state_at, ids, len(ids))

    def receive(self) -> tuple[list[int], int]:
        return self._packets.rxPacket(self._port)

    def take_apart(self, packet: list[int]) -> tuple[int, int, Sequence[int]]:
        return packet[2], packet[4], packet[5:-1]

    def decode(self, data: Sequence[int], error: int) -> ServoState:
        position, velocity, load = (data[i] | data[i + 1] << 8 for i in (0, 2, 4))
        return ServoState(signed(position, 15), signed(velocity, 15), signed(load, 10) / 1000.0, error)

    def centre(self, servo: int, position: int) -> int:
        """Set the servo's own offset so that what now reads `position` reads 2048; what it reads then."""
        offset = signed(self.get(servo, "position_offset"), 11) + position - TICKS // 2
        offset = (offset + TICKS // 2) % TICKS - TICKS // 2  # the shorter way around
        self.put(servo, "lock", 0)
        self.put(servo, "position_offset", min(abs(offset), 2047) | (1 << 11 if offset < 0 else 0))
        self.put(servo, "lock", 1)
        return self.get(servo, "position")

    # ---- what the driver asks ----------------------------------------------------------------

    def refuse_settings(self, name: str, here: int, servo: Servo) -> None:
        """Raise NotConnectedError where a servo is set up for something else than joint positions."""
        if (mode := self.get(here, "mode")) != POSITION_MODE:
            raise NotConnectedError(f"{name} (id {here}) is in operating mode {mode}, expected {POSITION_MODE} "
                                    "(position); set register 33 with Feetech's FD software")  # fmt: skip

    def faults(self, servo: int, error: int) -> str:
        """The names of the faults that a status packet's error byte tells of."""
        return ", ".join(name for bit, name in FAULTS.items() if error >> bit & 1)

    def prepare(self, servo: int, speed: int) -> None:
        """Bounds of the servo's own way to a goal that lies far: its acceleration, and `speed` [ticks/s]."""
        self.put(servo, "acceleration", ACCELERATION)
        self.put(servo, "goal_speed", speed)

    def release(self, servo: int) -> None:
        """End a latched fault: torque off and on again, by whoever comes after."""
        self.put(servo, "torque", 0)


def signed(value: int, bit: int) -> int:
    """A number with a sign bit, as Feetech sends them."""
    magnitude = value & ((1 << bit) - 1)
    return -magnitude if value >> bit & 1 else magnitude
