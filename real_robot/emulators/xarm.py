"""An emulated xArm7 on loopback, for UFACTORY's own client: `python -m poise.real_robot.emulators xarm7`.

Ports as the vendor's client has them fixed: 502 for requests (xarm_box.py), 30001 and 30002 for reports every 200 ms,
30003 for reports every 10 ms; more arms are on more addresses of loopback (127.0.0.9). A report, big-endian integers
and little-endian float32:

    size u32 | mode << 4 | state u8 | commands waiting u16 | 7 joints | 6 pose | 7 torques   all; 30003: | 12 forces
    | brakes, motors, error, warning u8 | 6 tool offset | 4 payload | 2 sensitivities u8 | 3 gravity   30001, 30002
    | type, joints, 4 u8 | version 30 | 12 limits | 16 joint codes u8 | 7 temperatures | speeds 8 | count u32   30002

Reports keep to the wall clock also where the arm is on a virtual one, since the client counts their silence by it.
"""

from __future__ import annotations

import errno
import random
import selectors
import socket
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ...errors import UsageError
from .arm import ArmOptions
from .ports import reset
from .xarm_box import ERRORS, VERSION, ControlBox, floats

REQUESTS = 502
REPORTS = {30001: 0.2, 30002: 0.2, 30003: 0.01}  # port: seconds between reports
DELAY, LATE, EVERY = 0.02, 0.2, 5  # [s], [s], and one answer in so many where they get lost or garbled


