"""A bad line between a Franka client and its server: a relay of both their connections (see relay.py).

Commands travel by TCP (port 1337); states and answers by UDP, whose port the client names in its first TCP message and
the relay replaces by its own. What is said holds for datagrams of both directions:

    drop 0.02 | duplicate 0.05 | corrupt 0.02 | delay 0.0005 | gaps 0.003 | half_open | reset | clear

shares of datagrams, or seconds; gaps are as long, ten in a second, in which nothing passes. A corrupt datagram has one bit turned, somewhere; a half-open line swallows everything and
stays; reset ends the TCP connections as a crash does.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from faults.relay import Words, answer, arguments
from poise.real_robot.emulators.ports import reset
from poise.real_robot.realtime import go_first

PORT = 1337
CONNECT = struct.Struct("<IIIHH")  # command, id, size; version, UDP port
EVERY = 0.1  # [s] from one gap to the next


class FrankaRelay:
    """One client at a time."""

    def __init__(self, listen: str, to: str, words: Words):
        self._to, self._words = to, words
        self._listener = socket.create_server((listen, PORT))
        self._later: list[tuple[float, Any, bytes, Any]] = []
        self._lines: dict[Any, Any] = {}  # of TCP: each end to the other
        self._to_server = self._to_client = None  # sockets of UDP, and where each sends
        self._server_at = self._client_at = None
        self._altered = 0  # datagrams

    def run(self) -> None:
        import select

        words = self._words
        while True:
            wait = max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
            datagrams = [s for s in (self._to_server, self._to_client) if s is not None]
            ready, _, _ = select.select([self._listener, words.input, *self._lines, *datagrams], [], [], wait)
            for source in ready:
                if source is self._listener:
                    self._accept()
                elif source is words.input:
                    if not words.read():
                        return
                    self._begin()
                elif source in self._lines:
                    self._pass_on(source)
                elif source in datagrams:
                    self._datagram(source)
            while self._later and self._later[0][0] <= time.monotonic():
                _, line, data, at = self._later.pop(0)
                line.sendto(data, at)

    def _begin(self) -> None:
        if self._words.word == "reset":
            for line in list(self._lines):
                reset(line)
            self._close()
            self._words.word = "clear"
        answer(altered=self._altered)

    def _accept(self) -> None:
        self._close()
        client, address = self._listener.accept()
        server = socket.create_connection((self._to, PORT))
        self._lines = {client: server, server: client}
        for line in self._lines:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._to_server, self._to_client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self._to_server.bind(("", 0))
        self._client, self._client_at, self._server_at = client, (address[0], 0), None

    def _pass_on(self, source: Any) -> None:
        if self._words.word == "half_open":
            source.recv(1 << 16)
            return
        if not (data := source.recv(1 << 16)):
            return self._close()
        if source is self._client and self._client_at[1] == 0:  # type: ignore[index]
            command, number, size, version, port = CONNECT.unpack(data)
            self._client_at = (self._client_at[0], port)  # type: ignore[index]
            data = CONNECT.pack(command, number, size, version, self._to_server.getsockname()[1])  # type: ignore[union-attr]
        self._lines[source].sendall(data)

    def _datagram(self, source: Any) -> None:
        words = self._words
        data, address = source.recvfrom(1 << 16)
        if source is self._to_server:
            self._server_at = address
            line, at = self._to_client, self._client_at
        else:
            line, at = self._to_server, self._server_at
        if at is None or words.word == "half_open":
            return
        if words.word == "delay":
            self._later.append((time.monotonic() + words.value, line, data, at))
            return
        if words.befalls("drop") or (words.word == "gaps" and time.monotonic() % EVERY < words.value):
            self._altered += 1
            return
        if words.befalls("corrupt"):
            data, self._altered = words.bit_turned(data), self._altered + 1
        copies = 1 + words.befalls("duplicate")
        self._altered += copies - 1
        for _ in range(copies):
            line.sendto(data, at)  # type: ignore[union-attr]

    def _close(self) -> None:
        for line in (*self._lines, self._to_server, self._to_client):
            if line is not None:
                line.close()
        self._lines, self._to_server, self._to_client, self._later = {}, None, None, []


def main() -> None:
    options = arguments()
    relay = FrankaRelay(options.listen, options.to, Words(options.seed))
    go_first(25)
    answer()
    try:
        relay.run()
    except OSError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
