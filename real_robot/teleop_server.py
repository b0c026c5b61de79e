"""The teleoperation page's server: one page, one WebSocket, on a thread of its own.

    GET /?token=…        the page, teleop_page.html
    GET /drive?token=…   the WebSocket: what pages say goes to the desk, what the arm does comes back 20 times a second

On the loopback interface it speaks HTTP; on any other, HTTPS with a certificate of its own (certificate.py). Whoever
does not know the token, made anew for each run, gets nothing but a refusal. A page that reads too slowly misses states.
"""

from __future__ import annotations

import asyncio
import hmac
import http
import importlib.util
import ipaddress
import json
import logging
import math
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from ..errors import PoiseError, UsageError
from ..kinematics import joint_frames
from ..robots import RobotSpec
from .certificate import server_context
from .desk import Desk
from .jog import Speeds

PAGE = Path(__file__).with_name("teleop_page.html")
SHOW_DT = 0.05  # [s] between two states that a page gets
LONGEST = 4096  # [bytes] of a message
MOST = 16  # pages at once
BEHIND = 1 << 16  # [bytes] unsent, beyond which a page gets no further state
LOOPBACK = "127.0.0.1"
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",  # a stranger's page must not lay itself over the buttons
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self' ws: wss:; frame-ancestors 'none'",
}


