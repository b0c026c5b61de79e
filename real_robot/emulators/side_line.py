"""The side line of an emulator: what no real device has. Truth, counts, and faults to order.

JSON, a line each way, over TCP on loopback:

    {"do": "truth"}                       -> {"joint_pos": […], "joint_vel": […], "tool_pos": […], "time": …},
                                             in a task's scene also its state, "qpos" and "qvel"
    {"do": "arrange", "qpos": […]}        puts the objects of its scene where a task's state has them
    {"do": "counters"}                    -> {"arrived": …, "out_of_limit": …, "told": [the first violations in words]}
    {"do": "faults"}                      -> {"faults": {name: what it does}}
    {"do": "inject", "fault": NAME, "seconds": S or null}   a fault, for so long or until cleared
    {"do": "clear"}                       all faults of the line end; the device's own stay latched, as in life
    {"do": "shutdown"}                    the emulator ends

An answer is {"ok": true, …} or {"ok": false, "message": …}.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...errors import NotConnectedError, PoiseError, RobotError, UsageError

Handler = Callable[[dict[str, Any]], Mapping[str, Any]]
WAIT = 5.0  # [s] for an answer


class SideServer:
    """Answers requests in a thread of its own, one at a time, by a function from request to answer."""

    def __init__(self, handle: Handler):
        lock = threading.Lock()

        class Line(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                for line in self.rfile:
                    with lock:
                        self.wfile.write(_answer(handle, line))

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address, daemon_threads = True, True

        self._server = Server(("127.0.0.1", 0), Line)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        """HOST:PORT, for SideLine."""
        host, port = self._server.server_address[:2]
        return f"{host}:{port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _answer(handle: Handler, line: bytes) -> bytes:
    try:
        answer = {"ok": True, **handle(json.loads(line))}
    except (ValueError, KeyError, TypeError, PoiseError) as error:
        answer = {"ok": False, "message": f"{type(error).__name__}: {error}"}
    return json.dumps(answer, default=lambda value: np.asarray(value).tolist()).encode() + b"\n"


class SideLine:
    """The other end: what drivers and tests ask of an emulator at HOST:PORT. Connects at the first request."""

    def __init__(self, address: str):
        self.address = address
        self._socket: socket.socket | None = None

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One answer. Raises NotConnectedError where the emulator is gone, RobotError where it refuses."""
        try:
            if self._socket is None:
                host, _, port = self.address.rpartition(":")
                self._socket = socket.create_connection((host, int(port)), WAIT)
                self._file = self._socket.makefile("rwb")
            self._file.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._file.flush()
            answer = json.loads(self._file.readline() or b"{}")
        except (OSError, ValueError) as error:
            self.close()
            raise NotConnectedError(f"the emulator at {self.address} does not answer: {error}") from None
        if not answer:
            self.close()
            raise NotConnectedError(f"the emulator at {self.address} has gone")
        if not answer.pop("ok"):
            raise RobotError(f"the emulator refused {do}: {answer['message']}")
        return answer

    def truth(self) -> dict[str, np.ndarray]:
        """joint_pos, joint_vel (n,), tool_pos (3,) as they truly are, and qpos, qvel of a scene where there is one."""
        answer = self.ask("truth")
        names = ("joint_pos", "joint_vel", "tool_pos", "qpos", "qvel")
        return {name: np.asarray(answer[name]) for name in names if name in answer}

    def arrange(self, qpos: np.ndarray) -> None:
        """Put the objects of its scene somewhere."""
        self.ask("arrange", qpos=qpos.tolist())

    def counters(self) -> dict[str, int]:
        """`arrived` and `out_of_limit` of the oracle."""
        answer = self.ask("counters")
        return {name: int(answer[name]) for name in ("arrived", "out_of_limit")}

    def inject(self, fault: str, seconds: float | None = None) -> None:
        """Begin a fault, for so long or until `clear`."""
        self.ask("inject", fault=fault, seconds=seconds)

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # what could not be sent any more
                self._file.close()
            self._socket.close()
            self._socket = None


class Sided:
    """What a driver tells by an emulator's side line, `_side`; a real device has none, and knows neither."""

    _side: SideLine | None

    def _before_side(self) -> None:
        """Called before each question: to refuse while the driver is closed, or to let the emulator catch up."""

    def truth(self) -> dict[str, np.ndarray]:
        """What only an emulator knows: see Driver."""
        self._before_side()
        return self._side.truth() if self._side else {}

    def counters(self) -> dict[str, int]:
        """The emulator's own counts: see Driver."""
        self._before_side()
        return self._side.counters() if self._side else {}

    def arrange(self, qpos: np.ndarray) -> None:
        """Put the objects of an emulator's scene somewhere. Raises UsageError on an arm that is none."""
        self._before_side()
        if self._side is None:
            raise UsageError("only the scene of a twin or an emulated arm can be arranged; put things there by hand")
        self._side.arrange(qpos)
