"""A serial port for the servo makers' SDKs that waits in place of spinning, and takes no stale answer for a fresh one.

Both SDKs (scservo_sdk, dynamixel_sdk) bring a PortHandler of the same shape. As they are, they poll the port without
pause, wait 34 ms for an answer that is lost, measure that on a clock that may be set, and (Feetech) leave late answers
in the input for the next question. `patient(PortHandler)` is the same class without these.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from typing import Any

from ..errors import NotConnectedError

BITS = 10  # on the wire for a byte: start, eight, stop


def patient(port_handler: type) -> Any:
    """A PortHandler class of an SDK, made to wait for `patience` [s] beyond the time that the bytes take."""

    class PatientPort(port_handler):  # type: ignore[misc, valid-type]
        patience = 0.004

        def setupPort(self, cflag_baud: int) -> bool:
            done = super().setupPort(cflag_baud)
            self._fd: int = self.ser.fileno()
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLIN)
            return done

        def claim(self) -> None:
            """Keep other programs that do the same off the port. Raises NotConnectedError."""
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise NotConnectedError(f"{self.port_name} is in use by another program; end that first") from None

        def clearPort(self) -> None:
            self.ser.reset_input_buffer()

        def writePort(self, packet: list[int]) -> int:
            return os.write(self._fd, bytes(packet))

        def readPort(self, length: int) -> bytes:
            if length <= 0:
                return b""
            left = self.packet_timeout - self.getTimeSinceStart()  # [ms]
            if left <= 0 or not self._poll.poll(left):
                return b""
            got = os.read(self._fd, length)
            if not got:
                raise OSError("the line is closed")
            return got

        def getCurrentTime(self) -> float:
            return time.monotonic() * 1e3

        def setPacketTimeout(self, packet_length: int) -> None:
            self.setPacketTimeoutMillis(1e3 * (BITS * packet_length / self.baudrate + self.patience))

    return PatientPort
