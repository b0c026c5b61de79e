"""A bad line between a Franka client and its server: a relay of both their connections, in a process of its own.

    python tests/real_robot_chaos.py --listen 127.0.0.64 --to 127.0.0.62 --seed 0

Commands travel by TCP (port 1337); states and answers by UDP, whose port the client names in its first TCP message and
the relay replaces by its own. A line on standard input sets what happens from then on, to datagrams of both directions:

    drop 0.02 | duplicate 0.05 | corrupt 0.02 | delay 0.0005 | half_open | reset | clear

shares of datagrams, or seconds. A corrupt datagram has one bit turned, somewhere; a half-open line swallows everything and
stays; reset ends the TCP connections as a crash does. One seed is one sequence of chances.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import socket
import struct
import sys
import time
from typing import Any

PORT = 1337
CONNECT = struct.Struct("<IIIHH")  # command, id, size; version, UDP port


class Relay:
    """One client at a time."""

    def __init__(self, listen: str, to: str, seed: int):
        self._to, self._rng, self._word, self._value = to, random.Random(seed), "clear", 0.0
        self._listener = socket.create_server((listen, PORT))
        self._input = os.fdopen(0, "rb", buffering=0)
        self._later: list[tuple[float, Any, bytes, Any]] = []
        self._lines: dict[Any, Any] = {}  # of TCP: each end to the other
        self._to_server = self._to_client = None  # sockets of UDP, and where each sends
        self._server_at = self._client_at = None

    def run(self) -> None:
        while True:
            wait = max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
            datagrams = [s for s in (self._to_server, self._to_client) if s is not None]
            ready, _, _ = select.select([self._listener, self._input, *self._lines, *datagrams], [], [], wait)
            for source in ready:
                if source is self._listener:
                    self._accept()
                elif source is self._input:
                    if not (line := self._input.readline()):
                        return
                    self._set(line.decode().split())
                elif source in self._lines:
                    self._pass_on(source)
                elif source in datagrams:
                    self._datagram(source)
            while self._later and self._later[0][0] <= time.monotonic():
                _, line, data, at = self._later.pop(0)
                line.sendto(data, at)

    def _set(self, words: list[str]) -> None:
        self._word, self._value = words[0], float(words[1]) if len(words) > 1 else 0.0
        if self._word == "reset":
            for line in list(self._lines):
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._close()
            self._word = "clear"

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
        data = source.recv(1 << 16) if self._word != "half_open" else b"-"
        if self._word == "half_open":
            source.recv(1 << 16)
            return
        if not data:
            return self._close()
        if source is self._client and self._client_at[1] == 0:  # type: ignore[index]
            command, number, size, version, port = CONNECT.unpack(data)
            self._client_at = (self._client_at[0], port)  # type: ignore[index]
            data = CONNECT.pack(command, number, size, version, self._to_server.getsockname()[1])  # type: ignore[union-attr]
        self._lines[source].sendall(data)

    def _datagram(self, source: Any) -> None:
        data, address = source.recvfrom(1 << 16)
        if source is self._to_server:
            self._server_at = address
            line, at = self._to_client, self._client_at
        else:
            line, at = self._to_server, self._server_at
        if at is None or self._word == "half_open":
            return
        chance = self._rng.random() < self._value
        if self._word == "drop" and chance:
            return
        if self._word == "corrupt" and chance:
            bit = self._rng.randrange(8 * len(data))
            data = data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]
        if self._word == "delay":
            self._later.append((time.monotonic() + self._value, line, data, at))
            return
        for _ in range(2 if self._word == "duplicate" and chance else 1):
            line.sendto(data, at)  # type: ignore[union-attr]

    def _close(self) -> None:
        for line in (*self._lines, self._to_server, self._to_client):
            if line is not None:
                line.close()
        self._lines, self._to_server, self._to_client, self._later = {}, None, None, []


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True)
    parser.add_argument("--to", required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from poise.real_robot.realtime import go_first

    relay = Relay(options.listen, options.to, options.seed)
    go_first(25)
    print("ready", flush=True)
    try:
        relay.run()
    except OSError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
