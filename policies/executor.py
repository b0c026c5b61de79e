"""Executor: plays chunks of actions by time. Row k of a chunk that was seen at time t belongs to t + k dt.

A chunk arrives when it has been thought out, dt or ten of them after its observation. Its rows that are past by then
are dropped, not played late, and the newest chunk with a row for the present decides (receding horizon). With
`ensemble` m > 0 all chunks that have one decide together, with weights exp(-m i) from the oldest, i = 0, to the newest
(Zhao et al. 2023, arXiv 2304.13705, section III-C). After the last row there is nothing: whoever asks must stop.

Numpy, so that evaluation and an arm's control process share it. Legend: H rows of a chunk, A numbers of an action.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

from ..errors import UsageError

EARLY = 0.25  # of dt, by which a loop's period may begin too soon and still be the next one


class Row(NamedTuple):
    """What to do now."""

    action: np.ndarray  # (A,)
    age: float  # [s] of the observation that it rests on


class Executor:
    """The chunks of one episode."""

    def __init__(self, dt: float, ensemble: float = 0.0):
        if not (dt > 0.0 and ensemble >= 0.0):
            raise UsageError(f"an executor takes dt above 0 s and ensemble of at least 0, not {dt} and {ensemble}")
        self.dt, self.ensemble = dt, ensemble
        self._chunks: deque[tuple[float, np.ndarray]] = deque()  # by time of the observation, oldest first

    def add(self, seen: float, actions: np.ndarray) -> None:
        """A chunk (H, A) that rests on an observation of time `seen` [s]; one that is older than the newest is late."""
        if self._chunks and seen <= self._chunks[-1][0]:
            return
        self._chunks.append((seen, actions))

    def row(self, now: float) -> Row | None:
        """The row for the time `now` [s]; None where no chunk reaches so far."""
        while self._chunks and self._index(self._chunks[0], now) >= len(self._chunks[0][1]):
            self._chunks.popleft()
        alive = [(seen, actions[self._index((seen, actions), now)]) for seen, actions in self._chunks
                 if 0 <= self._index((seen, actions), now) < len(actions)]  # fmt: skip
        if not alive:
            return None
        seen, action = alive[-1]
        if self.ensemble and len(alive) > 1:
            weights = np.exp(-self.ensemble * np.arange(len(alive)))
            action = (weights / weights.sum()) @ np.array([a for _, a in alive])
        return Row(action, now - seen)

    def _index(self, chunk: tuple[float, np.ndarray], now: float) -> int:
        return math.floor((now - chunk[0]) / self.dt + EARLY)
