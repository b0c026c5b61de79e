"""One side of a benchmark in a process of its own, timed from here in rounds.

Its script reads lines: a number of batches or updates to make, which it answers with the CPU-seconds that they took,
or `held`, answered with the MB that it holds of its own, until its input ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from poise.errors import UsageError


class PeerProcess:
    """`run(count) -> CPU-seconds` and `held() -> MB` of a script; use as a context manager."""

    def __init__(self, command: Sequence[str], what: str, own_packages: bool = False):
        environment = {k: v for k, v in os.environ.items() if not (own_packages and k == "PYTHONPATH")}
        self._what = what
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                         env=environment)  # fmt: skip
        self.run(0)

    def run(self, count: int) -> float:
        return self._ask(str(count))

    def held(self) -> float:
        return self._ask("held")

    def _ask(self, line: str) -> float:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(line + "\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # what it said last tells why
        answer = stdout.readline()
        try:
            return float(answer)
        except ValueError:
            self._process.kill()
            raise UsageError(answer.strip() or f"{self._what} ended with code {self._process.wait()}") from None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def interpreter(variable: str, peer: str) -> str:
    """The interpreter of an environment with a peer in it, which an environment variable names.

    Raises:
        UsageError: it names none.
    """
    if not (python := os.environ.get(variable, "")):
        raise UsageError(f"this compares with {peer}, which needs an environment of its own: python -m venv PEER, "
                         f"PEER/bin/pip install {peer}, and {variable}=PEER/bin/python in front of the command")  # fmt: skip
    return python


def serve(run: Callable[[int], float], before: float, stdin: TextIO, stdout: TextIO) -> None:
    """Answer the lines of a PeerProcess with `run`; `before` is what the process held when it began."""
    for line in stdin:
        answer = anonymous() - before if line == "held\n" else run(int(line))
        print(answer, file=stdout, flush=True)


def anonymous() -> float:
    """MB of memory of this process alone that no file backs (RssAnon)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def quiet_stdout() -> TextIO:
    """Standard output, to which from now on nobody else prints: libraries' own lines go to standard error."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    return stdout
