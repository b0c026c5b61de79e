"""Peer: another process, whose death is noticed at once and cannot be mistaken for another's life.

A pidfd (Linux 5.3) refers to one process for ever: unlike its number, it is never used again for another one. It
becomes readable when the process ends, however it ends, so `select` and `poll` may wait for it beside other things.
"""

from __future__ import annotations

import os
import select

from ..errors import NotConnectedError


class Peer:
    """A process by its number. Open it while the process surely lives, as a parent may at any time.

    Raises:
        NotConnectedError: there is no such process.
    """

    def __init__(self, pid: int, name: str = "the other process"):
        self.pid, self.name = pid, name
        try:
            self._descriptor = os.pidfd_open(pid)
        except OSError as error:
            raise NotConnectedError(f"{name} (process {pid}) is not there: {error.strerror}") from None
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def fileno(self) -> int:
        """Readable once the process is dead."""
        return self._descriptor

    def alive(self) -> bool:
        """Whether it lives; a zombie does not. Microseconds: a control loop may ask in every tick."""
        return not self._poll.poll(0)

    def wait(self, seconds: float) -> bool:
        """Wait for its death, at most so long; whether it has died."""
        return bool(self._poll.poll(1000.0 * seconds))

    def close(self) -> None:
        """Let go of it; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