class XArmEmulator(ControlBox):
    """The box on the wire. One thread serves all lines."""

    FAULTS: ClassVar = {
        **{name: f"the box's error {code}" for name, code in ERRORS.items()},
        "warning": "a warning, which stops nothing",
        "stopped": "somebody has stopped the arm (state 4)",
        "paused": "somebody has paused the arm (state 3)",
        "mode_changed": "somebody has set mode 0",
        "report_silent": "no reports, though their line stays open",
        "report_corrupt": "reports hold garbage",
        "drop": f"one answer in {EVERY} is lost",
        "corrupt": f"one answer in {EVERY} has a byte changed",
        "delay": f"answers come {DELAY} s late",
        "late": f"answers come {LATE} s late",
        "half_open": "requests vanish and nothing comes back, though the lines stay open",
        "reset": "all lines are reset, as are new ones",
    }

    def __init__(self, host: str, options: ArmOptions, virtual: bool):
        super().__init__(options, virtual)
        self.host = host
        self._selector = selectors.DefaultSelector()
        self._requests_in: dict[socket.socket, bytearray] = {}
        self._watchers: dict[socket.socket, int] = {}  # line of reports: its port
        self._due = dict.fromkeys(REPORTS, 0.0)
        self._later: list[tuple[float, socket.socket, bytes]] = []  # answers that are held back
        self._answers, self._reports = 0, 0
        self._commander: socket.socket | None = None  # the line that the last command came by
        self._random = random.Random(0)

    @property
    def address(self) -> str:
        return f"xarm:{self.host}"

    def open(self) -> None:
        for port in (REQUESTS, *REPORTS):
            line = socket.socket()
            line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                line.bind((self.host, port))
            except PermissionError:
                setting = f"net.ipv4.ip_unprivileged_port_start={REQUESTS}"
                raise UsageError(f"port {port} of {self.host} needs root, or: sysctl {setting} (the vendor's client "
                                 "knows no other port)") from None  # fmt: skip
            except OSError as error:
                hint = "; give another address of loopback, such as --host 127.0.0.9" * (
                    error.errno == errno.EADDRINUSE
                )
                raise UsageError(f"cannot listen on {self.host}, port {port}: {error}{hint}") from None
            line.listen()
            self._watch(line, self._welcome)

    def serve(self) -> None:
        while not self.ended.is_set():
            for key, _ in self._selector.select(0.005 if self._watchers or self._later else 0.1):
                try:
                    key.data(key.fileobj)
                except OSError:
                    self._end(key.fileobj)  # type: ignore[arg-type]
            if self.has("reset"):
                for line in [*self._requests_in, *self._watchers]:
                    reset(line)
                    self._end(line)
            now = time.monotonic()
            for due, line, answer in [late for late in self._later if late[0] <= now]:
                self._later.remove((due, line, answer))
                self._send(line, answer)
            if not (self.has("report_silent") or self.has("half_open")):
                self._report(now)

    # ---- lines -------------------------------------------------------------------------------

    def _watch(self, line: socket.socket, handle: Callable[[Any], None]) -> None:
        line.setblocking(False)
        self._selector.register(line, selectors.EVENT_READ, handle)

    def _welcome(self, listener: socket.socket) -> None:
        port = listener.getsockname()[1]
        line, _ = listener.accept()
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if port == REQUESTS:
            self._requests_in[line] = bytearray()
            self._watch(line, self._read)
        else:
            self._watchers[line] = port
            self._watch(line, self._drain)

    def _drain(self, line: socket.socket) -> None:
        if not line.recv(4096):
            self._end(line)

    def _read(self, line: socket.socket) -> None:
        if not (data := line.recv(4096)):
            self._end(line)
            return
        buffer = self._requests_in[line]
        buffer += data
        while len(buffer) >= 7 and len(buffer) >= 6 + (length := int.from_bytes(buffer[4:6], "big")):
            request, buffer[: 6 + length] = bytes(buffer[: 6 + length]), b""
            if self.has("half_open") or length < 1:
                continue
            function = request[6]
            if function == 29:
                self._commander = line
            body = bytes([function]) + self.answer(function, request[7:])
            self._reply(line, request[:4] + len(body).to_bytes(2, "big") + body)

    def _reply(self, line: socket.socket, answer: bytes) -> None:
        self._answers += 1
        turn = self._answers % EVERY == 0
        if self.has("drop") and turn:
            return
        if self.has("corrupt") and turn:
            answer = self._garbled(answer)
        wait = LATE if self.has("late") else DELAY if self.has("delay") else 0.0
        if wait:
            self._later.append((time.monotonic() + wait, line, answer))
        else:
            self._send(line, answer)

    def _garbled(self, message: bytes) -> bytes:
        place = self._random.randrange(len(message))
        return message[:place] + bytes([message[place] ^ self._random.randrange(1, 256)]) + message[place + 1 :]

    def _send(self, line: socket.socket, message: bytes) -> None:
        try:
            line.sendall(message)
        except OSError:  # gone, or it has stopped reading
            self._end(line)

    def _end(self, line: socket.socket) -> None:
        if self._requests_in.pop(line, None) is None and self._watchers.pop(line, None) is None:
            return
        self._selector.unregister(line)
        line.close()
        if line is self._commander:
            self._commander = None
            self.client_gone()

    # ---- reports -----------------------------------------------------------------------------

    def _report(self, now: float) -> None:
        for port, period in REPORTS.items():
            lines = [line for line, its in self._watchers.items() if its == port]
            if lines and now >= self._due[port]:
                self._due[port] = max(self._due[port] + period, now)
                report = self.report(port)
                for line in lines:
                    self._send(line, self._garbled(report) if self.has("report_corrupt") else report)

    def report(self, port: int) -> bytes:
        """One report, as the head of this file has it."""
        with self.lock:
            self._reports += 1
            joint_pos, joint_vel = self.arm.measure()
            body = bytes([self.mode << 4 | self.shown_state]) + b"\0\0" + floats(joint_pos) + self.pose()
            body += floats(self.arm.joint_effort)
            if port == 30003:
                body += floats(np.zeros(12))
            else:
                motors = 0xFF * self.enabled
                body += bytes([motors, motors, self.error, self.warning]) + floats(np.zeros(10)) + bytes([3, 3])
                body += floats([0.0, 0.0, -1.0])
            if port == 30002:
                limits = [1000, 0, 50000, 0, 1000, 20, 0, 20, 0, np.pi, 2.3, 2.7]
                body += (
                    bytes([7, 7, 1, 1, 0, 0]) + VERSION.ljust(30, b"\0") + floats(limits) + bytes(16) + bytes([30] * 7)
                )
                body += floats([0.0, *joint_vel]) + self._reports.to_bytes(4, "big")
            return (len(body) + 4).to_bytes(4, "big") + body
