"""Thinking: where the policy of an episode runs. Here, in the control process, or apart, in one of its own.

Here, a small network in numpy answers within the servo period that asks. Apart (thinker.py) it may take as long as it
likes, on a GPU or in torch: the control loop never waits for it, and plays by time what has arrived (executor.py).

    control loop   obs, time ---- ring ---->  thinker        one record a control period
                   chunk, time <-- ring ----                 one record a chunk
                   heartbeat <---- ring ----                 every 10 ms; none for 50 ms: it hangs
                   pidfd <------- death ----                 at once

Legend: H rows of a chunk, A numbers of an action.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ..errors import NotConnectedError
from ..policies.executor import Executor, Row
from ..policies.runner import Runner
from ..spec import Spec
from .peer import Peer
from .ring import RingReader, RingWriter, make_ring

BEAT, SILENCE = 0.01, 0.05  # [s] between heartbeats; without one, after which a thinker counts as hung
START_WAIT = 60.0  # [s] for it to load its policy
Obs = Mapping[str, np.ndarray]  # group -> one frame


class Thinking(Protocol):
    """What turns observations into rows of actions."""

    spec: Spec

    def ready(self) -> bool:
        """Whether it has loaded its policy. Raises NotConnectedError where it never will."""
        ...

    def begin(self) -> None:
        """An episode starts."""
        ...

    def see(self, obs: Obs, now: float) -> None:
        """The observation of a control period, at the time `now` [s] on the loop's clock."""
        ...

    def row(self, now: float) -> Row | None:
        """What to do now; None where nothing has been thought out for this time."""
        ...

    def trouble(self) -> str:
        """`died`, `hangs`, or "" where all is well."""
        ...

    def close(self) -> None: ...


class Here:
    """In this process, at once; or, to try a policy with the `delay` [s] of another machine, so much later."""

    def __init__(self, runner: Runner, ensemble: float = 0.0, delay: float = 0.0):
        self.spec, self._runner, self._ensemble, self._delay = runner.spec, runner, ensemble, delay

    def ready(self) -> bool:
        return True

    def begin(self) -> None:
        self._state, self._executor = self._runner.initial_state(1), Executor(self.spec.control_dt, self._ensemble)
        self._underway: deque[tuple[float, np.ndarray]] = deque()

    def see(self, obs: Obs, now: float) -> None:
        if self._underway:  # it is still at the last one, as a process of its own would be
            return
        chunk, self._state = self._runner.act({group: x[None] for group, x in obs.items()}, self._state)
        self._underway.append((now, chunk[0].astype(np.float64)))
        self._arrive(now)

    def row(self, now: float) -> Row | None:
        self._arrive(now)
        return self._executor.row(now)

    def _arrive(self, now: float) -> None:
        while self._underway and now >= self._underway[0][0] + self._delay:
            self._executor.add(*self._underway.popleft())

    def trouble(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held."""


class Apart:
    """In a process of its own, which lives from `start` to `close` over many episodes."""

    def __init__(self, policy: str, spec: Spec, ensemble: float = 0.0, delay: float = 0.0, torch: bool = False):
        """
        Args:
            policy: a policy file's path.
            delay: [s] that the thinker waits before each answer: what a slower machine would need.
            torch: whether it runs in torch, and not in numpy.
        """
        self.spec, self._ensemble = spec, ensemble
        rings = (asked_dtype(spec), chunk_dtype(spec), np.dtype([("time", "f8")]))
        descriptors = [make_ring(dtype, 64) for dtype in rings]
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the process
        command = [sys.executable, "-P", "-m", "poise.real_robot.thinker", policy, "--delay", str(delay)]
        command += ["--rings", *map(str, descriptors), *(["--torch"] if torch else [])]
        self.process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=self._stderr)  # fmt: skip
        self._peer = Peer(self.process.pid, "the policy's process")
        self._asked, self._chunks, self._beats = (RingWriter(descriptors[0]), *map(RingReader, descriptors[1:]))
        self._episode = 0
        self._latest = time.monotonic() + START_WAIT

    def ready(self) -> bool:
        if self._beats.newest() is not None:
            return True
        if self._peer.alive() and time.monotonic() < self._latest:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip().splitlines()
        self.close()
        raise NotConnectedError(f"the policy's process did not start{': ' + said[-1] if said else ''}")

    def begin(self) -> None:
        self._episode += 1
        self._executor = Executor(self.spec.control_dt, self._ensemble)
        self._chunks.read()

    def see(self, obs: Obs, now: float) -> None:
        self._asked.write(episode=self._episode, time=now, **{f"obs/{group}": x for group, x in obs.items()})

    def row(self, now: float) -> Row | None:
        for record in self._chunks.read().records:
            if record["episode"] == self._episode:
                self._executor.add(float(record["time"]), record["actions"].copy())
        return self._executor.row(now)

    def trouble(self) -> str:
        if not self._peer.alive():
            return "died"
        newest = self._beats.newest()
        return "hangs" if newest is None or time.monotonic() - float(newest[1]["time"]) > SILENCE else ""

    def close(self) -> None:
        """End the process; safe to call twice."""
        self.process.kill()
        self.process.wait()
        for ring in (self._asked, self._chunks, self._beats, self._peer):
            ring.close()
        self._stderr.close()


def asked_dtype(spec: Spec) -> np.dtype:
    """A record of the ring of observations."""
    fields: list[Any] = [("episode", "i8"), ("time", "f8")]
    for group, terms in spec.observations.items():
        camera = len(terms) == 1 and len(terms[0].shape) == 3
        shape = terms[0].shape if camera else (sum(int(np.prod(t.shape)) for t in terms),)
        fields.append((f"obs/{group}", "u1" if camera else "f4", shape))
    return np.dtype(fields)


def chunk_dtype(spec: Spec) -> np.dtype:
    """A record of the ring of chunks."""
    size = sum(term.size for term in spec.actions)
    return np.dtype([("episode", "i8"), ("time", "f8"), ("actions", "f8", (spec.action_horizon, size))])