class TeleopServer:
    """Serves pages until `close`. `url` is what to open; `fingerprint` the certificate's, "" without one."""

    def __init__(self, robot: RobotSpec, desk: Desk, host: str = LOOPBACK, port: int = 8090,
                 speeds: Speeds | None = None, records: bool = False):  # fmt: skip
        """Raises PoiseError: something is not installed, or the port is taken."""
        if importlib.util.find_spec("websockets") is None:
            raise PoiseError("teleoperation needs websockets, which is not installed: pip install 'poise[teleop]'")
        self._robot, self._desk, self._records = robot, desk, records
        self._speeds = speeds or Speeds()
        self._token = secrets.token_urlsafe(16)
        self._row: Mapping[str, Any] = {}  # the newest; replaced whole by the loop that drives
        self._pages: dict[str, Any] = {}  # name -> connection
        self._socket = _listen(host, port)
        self.fingerprint, self._tls, names = "", None, _reached_by(host)
        if not _is_loopback(host):
            self._tls, self.fingerprint = server_context(names)
        scheme = "https" if self._tls else "http"
        self.url = f"{scheme}://{names[0]}:{self._socket.getsockname()[1]}/?token={self._token}"
        self._loop = asyncio.new_event_loop()
        self._over: asyncio.Event | None = None
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True, name="teleop-server")
        self._thread.start()
        started.wait(10.0)

    def show(self, row: Mapping[str, Any]) -> None:
        """What the arm does now; cheap, from any thread."""
        self._row = row

    def close(self) -> None:
        """End; pages see the line go."""
        if self._over is not None:
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(5.0)

    # ---- the thread --------------------------------------------------------------------------

    def _run(self, started: threading.Event) -> None:
        try:
            self._loop.run_until_complete(self._serve(started))
        finally:
            started.set()
            self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        from websockets.asyncio.server import serve

        logging.getLogger("websockets").setLevel(logging.CRITICAL)  # browsers that leave are no news
        self._over = asyncio.Event()
        async with serve(self._page, sock=self._socket, ssl=self._tls, process_request=self._request, max_size=LONGEST,
                         compression=None, ping_interval=5.0, ping_timeout=5.0, close_timeout=1.0,
                         server_header=None):  # fmt: skip
            started.set()
            showing = asyncio.create_task(self._show())
            await self._over.wait()
            showing.cancel()

    def _request(self, connection: Any, request: Any) -> Any:
        """The answer to a GET; None lets the WebSocket begin."""
        parts = urlsplit(request.path)
        told = parse_qs(parts.query).get("token", [""])[0]
        if not hmac.compare_digest(told.encode(), self._token.encode()):
            return _answer(
                http.HTTPStatus.FORBIDDEN, "This address lacks the token that `poise robot teleop` printed.\n"
            )
        if parts.path == "/drive":
            origin = request.headers.get("Origin", "")
            if urlsplit(origin).netloc != request.headers.get("Host", ""):
                return _answer(http.HTTPStatus.FORBIDDEN, "This page is another server's.\n")
            if len(self._pages) >= MOST:
                return _answer(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{MOST} pages are open already.\n")
            return None
        if parts.path == "/":
            return _answer(http.HTTPStatus.OK, PAGE.read_text(encoding="utf-8"), "text/html")
        return _answer(http.HTTPStatus.NOT_FOUND, "There is one page here: /\n")

    async def _page(self, connection: Any) -> None:
        """One page, from its coming to its going."""
        from websockets.exceptions import ConnectionClosed

        name = secrets.token_hex(4)
        self._pages[name] = connection
        try:
            await connection.send(json.dumps({"hello": self._hello()}))
            async for message in connection:
                try:
                    self._desk.hear(name, _parsed(message), time.monotonic())
                except UsageError as error:
                    await connection.send(json.dumps({"refused": str(error)}))
                except PoiseError as error:  # the control process is gone
                    await connection.send(json.dumps({"refused": f"not done: {error}"}))
        except ConnectionClosed:
            pass
        finally:
            self._pages.pop(name, None)
            self._desk.gone(name)

    async def _show(self) -> None:
        while True:
            row, holder = self._row, self._desk.holder
            if row:
                state = self._state(row)
                for name, connection in list(self._pages.items()):
                    lease = "yours" if name == holder else "free" if not holder else "another's"
                    await self._tell(connection, {"state": {**state, "lease": lease, "pages": len(self._pages)}})
            await asyncio.sleep(SHOW_DT)

    async def _tell(self, connection: Any, message: dict[str, Any]) -> None:
        from websockets.exceptions import ConnectionClosed

        transport = connection.transport
        if transport is None or transport.get_write_buffer_size() > BEHIND:
            return
        try:
            async with asyncio.timeout(0.5):
                await connection.send(json.dumps(message))
        except (ConnectionClosed, TimeoutError):
            pass  # its own handler sees it off

    # ---- what pages are told -----------------------------------------------------------------

    def _hello(self) -> dict[str, Any]:
        robot = self._robot
        return {"robot": robot.name, "joints": robot.joints, "low": robot.position_low, "high": robot.position_high,
                "box": [robot.workspace_low, robot.workspace_high], "gripper": robot.gripper is not None,
                "records": self._records, "linear": self._speeds.linear, "angular": self._speeds.angular,
                "joint": np.minimum(self._speeds.joint * np.array(robot.velocity),
                                    self._speeds.largest_joint).tolist()}  # fmt: skip

    def _state(self, row: Mapping[str, Any]) -> dict[str, Any]:
        measured, _ = joint_frames(self._robot, np.asarray(row["joint_pos"]))
        sent, _ = joint_frames(self._robot, np.asarray(row["joint_pos_target"]))
        opening, gripper = None, self._robot.gripper
        if gripper is not None and math.isfinite(row["gripper_pos"]):
            opening = (row["gripper_pos"] - gripper.closed) / (gripper.open - gripper.closed)
        copied = ("joint_pos", "following", "state", "why", "fault", "device_fault", "counts", "recording", "episodes")
        return {**{name: row.get(name) for name in copied}, "opening": opening,
                "measured": measured.round(4).tolist(), "sent": sent.round(4).tolist()}  # fmt: skip


def _parsed(message: Any) -> Any:
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        raise UsageError("a message is JSON") from None


def _answer(status: http.HTTPStatus, text: str, kind: str = "text/plain") -> Any:
    from websockets.datastructures import Headers
    from websockets.http11 import Response

    body = text.encode()
    headers = Headers({**HEADERS, "Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)),
                       "Connection": "close"})  # fmt: skip
    return Response(status.value, status.phrase, headers, body)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 65536:
        raise UsageError(f"port = {port}: expected 1 to 65535, or 0 for any free one")
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((where[0], port), family=family)
    except OSError as error:
        raise PoiseError(f"cannot listen on {host}:{port}: {error.strerror}; another port: --port N") from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reached_by(host: str) -> list[str]:
    """Names and addresses of this machine under which a page may ask for it, the most useful first."""
    if host not in ("0.0.0.0", "::"):
        return [host]
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing: asks which interface would
        try:
            probe.connect(("192.0.2.1", 9))
            found.append(probe.getsockname()[0])
        except OSError:
            pass
    return [*found, socket.gethostname(), LOOPBACK]
