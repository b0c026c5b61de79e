"""The two ways from a Robot to its control loop: another process, or (for tests) this one on simulated time.

Both answer `ask(request)` with the rows of a job and one last message, and take `post(word)` at any moment.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ..errors import NotConnectedError
from .cameras import Cameras
from .channel import Channel
from .control import handle
from .control_loop import ControlLoop
from .driver import Driver
from .drivers import address_robot
from .following import add_points
from .ring import RingReader, RingWriter
from .servo_log import ServoLog, servo_ring

START_WAIT, ANSWER_WAIT = 60.0, 10.0  # [s]
QUICK = ("read", "truth", "status", "command", "modules")  # what is answered within a servo period or two
Message = dict[str, Any]


class Link(Protocol):
    """How a Robot reaches its control loop."""

    def open(self) -> Message:
        """Connect; the first answer."""
        ...

    def ask(self, request: Mapping[str, Any]) -> Iterator[Message]:
        """Rows, then one message with "done" or "error"."""
        ...

    def post(self, word: str, **more: Any) -> None:
        """Say "end", "stop" or "aim" from anywhere; nothing answers."""
        ...

    def ring(self) -> int:
        """A new descriptor of the servo log's ring."""
        ...

    def close(self) -> None: ...


class LocalLink:
    """The control loop in this process."""

    def __init__(self, driver: Driver):
        self._driver, self._loop, self._word, self._busy = driver, ControlLoop(driver), "", False
        self._loop.interrupted = self._take
        self._loop.log = ServoLog(RingWriter(servo_ring(driver.robot)))

    def open(self) -> Message:
        self._loop.open()
        return {"done": True, "result": None, "status": self._loop.status()}

    def ask(self, request: Mapping[str, Any]) -> Iterator[Message]:
        self._word, self._busy = "", True
        try:
            yield from handle(self._loop, request)
        finally:
            self._busy = False
            if self._take() == "stop":
                self._loop.stop()

    def post(self, word: str, **more: Any) -> None:
        if word == "aim":
            if self._busy:
                add_points(self._loop, self._loop.waypoints, more["points"])
        elif self._busy:
            self._word = word
        elif word == "stop":
            self._loop.stop()

    def ring(self) -> int:
        assert self._loop.log is not None
        return os.dup(self._loop.log.ring.descriptor)

    def close(self) -> None:
        self._driver.close()

    def _take(self) -> str:
        word, self._word = self._word, ""
        return word


class ProcessLink:
    """The control loop in a process of its own; its death is an error here, and ours stops the arm there."""

    def __init__(self, address: str, cameras: Cameras | None = None):
        self.address, self._cameras = address, cameras
        self._ring = RingReader(servo_ring(address_robot(address)))  # outlives the control process
        self.process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def open(self) -> Message:
        ours, theirs = socket.socketpair()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the process
        command = [sys.executable, "-P", "-m", "poise.real_robot.control"]
        passed = [theirs.fileno(), self._ring.descriptor]
        command += ["--fd", str(passed[0]), "--ring", str(passed[1]), "--address", self.address]
        if self._cameras is not None:
            for name, ring in self._cameras.rings.items():
                command += ["--camera", name, str(ring), self._cameras.addresses[name]]
                passed.append(ring)
        with theirs:
            self.process = subprocess.Popen(command, pass_fds=passed, stdin=subprocess.DEVNULL, env=self._environment(),
                                            stdout=subprocess.DEVNULL, stderr=self._stderr)  # fmt: skip
        self._channel = Channel(ours)
        return self._receive(START_WAIT)

    def _environment(self) -> dict[str, str]:
        """A driver of somebody's own is looked for where this process would look."""
        if not self.address.startswith("py:"):
            return dict(os.environ)
        return {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in sys.path)}

    def ask(self, request: Mapping[str, Any]) -> Iterator[Message]:
        self._send(dict(request))
        while True:
            message = self._receive(ANSWER_WAIT if request["do"] in QUICK else None)
            yield message
            if "row" not in message:
                return

    def post(self, word: str, **more: Any) -> None:
        self._send({"do": word, **more})

    def ring(self) -> int:
        return os.dup(self._ring.descriptor)

    def close(self) -> None:
        if self.process is None:
            return
        with contextlib.suppress(NotConnectedError):
            self._send({"do": "close"})
        try:
            self.process.wait(ANSWER_WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._channel.close()
        self._stderr.close()
        self.process = None

    def _send(self, message: Message) -> None:
        try:
            with self._lock:
                self._channel.send(message)
        except EOFError:
            raise self._gone() from None

    def _receive(self, timeout: float | None) -> Message:
        try:
            message = self._channel.receive(timeout)
        except EOFError:
            raise self._gone() from None
        if message is None:
            raise NotConnectedError(f"the control process of {self.address} has not answered for {timeout:g} s; "
                                    "close the robot and connect again")  # fmt: skip
        return message

    def _gone(self) -> NotConnectedError:
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        code = self.process.returncode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        return NotConnectedError(f"the control process of {self.address} {how}"
                                 f"{': ' + lines[-1] if lines else ''}; connect again")  # fmt: skip
