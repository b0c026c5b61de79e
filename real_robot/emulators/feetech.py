"""An SO-101 on a pseudo-terminal: six Feetech STS3215 servos that speak their protocol.

Packets:   FF FF | id | length | instruction, or in an answer the error byte | parameters | checksum
           checksum = not (sum of the bytes from id on);   length = parameters + 2
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from ...robots import SO101
from .arm import ArmOptions
from .servo_line import ServoLine, TableServo

STALL = 2.94  # [N m] at full load
ZERO, GRIPPER_ZERO = 2048, 1536  # [ticks] of straight joints, and of the jaw


class FeetechEmulator(ServoLine):
    """SO-101. `horns`: ticks by which each servo's horn sits elsewhere than it should, for calibrations."""

    BITS: ClassVar[Mapping[str, int]] = {"voltage": 0, "overheating": 2, "overload": 5}
    TORQUE: ClassVar[tuple[int, int]] = (40, 1)
    GOAL: ClassVar[tuple[int, int]] = (42, 2)

    def __init__(self, link: str = "", options: ArmOptions | None = None, virtual: bool = False, baud: int = 1_000_000,
                 horns: tuple[int, ...] = (0,) * 6):  # fmt: skip
        zeros = [ZERO] * SO101.num_joints + [GRIPPER_ZERO]
        servos = [TableServo(i + 1, 777, zero + horns[i]) for i, zero in enumerate(zeros)]
        super().__init__(SO101, servos, link, options, virtual, baud)

    def start_servo(self, servo: TableServo) -> None:
        servo.put((0, 1), 3)  # firmware 3.10
        servo.put((1, 1), 10)
        servo.put((3, 2), servo.model)
        servo.put((5, 1), servo.id)
        servo.put((8, 1), 1)  # answers to everything
        servo.put((11, 2), 4095)
        servo.put((48, 2), 1000)
        servo.put((55, 1), 1)
        servo.put((62, 1), 121)  # [0.1 V]
        servo.put((63, 1), 31)  # [degrees C]

    def angle_to_tick(self, servo: TableServo, angle: float) -> int:
        """Less the servo's own offset (register 31); what it shows stays within its one turn."""
        return (super().angle_to_tick(servo, angle) - self._offset(servo)) % 4096

    def tick_to_angle(self, servo: TableServo, ticks: int) -> float:
        return super().tick_to_angle(servo, ticks + self._offset(servo))

    def _offset(self, servo: TableServo) -> int:
        value = servo.get((31, 2))
        return -(value & 2047) if value & 2048 else value

    def show(self, servo: TableServo, position: int, velocity: float, effort: float) -> None:
        load = float(np.clip(effort / STALL, -1.0, 1.0))
        servo.put((56, 2), _signed(position, 15))
        servo.put((58, 2), _signed(round(velocity), 15))
        servo.put((60, 2), _signed(round(1000 * load), 10))

    def packets(self, data: bytearray) -> Iterator[tuple[int, int, bytes]]:
        while len(data) >= 6:
            if data[0] != 0xFF or data[1] != 0xFF or data[2] == 0xFF:
                del data[0]
                continue
            length = data[3]
            if len(data) < length + 4:
                return
            packet = bytes(data[: length + 4])
            if length < 2 or _checksum(packet[2:-1]) != packet[-1]:
                del data[0]
                continue
            del data[: length + 4]
            yield packet[2], packet[4], packet[5:-1]

    def status(self, servo: TableServo, parameters: bytes, error: int = 0) -> bytes:
        body = bytes([servo.id, len(parameters) + 2, servo.latched]) + parameters
        return b"\xff\xff" + body + bytes([_checksum(body)])

    def obey(self, who: int, instruction: int, parameters: bytes) -> None:
        servo = self.servos.get(who)
        match instruction:
            case 0x82:  # sync read
                address, size, *ids = parameters
                for each in ids:
                    if each in self.servos:
                        self.reply(self.servos[each], bytes(self.servos[each].table[address : address + size]))
            case 0x83:  # sync write
                address, size = parameters[:2]
                rows = [parameters[i : i + size + 1] for i in range(2, len(parameters), size + 1)]
                self.write_all([(self.servos[row[0]], address, row[1:]) for row in rows if row[0] in self.servos])
            case _ if servo is None:
                pass
            case 1:  # ping
                self.reply(servo, b"")
            case 2:  # read
                self.reply(servo, bytes(servo.table[parameters[0] : parameters[0] + parameters[1]]))
            case 3:  # write
                self.write_all([(servo, parameters[0], parameters[1:])])
                self.refresh()
                self.reply(servo, b"")

    def torque_told(self, servo: TableServo) -> None:
        if not servo.get(self.TORQUE):  # off: a latched fault ends with its cause
            servo.latched = self.still_there(servo)
        elif servo.latched:
            servo.put(self.TORQUE, 0)


def _checksum(body: bytes) -> int:
    return ~sum(body) & 0xFF


def _signed(value: int, bit: int) -> int:
    return min(abs(value), (1 << bit) - 1) | (1 << bit if value < 0 else 0)
