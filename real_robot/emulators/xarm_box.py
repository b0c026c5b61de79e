"""What an xArm's control box does with a request of UFACTORY's private Modbus-TCP: its modes, states and errors.

    request  = transaction u16 | protocol u16 (2 or 3) | length u16 | function u8 | data
    answer   = transaction u16 | protocol u16          | length u16 | function u8 | state u8 | data
    state: 0x40 has an error, 0x20 has a warning, 0x10 not ready to move, 0x08 no such request

Integers are big-endian, floats little-endian float32. After the vendor's client, xarm-python-sdk 1.18.4; what the box
does where the client does not tell: it brakes by its own ramp for state 4 and for errors, refuses commands until the
error is cleaned and state 0 asked for, and latches its error 23 where a command is beyond the joint range or no number.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from ...robots import XARM7
from .arm import ArmOptions
from .coasting import CoastingEmulator

HAS_ERROR, HAS_WARNING, NOT_READY, NO_SUCH = 0x40, 0x20, 0x10, 0x08
VERSION = b"7,7,XI1304,AC1304,v2.7.0"  # joints, type, serial numbers, firmware
MOVING, STANDING, PAUSED, STOPPED, MODE_CHANGED = 1, 2, 3, 4, 5
SERVO = 1  # the mode that takes streams of joint positions
JOINT_RANGE, STARVED = 23, 36  # errors: joint range; a stream of commands that stops while the arm moves
RESOLUTION = 2.0**-21  # [rad] of a float32 between 4 and 8
ERRORS = {"emergency_stop": 1, "servo_error": 13, "speed": 24, "planning": 25, "collision": 31, "boundary": 35}
GRIPPER_COUNTS = 850  # of the gripper when open
assert XARM7.gripper is not None
CLOSED, OPEN = XARM7.gripper.closed, XARM7.gripper.open  # [m] each finger


class ControlBox(CoastingEmulator):
    """The box and its arm, without the wire. `answer` is all that a client can reach."""

    def __init__(self, options: ArmOptions, virtual: bool):
        super().__init__(XARM7, options, virtual, tick=RESOLUTION)
        self.state, self.mode, self.error, self.warning, self.enabled = STOPPED, 0, 0, 0, False
        self.refused = 0  # commands that came while it was not ready
        self._requests: dict[int, Callable[[bytes], bytes]] = {
            1: lambda _: VERSION.ljust(40, b"\0"),
            2: lambda _: b"XI1304\0AC1304".ljust(40, b"\0"),
            11: self._enable,
            12: self._set_state,
            13: lambda _: bytes([self.shown_state]),
            14: lambda _: b"\0\0",
            15: lambda _: bytes([self.error, self.warning]),
            16: self._clean_error,
            17: self._clean_warning,
            19: self._set_mode,
            29: self._servo_j,
            41: lambda _: self.pose(),
            42: self._joints,
            55: lambda _: floats(self.arm.joint_effort),
            124: self._gripper,
            128: lambda _: struct.pack(">i", 11),  # the tool's line runs at 2,000,000 baud
            254: lambda _: b"",
        }

    def answer(self, function: int, data: bytes) -> bytes:
        """State byte and data."""
        with self.lock:
            handler = self._requests.get(function)
            try:
                payload = handler(data) if handler else b""
            except (struct.error, IndexError):
                handler, payload = None, b""
            return bytes([self._flags() | (0 if handler else NO_SUCH)]) + payload

    def client_gone(self) -> None:
        """Nobody commands any more: stop."""
        with self.lock:
            if self.state != STOPPED:
                self.stop(STOPPED)

    def latch(self, error: int) -> None:
        self.error = error
        self.stop(STOPPED)

    def stop(self, state: int) -> None:
        self.state = state
        self.come_to_rest()

    @property
    def ready(self) -> bool:
        return self.enabled and not self.error and self.state in (MOVING, STANDING) and not self._ramp

    @property
    def shown_state(self) -> int:
        return MOVING if self.ready and self.oracle.velocity.any() else self.state

    def inject(self, fault: str) -> None:
        if fault in ERRORS:
            self.enabled = self.enabled and fault != "emergency_stop"
            self.latch(ERRORS[fault])
        elif fault == "warning":
            self.warning = 11
        elif fault == "stopped":
            self.stop(STOPPED)
        elif fault == "paused":
            self.stop(PAUSED)
        elif fault == "mode_changed":
            self.mode = 0
            self.stop(MODE_CHANGED)

    def obeys(self) -> bool:
        return self.ready

    def given_up(self) -> None:
        self.latch(STARVED)

    # ---- requests ----------------------------------------------------------------------------

    def _flags(self) -> int:
        error, warning, ready = bool(self.error), bool(self.warning), self.ready
        return error * HAS_ERROR | warning * HAS_WARNING | (not ready) * NOT_READY

    def _enable(self, data: bytes) -> bytes:
        self.enabled = bool(data[1])
        return b""

    def _set_state(self, data: bytes) -> bytes:
        if data[0] == 0 and not self.error and self.enabled:
            self.state = STANDING
        elif data[0] in (PAUSED, STOPPED):
            self.stop(data[0])
        return b""

    def _set_mode(self, data: bytes) -> bytes:
        if data[0] != self.mode:
            self.mode = data[0]
            self.stop(MODE_CHANGED)
        return b""

    def _clean_error(self, _: bytes) -> bytes:
        self.error = ERRORS["emergency_stop"] if self.has("emergency_stop") else 0
        return b""

    def _clean_warning(self, _: bytes) -> bytes:
        self.warning = 0
        return b""

    def _servo_j(self, data: bytes) -> bytes:
        """Seven joint positions, then speed, acceleration and time, which servo mode ignores."""
        command = np.array(struct.unpack("<7f", data[:28]))
        if not self.ready or self.mode != SERVO:
            self.refused += 1
            if self.virtual:
                self._advance()
            return b""
        self.follow(command)
        low, high = np.array(XARM7.position_low) - RESOLUTION, np.array(XARM7.position_high) + RESOLUTION
        if not ((command >= low) & (command <= high)).all():
            self.latch(JOINT_RANGE)
        return b""

    def _joints(self, data: bytes) -> bytes:
        """Without data the pose that is followed; else positions, velocities and efforts as measured, that many."""
        if not data:
            return floats(self.oracle.position)
        rows = [*self.arm.measure(), self.arm.joint_effort]
        return b"".join(floats(row) for row in rows[: data[0] & 0x0F])

    def pose(self) -> bytes:
        """Of the tool: position [mm], and no rotation, which nobody here asks for."""
        return floats([*(1000.0 * self.arm.tool_pos), 0.0, 0.0, 0.0])

    def _gripper(self, data: bytes) -> bytes:
        """Modbus RTU of the tool: host | unit 8 | function 3 or 16 | address u16 | count u16 | bytes | values."""
        host, unit, function, address, count = struct.unpack(">BBBHH", data[:7])
        if function == 16:
            if address == 0x0700:
                (counts,) = struct.unpack(">i", data[8:12])
                count_size = (OPEN - CLOSED) / GRIPPER_COUNTS
                self.grip(CLOSED + counts * count_size, count_size)
            return struct.pack(">BBBHH", host, unit, function, address, count)
        values = bytes(2 * count)
        if address == 0x0702:
            share = (self.arm.gripper_pos - CLOSED) / (OPEN - CLOSED)
            values = struct.pack(">i", round(share * GRIPPER_COUNTS))
        return struct.pack(">BBBB", host, unit, function, len(values)) + values


def floats(values) -> bytes:
    """Little-endian float32."""
    return np.asarray(values, "<f4").tobytes()
