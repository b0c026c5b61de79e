"""Child: a process that is started afresh, talks over a socket, and never outlives who started it.

Afresh and not forked, since a process with threads cannot be forked safely; so a program that starts some needs no
`if __name__ == "__main__"`. `python -m MODULE FD` is what runs: FD is its end of the socket. Both sides send single
bytes, plain Python data (`send`, `receive`) and stretches of bytes (`send_bytes`, `receive_bytes`).
"""

from __future__ import annotations

import ast
import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import PoiseError

CLOSE_WAIT = 2.0  # [s]
MOST_DEATHS = 3  # without a step in between
LOOK = 2000  # [ms] between two looks for who started this process
GRACE = 1.0  # [s] to end in good order


class Child:
    """The side of who starts it. A message to a process that has died is lost; `answer` notices."""

    def __init__(self, module: str, descriptors: Sequence[int] = (), environment: Mapping[str, str] | None = None):
        """descriptors: files that the child has too, by the same numbers; environment: variables beside our own."""
        self._module, self._descriptors, self._environment = module, descriptors, environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self.deaths = 0  # of its processes, since one last made a step

    def start(self, order: Mapping[str, Any]) -> None:
        """Start the process, and tell it what to do."""
        ours, theirs = socket.socketpair()
        fds = [theirs.fileno(), *self._descriptors]
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path),
                       **self._environment}  # fmt: skip
        with theirs:
            # a process group of its own: Ctrl-C of the terminal is for us alone; what it prints is no result of ours
            self._process = subprocess.Popen([sys.executable, "-P", "-m", self._module, str(fds[0])], pass_fds=fds,
                                             process_group=0, stdin=subprocess.DEVNULL, stdout=2,
                                             env=environment)  # fmt: skip
        self.connection = ours
        self.tell(order)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Plain Python data, which it gets by `receive`."""
        with contextlib.suppress(ConnectionError):
            send(self.connection, message)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self.connection.sendall(data)

    def send_bytes(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            send_bytes(self.connection, data)

    def answer(self) -> bytes:
        """One byte; none where the process has died."""
        try:
            return self.connection.recv(1)
        except ConnectionError:
            return b""

    def receive_bytes(self) -> bytes:
        """What it sent by `send_bytes`; ConnectionError where the process has died."""
        return receive_bytes(self.connection)

    def receive(self) -> dict[str, Any]:
        return receive(self.connection)

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        if self._process:
            self._process.send_signal(signal.SIGINT)

    def hang_up(self) -> None:
        """The process ends by itself when it notices."""
        if self._process:
            self.connection.close()

    def end(self, wait: float = CLOSE_WAIT) -> tuple[int, str]:
        """Make sure that the process has ended, by itself within `wait` [s] or killed: its id, and how it ended."""
        if not self._process:
            return 0, "was never started"
        self.connection.close()
        try:
            code = self._process.wait(wait)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        pid, self._process = self._process.pid, None
        return pid, f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def bury(self, who: str, worlds: str, instead: str) -> str:
        """Count a death of its process: "`who` process 71 with `worlds` was killed by …".

        Raises:
            PoiseError: it has died MOST_DEATHS times since it last made a step; `instead` is what to do.
        """
        pid, how = self.end()
        self.deaths += 1
        words = f"{who} process {pid} with {worlds} {how}"
        if self.deaths == MOST_DEATHS:
            raise PoiseError(f"{words}, after {MOST_DEATHS} starts without a step; {instead}")
        return words


def worlds_named(worlds: Sequence[int]) -> str:
    """Consecutive worlds, in words."""
    return f"world {worlds[0]}" if len(worlds) == 1 else f"worlds {worlds[0]} to {worlds[-1]}"


# ---- the child's side ----------------------------------------------------------------------------


def parent() -> socket.socket:
    """The socket to who started this process, at whose end it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this process
    connection = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_watch, args=(connection.fileno(), os.getppid()), daemon=True).start()
    return connection


def _watch(fd: int, parent: int) -> None:
    """End this process when its socket does, also in the middle of a step that never ends."""
    poll = select.poll()
    poll.register(fd, 0)  # hang-ups alone
    while not poll.poll(LOOK) and os.getppid() == parent:
        pass
    time.sleep(GRACE)
    os._exit(0)


def told(error: Exception) -> dict[str, str]:
    """What an exception says, and where it was raised, for the other side."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = traceback.format_exception_only(error)[-1].strip()
    return {"error": f"{said} ({os.path.basename(last.filename)}, line {last.lineno})",
            "traceback": traceback.format_exc()}  # fmt: skip


# ---- both sides ----------------------------------------------------------------------------------


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Send plain Python data, as Python writes it, which unlike JSON keeps tuples apart from lists."""
    send_bytes(connection, repr(message).encode())


def receive(connection: socket.socket) -> dict[str, Any]:
    """What `send` sent; it is read as data and never run."""
    return ast.literal_eval(receive_bytes(connection).decode())


def send_bytes(connection: socket.socket, data: bytes) -> None:
    connection.sendall(struct.pack("!Q", len(data)) + data)


def receive_bytes(connection: socket.socket) -> bytes:
    """What `send_bytes` sent; ConnectionResetError where the other side goes before it is all here."""
    (length,) = struct.unpack("!Q", _exactly(connection, 8))
    return bytes(_exactly(connection, length))


def is_plain(data: Any) -> bool:
    """Whether `send` can send it."""
    try:
        return bool(ast.literal_eval(repr(data)) == data)
    except (ValueError, SyntaxError):
        return False


def _exactly(connection: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view, done = memoryview(data), 0
    while done < length:
        if not (more := connection.recv_into(view[done:])):
            raise ConnectionResetError("the other side is gone")
        done += more
    return data
