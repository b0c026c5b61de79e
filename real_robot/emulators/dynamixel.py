"""A ViperX 300 S on a pseudo-terminal: nine Dynamixel X servos that speak Protocol 2.0.

Packets:   FF FF FD 00 | id | length (2) | instruction | parameters | CRC-16 (2)          length = parameters + 3
           an answer's instruction is 55, and its first parameter the error byte
           FF FF FD among instruction and parameters is followed by one more FD ("stuffing")

Two servos, shoulder shadow and elbow shadow, follow others by their Secondary ID: they obey what those are told.
The Bus Watchdog (98) brakes the arm where no instruction comes, and then refuses goals until it is set to 0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import ClassVar

from ...robots import VX300S
from .arm import ArmOptions
from .servo_line import TICK, ServoLine, TableServo

XM430, XM540 = 1020, 1120
HEADER = b"\xff\xff\xfd\x00"
SECONDARY, WATCHDOG, HARDWARE_ERROR = (12, 1), (98, 1), (70, 1)
ACCESS, DATA_RANGE, ALERT = 7, 4, 0x80
EEPROM_END = 64
UNIT_VELOCITY = 0.229 / 60.0 * 4096  # [ticks/s]
AMPERES = {1: 0.415, 2: 0.2075, 4: 0.2075, 6: 0.415, 7: 0.415, 8: 0.561}  # [A/N m] of each joint's servos
BOOT = 0.3  # [s]
HORN, ROD, CLOSED = 0.022, 0.036, 0.021  # [m] of the gripper's linkage


class DynamixelEmulator(ServoLine):
    """ViperX 300 S."""

    BITS: ClassVar[Mapping[str, int]] = {"voltage": 0, "overheating": 2, "overload": 5}
    TORQUE: ClassVar[tuple[int, int]] = (64, 1)
    GOAL: ClassVar[tuple[int, int]] = (116, 4)
    GRIPPER_TICK = 2.0 * HORN * TICK  # [m] at most

    def __init__(self, link: str = "", options: ArmOptions | None = None, virtual: bool = False, baud: int = 1_000_000):
        servos = [TableServo(i, XM540 if i < 8 else XM430, 2048) for i in (1, 2, 4, 6, 7, 8, 9)]
        servos += [TableServo(i, XM540, 2048, shadow_of=i - 1) for i in (3, 5)]
        super().__init__(VX300S, servos, link, options, virtual, baud)

    def start_servo(self, servo: TableServo) -> None:
        servo.put((0, 2), servo.model)
        servo.put((6, 1), 45)  # firmware
        servo.put((7, 1), servo.id)
        servo.put((8, 1), 3)  # 1 Mbit/s
        if not servo.table[11]:  # settings last over a restart
            servo.put((10, 1), int(servo.id in (2, 4, 7)))
            servo.put((11, 1), 3)
            servo.put(SECONDARY, servo.shadow_of or 255)
            servo.put((48, 4), 4095)
        servo.table[64:] = bytes(256 - 64)
        servo.put((144, 2), 120)  # [0.1 V]
        servo.put((146, 1), 31)  # [degrees C]
        servo.put(HARDWARE_ERROR, servo.latched)

    def show(self, servo: TableServo, position: int, velocity: float, effort: float) -> None:
        current = effort * AMPERES.get(servo.shadow_of or servo.id, 0.0) / 2.69e-3
        servo.put((126, 2), max(-2047, min(2047, round(current))))
        servo.put((128, 4), round(velocity / UNIT_VELOCITY))
        servo.put((132, 4), position)

    def latch(self, fault: str) -> None:
        super().latch(fault)
        servo = self.joints[self.ELBOW]
        servo.put(HARDWARE_ERROR, servo.latched)

    def gripper_angle(self, position: float) -> float:
        """By bisection of the linkage, which grows with the angle."""
        low, high = -0.8, 1.5
        for _ in range(50):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.gripper_command(middle) < position else (low, middle)
        return 0.5 * (low + high)

    def gripper_command(self, angle: float) -> float:
        """How far the horn's end is out, and what the slanted rod adds to it."""
        out, aside = HORN * math.sin(angle), HORN * math.cos(angle)
        return out + math.sqrt(ROD**2 - aside**2) - CLOSED

    # ---- packets -----------------------------------------------------------------------------

    def packets(self, data: bytearray) -> Iterator[tuple[int, int, bytes]]:
        while len(data) >= 10:
            if data[:4] != HEADER:
                del data[0]
                continue
            end = 7 + int.from_bytes(data[5:7], "little")
            if not 10 <= end <= 1024:
                del data[0]
                continue
            if len(data) < end:
                return
            packet = bytes(data[:end])
            if crc16(packet[:-2]) != int.from_bytes(packet[-2:], "little"):
                del data[0]
                continue
            del data[:end]
            body = packet[7:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
            yield packet[4], body[0], body[1:]

    def status(self, servo: TableServo, parameters: bytes, error: int = 0) -> bytes:
        error |= ALERT if servo.latched else 0
        body = (bytes([0x55, error]) + parameters).replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
        packet = HEADER + bytes([servo.id]) + (len(body) + 2).to_bytes(2, "little") + body
        return packet + crc16(packet).to_bytes(2, "little")

    def obey(self, who: int, instruction: int, parameters: bytes) -> None:
        servo = self.servos.get(who)
        first, size = (int.from_bytes(parameters[i : i + 2], "little") for i in (0, 2))
        match instruction:
            case 0x82:  # sync read
                for each in parameters[4:]:
                    if each in self.servos:
                        self.reply(self.servos[each], bytes(self.servos[each].table[first : first + size]))
            case 0x83:  # sync write
                rows = [parameters[i : i + size + 1] for i in range(4, len(parameters), size + 1)]
                self._write_rows([(self.servos[row[0]], first, row[1:]) for row in rows if row[0] in self.servos])
            case _ if servo is None:
                pass
            case 1:  # ping
                self.reply(servo, bytes(servo.table[0:2]) + bytes(servo.table[6:7]))
            case 2:  # read
                self.reply(servo, bytes(servo.table[first : first + size]))
            case 3:  # write
                error = self._refused(servo, first, parameters[2:])
                if not error:
                    self._write_rows([(servo, first, parameters[2:])])
                self.reply(servo, b"", error)
            case 8:  # restart
                self.reply(servo, b"")
                self._restart(servo)

    def _write_rows(self, rows: list[tuple[TableServo, int, bytes]]) -> None:
        """Those that may be, and the same to every servo that follows by its Secondary ID."""
        allowed = [row for row in rows if not self._refused(*row)]
        follow = [(shadow, address, data) for servo, address, data in allowed for shadow in self.shadows
                  if shadow.get(SECONDARY) == servo.id]  # fmt: skip
        self.write_all([*allowed, *follow])

    def _refused(self, servo: TableServo, address: int, data: bytes) -> int:
        if address < EEPROM_END and servo.get(self.TORQUE):
            return ACCESS
        if servo.latched and address == self.TORQUE[0] and data[0]:
            return ACCESS  # until it is restarted
        if address == self.GOAL[0] and (
            servo.get(WATCHDOG) == 255 or int.from_bytes(data, "little") > servo.get((48, 4))
        ):
            return DATA_RANGE
        return 0

    def _restart(self, servo: TableServo) -> None:
        servo.latched = self.still_there(servo)
        self.start_servo(servo)
        self.refresh()
        servo.put(self.GOAL, servo.get((132, 4)))
        servo.booting = time.monotonic() + BOOT

    # ---- the bus watchdog --------------------------------------------------------------------

    def tick(self) -> None:
        super().tick()
        silence = time.monotonic() - self.heard
        tripped = [servo for servo in self.servos.values()
                   if 0 < servo.get(WATCHDOG) < 128 and silence > 0.02 * servo.get(WATCHDOG)]  # fmt: skip
        if tripped and not self.virtual:  # simulated time does not pass between commands
            for servo in tripped:
                servo.put(WATCHDOG, 255)
            self.brake()
        if any(servo.get(WATCHDOG) == 255 for servo in self.joints):
            for servo, angle in zip(self.joints, self.held, strict=True):
                servo.put(self.GOAL, self.angle_to_tick(servo, float(angle)))


def crc16(data: bytes) -> int:
    """CRC-16 of polynomial 0x8005, as Protocol 2.0 has it."""
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ _CRC[(crc >> 8) ^ byte]
    return crc


def _crc_of(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


_CRC = [_crc_of(byte) for byte in range(256)]
