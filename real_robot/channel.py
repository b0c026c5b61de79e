"""Messages between a Robot and its control process: length-prefixed JSON over a socket pair.

    message = 4 bytes, big-endian length | that many bytes of UTF-8 JSON

No pickle: what arrives is data, never code. Numbers keep every bit, since JSON carries a float's shortest exact form.
"""

from __future__ import annotations

import json
import select
import socket
from typing import Any

LONGEST = 64 * 2**20  # [bytes] of one message
BACKLOG = 8 * 2**20  # [bytes] unsent, after which the other side counts as gone


class Channel:
    """One end of the line. Raises EOFError wherever the other end turns out to be gone."""

    def __init__(self, sock: socket.socket):
        self._socket = sock
        self._socket.setblocking(False)
        self._in, self._out = bytearray(), bytearray()

    def send(self, message: dict[str, Any], wait: bool = True) -> None:
        """Send; with wait=False what the socket does not take at once goes out with later calls."""
        payload = json.dumps(message).encode()
        self._out += len(payload).to_bytes(4, "big") + payload
        self.flush(wait)

    def flush(self, wait: bool = False) -> None:
        """Send what is left over."""
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                if not wait:
                    break
                select.select([], [self._socket], [])
                continue
            except OSError as error:
                raise EOFError(str(error)) from None
            del self._out[:sent]
        if len(self._out) > BACKLOG:
            raise EOFError("the other side has stopped reading")

    def receive(self, timeout: float | None = None) -> dict[str, Any] | None:
        """The next message; None where none arrives within `timeout` [s] (None waits for ever)."""
        while (message := self._next()) is None:
            if self._out:
                self.flush()
            try:
                chunk = self._socket.recv(1 << 16)
            except BlockingIOError:
                writable = [self._socket] if self._out else []  # what is left over goes out meanwhile
                if timeout == 0.0 or not any(select.select([self._socket], writable, [], timeout)):
                    return None
                continue
            except OSError as error:
                raise EOFError(str(error)) from None
            if not chunk:
                raise EOFError("the other side has closed the line")
            self._in += chunk
        return message

    def _next(self) -> dict[str, Any] | None:
        if len(self._in) < 4:
            return None
        length = int.from_bytes(self._in[:4], "big")
        if length > LONGEST:
            raise EOFError(f"a message of {length} bytes; this line carries at most {LONGEST}")
        if len(self._in) < 4 + length:
            return None
        payload = bytes(self._in[4 : 4 + length])
        del self._in[: 4 + length]
        return json.loads(payload)

    def close(self) -> None:
        self._socket.close()
