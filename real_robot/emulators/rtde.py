"""RTDE, version 2: the packages of Universal Robots' real-time data exchange, TCP port 30004, big-endian.

    size uint16, counting these three bytes | kind uint8 | payload

    kind                client sends                         controller answers
    V  version          wanted version uint16                accepted uint8
    v  controller       -                                    major, minor, bugfix, build uint32
    O  outputs          rate double [Hz], names a,b,c        recipe uint8, types A,B,C
    I  inputs           names                                recipe uint8, types
    S  start, P pause   -                                    accepted uint8
    U  data             recipe uint8, values                 recipe uint8, values, at the rate asked for

Input recipes count from 1 within a connection. A name that the controller does not know has the type NOT_FOUND, and
its recipe then is refused. Source: Universal Robots, "Real-Time Data Exchange (RTDE) guide".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

PORT, RATE = 30004, 500.0  # Hz
REGISTERS = 48  # of each kind
FORMATS = {"DOUBLE": "d", "VECTOR6D": "6d", "VECTOR3D": "3d", "INT32": "i", "UINT32": "I", "UINT64": "Q",
           "VECTOR6INT32": "6i", "UINT8": "B", "BOOL": "?"}  # fmt: skip

_KINDS = {
    "DOUBLE": "timestamp actual_execution_time speed_scaling target_speed_fraction actual_momentum actual_main_voltage "
    "actual_robot_voltage actual_robot_current standard_analog_input0 standard_analog_input1 standard_analog_output0 "
    "standard_analog_output1 payload",
    "VECTOR6D": "target_q target_qd target_qdd target_current target_moment actual_q actual_qd actual_current "
    "joint_control_output actual_TCP_pose actual_TCP_speed actual_TCP_force target_TCP_pose target_TCP_speed "
    "joint_temperatures actual_joint_voltage ft_raw_wrench payload_inertia actual_current_as_torque",
    "VECTOR3D": "actual_tool_accelerometer payload_cog",
    "INT32": "robot_mode safety_mode",
    "VECTOR6INT32": "joint_mode",
    "UINT32": "runtime_state robot_status_bits safety_status_bits",
    "UINT64": "actual_digital_input_bits actual_digital_output_bits",
}
OUTPUTS = {name: kind for kind, names in _KINDS.items() for name in names.split()}
OUTPUTS |= {f"output_int_register_{i}": "INT32" for i in range(REGISTERS)}
OUTPUTS |= {f"output_double_register_{i}": "DOUBLE" for i in range(REGISTERS)}
INPUTS = {f"input_int_register_{i}": "INT32" for i in range(REGISTERS)}
INPUTS |= {f"input_double_register_{i}": "DOUBLE" for i in range(REGISTERS)}
INPUTS |= {"external_force_torque": "VECTOR6D"}


def package(kind: str, payload: bytes) -> bytes:
    """One package, ready to send."""
    return struct.pack(">HB", 3 + len(payload), ord(kind)) + payload


class Packages:
    """Cuts a stream of bytes into packages."""

    def __init__(self):
        self._held = b""

    def cut(self, data: bytes) -> Iterator[tuple[str, bytes]]:
        """Kind and payload of every package that these bytes complete. Raises ValueError for what can be no package."""
        self._held += data
        while len(self._held) >= 3:
            (size,) = struct.unpack_from(">H", self._held)
            if size < 3:
                raise ValueError(f"a package of {size} bytes")
            if len(self._held) < size:
                return
            whole, self._held = self._held[:size], self._held[size:]
            yield chr(whole[2]), whole[3:]


class Recipe:
    """Variables that travel together, in order."""

    def __init__(self, text: bytes, known: Mapping[str, str]):
        self.names = [name for name in text.decode("ascii", "replace").split(",") if name]
        self.types = [known.get(name, "NOT_FOUND") for name in self.names]
        self.complete = "NOT_FOUND" not in self.types
        formats = [FORMATS[kind] for kind in self.types] if self.complete else []
        self._struct = struct.Struct(">" + "".join(formats))
        self._widths = [int(f[0]) if len(f) > 1 else 1 for f in formats]

    def pack(self, values: Sequence[object]) -> bytes:
        """The variables' values, vectors as sequences, as bytes."""
        flat = [x for value, width in zip(values, self._widths, strict=True)
                for x in ([value] if width == 1 else value)]  # fmt: skip # pyright: ignore
        return self._struct.pack(*flat)

    def unpack(self, data: bytes) -> dict[str, object]:
        """Values by name. Raises ValueError for another number of bytes."""
        if len(data) != self._struct.size:
            raise ValueError(f"{len(data)} bytes for a recipe of {self._struct.size}")
        flat, values = iter(self._struct.unpack(data)), {}
        for name, width in zip(self.names, self._widths, strict=True):
            values[name] = next(flat) if width == 1 else [next(flat) for _ in range(width)]
        return values
