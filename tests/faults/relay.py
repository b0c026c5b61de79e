"""Relays: a bad line between a driver and its device, in a process of its own; what all of them share.

    python tests/faults/stream_relay.py --listen 127.0.0.66 --to 127.0.0.65 --ports 29999 30003 30004

A line on standard input sets what happens from then on, a fault and its number; each is answered by a line of JSON,
what has been counted since the last one. One seed is one sequence of chances.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


class Words:
    """What standard input has said: the fault that is on, and its number."""

    def __init__(self, seed: int):
        self.input = os.fdopen(0, "rb", buffering=0)
        self.random = random.Random(seed)
        self.word, self.value = "clear", 0.0

    def read(self) -> bool:
        """Take in one line; False where whoever says them is gone."""
        if not (line := self.input.readline()):
            return False
        self.word, *more = line.decode().split()
        self.value = float(more[0]) if more else 0.0
        return True

    def befalls(self, word: str) -> bool:
        """Whether a fault that comes by chance is on, and now."""
        return self.word == word and self.random.random() < self.value

    def bit_turned(self, data: bytes) -> bytes:
        """The same with one bit turned, somewhere."""
        bit = self.random.randrange(8 * len(data))
        return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def answer(**counts: Any) -> None:
    print(json.dumps(counts), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", required=True, help="address, serial port's name or namespace, for the driver")
    parser.add_argument("--to", required=True, help="the device's")
    parser.add_argument("--ports", type=int, nargs="*", default=[])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


class Relay:
    """The other end: starts a relay's process, and tells it what to do."""

    def __init__(self, module: str, listen: str, to: str, ports: tuple[int, ...] = ()):
        command = [sys.executable, "-P", str(FOLDER / f"{module}.py"), "--listen", listen, "--to", to]
        command += ["--ports", *map(str, ports)] if ports else []
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._heard()

    def say(self, words: str) -> dict[str, Any]:
        """Set a fault; what was counted before it."""
        assert self._process.stdin is not None
        self._process.stdin.write(words + "\n")
        self._process.stdin.flush()
        return self._heard()

    def _heard(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the relay has ended"
        return json.loads(line)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            stream.close()  # type: ignore[union-attr]
