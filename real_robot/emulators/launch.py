"""start_emulator: an emulator in a process of its own, for as long as a block lasts.

with start_emulator("ur5e", virtual=True) as device, Robot(device.address) as robot:
    ...
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import NotConnectedError
from .side_line import SideLine


@dataclass(frozen=True)
class Running:
    """An emulator that runs."""

    address: str  # for Robot and `--robot`
    robot: str  # name of the arm
    side_line: SideLine
    process: subprocess.Popen[str]


@contextlib.contextmanager
def start_emulator(name: str, host: str = "127.0.0.1", link: str = "", virtual: bool = False,
                   **settings: float) -> Iterator[Running]:  # fmt: skip
    """Start one, and end it with the block.

    Raises:
        NotConnectedError: it did not start, with what it said.
    """
    command = [sys.executable, "-P", "-m", "poise.real_robot.emulators", name, "--host", host, "--link", link]
    command += ["--virtual"] * virtual + ["--set", *(f"{key}={value}" for key, value in settings.items())]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        side_line = None
        try:
            line = process.stdout.readline()
            if not line.startswith("{"):
                process.wait(10.0)
                errors.seek(0)
                said = errors.read().strip().splitlines()
                raise NotConnectedError(f"the emulator {name} did not start{': ' + said[-1] if said else ''}")
            facts = json.loads(line)
            side_line = SideLine(facts["emulator"])
            yield Running(facts["address"], facts["robot"], side_line, process)
        finally:
            if side_line is not None:
                side_line.close()
            process.kill()
            process.wait()
            process.stdout.close()
