"""Recording: the handle on a recorder process, for whoever runs an arm.

    with Robot(address) as arm, Recording("out.hdf5", spec, environment("mine"), arm) as recording:
        recording.step(obs, values)
        recording.end(last_obs)

What goes wrong with the recording never stops the arm: it stands in `fault`, and is said once on the log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DatasetError
from ..spec import Spec
from .channel import Channel
from .robot import Robot

log = logging.getLogger(__name__)
START_WAIT, FLUSH_WAIT, END_WAIT = 60.0, 60.0, 2.0  # [s]; the last where the recorder has failed already


class Recording:
    """A file that a recorder writes; `rings` of cameras are recorded along, by their names (see cameras.py).

    Raises:
        DatasetError: the file exists, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], spec: Spec, env_args: Mapping[str, Any], arm: Robot,
                 provenance: Mapping[str, Any] | None = None, rings: Mapping[str, int] | None = None):  # fmt: skip
        self.path, self.fault = os.path.abspath(path), ""
        self.rows: dict[str, int] = {}  # of the servo log and every camera, as of the last flush
        self.missed: dict[str, int] = {}  # rows that were overrun before the recorder read them
        ours, theirs = socket.socketpair()
        reader = arm.servo_log()
        passed = [theirs.fileno(), reader.descriptor, *(rings or {}).values()]
        command = [sys.executable, "-P", "-m", "poise.real_robot.recorder", "--fd", str(passed[0])]
        command += ["--servo", str(passed[1])]
        for name, ring in (rings or {}).items():
            command += ["--camera", f"{name}={ring}"]
        with theirs:
            self.process = subprocess.Popen(command, pass_fds=passed, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL)  # fmt: skip
        reader.close()
        self._channel = Channel(ours)
        self._send({"path": self.path, "spec": spec.to_json(), "env_args": dict(env_args),
                    "provenance": dict(provenance or {})})  # fmt: skip
        self._hear(START_WAIT, "ready")
        if self.fault:
            self.close()
            raise DatasetError(self.fault)

    def step(self, obs: Mapping[str, Any], values: Mapping[str, Any], frames: Mapping[str, int] | None = None) -> None:
        """One control step: see GrowingEpisodes.step. frames: group -> number of the picture that was seen."""
        self._send({"do": "step", "obs": _plain(obs), "values": _plain(values), "frames": dict(frames or {})})
        self._hear(0.0)

    def end(self, last_obs: Mapping[str, Any], filters: Sequence[str] = (),
            attributes: Mapping[str, Any] | None = None, frames: Mapping[str, int] | None = None) -> None:  # fmt: skip
        """The episode is over, and in the file when this returns."""
        self._send({"do": "end", "obs": _plain(last_obs), "filters": list(filters),
                    "attributes": _plain(attributes or {}), "frames": dict(frames or {})})  # fmt: skip
        self.flush()

    def flush(self) -> None:
        """Wait until everything so far is in the file."""
        if not self.fault:
            self._send({"do": "flush"})
            self._hear(FLUSH_WAIT, "flushed")

    def close(self) -> None:
        """Write what is left, and end the recorder; safe to call twice."""
        self.flush()
        self._channel.close()
        try:
            self.process.wait(END_WAIT if self.fault else FLUSH_WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, message: dict[str, Any]) -> None:
        """Nobody waits for a recorder that hangs: what it does not take stays here until it is too much."""
        if not self.fault:
            try:
                self._channel.send(message, wait=False)
            except EOFError:
                self._gone()

    def _hear(self, wait: float, until: str = "") -> None:
        """Take what the recorder says, for so long or until a message holds that word."""
        try:
            while not self.fault and (message := self._channel.receive(wait)) is not None:
                self.rows, self.missed = message.get("flushed", self.rows), message.get("missed", self.missed)
                if message.get("fault"):
                    self._fail(message["fault"])
                if until in message:
                    return
        except EOFError:
            self._gone()
        if until and not self.fault:
            self._fail(f"the recorder of {self.path} has not answered for {wait:g} s")

    def _gone(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        code = self.process.returncode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        how = "hangs" if code is None else how
        self._fail(f"the recorder of {self.path} {how}; the file keeps what was there a moment before")

    def _fail(self, why: str) -> None:
        self.fault = why
        log.warning("recording: %s", why)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: x.tolist() if isinstance(x, np.ndarray | np.generic) else x for name, x in values.items()}
