"""The live view of an arm at work: a page of viser in a process of its own, beside `poise deploy`.

    control process → ring of servo periods (servo_log.py) → page          the page only reads along
    page's stop button → a pipe → a thread here → Robot.stop()

A page that is slow, hangs or dies changes nothing for the arm: nobody waits for it, and the ring goes on without it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

from ..errors import NotConnectedError, PoiseError
from ..policies.view_server import require_viser
from .robot import Robot

START_WAIT, END_WAIT = 60.0, 5.0  # [s]


class LiveView:
    """A page that shows `arm` from now to the end of a `with` block; `url` is where."""

    def __init__(self, arm: Robot, title: str = "", host: str = "127.0.0.1", port: int = 8080):
        """Raises PoiseError: viser is missing, or the port is taken."""
        require_viser("the live view", port)
        self._arm, self.was_stopped = arm, False
        reader = arm.servo_log()
        told, self._stops = os.pipe()[::-1]  # the page's end, ours
        settings = {"robot": arm.spec.name, "title": title, "host": host, "port": port, "ring": reader.descriptor,
                    "stop": told}  # fmt: skip
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "poise.real_robot.live_page", json.dumps(settings)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                pass_fds=[reader.descriptor, told],
            )  # fmt: skip
        finally:
            os.close(told)
            reader.close()
        assert self.process.stdout is not None
        answer = self.process.stdout.readline().strip()
        self._listener = threading.Thread(target=self._listen, daemon=True, name="live-view-stop")
        self._listener.start()
        if not answer.startswith("http"):
            self.close()
            raise PoiseError(f"the live view did not start: {answer or 'it ended at once'}")
        self.url = answer

    def close(self) -> None:
        """End the page; a second call does nothing."""
        assert self.process.stdin is not None and self.process.stdout is not None
        if self.process.stdin.closed:
            return
        self.process.stdin.close()  # which it waits for, and which happens too when this process dies
        try:
            self.process.wait(END_WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self._listener.join(END_WAIT)

    def __enter__(self) -> LiveView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        """Stop the arm whenever the page says so, until the page is gone."""
        with os.fdopen(self._stops, "rb", buffering=0) as line:
            while line.read(1):
                self.was_stopped = True
                try:
                    self._arm.stop()
                except NotConnectedError:
                    return
