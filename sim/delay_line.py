"""DelayLine: what was seen a while ago, for N worlds with a lag each, in control steps.

A lag of k + f control steps, 0 <= f < 1, lies between two readings. A line for joints interpolates between them; a line
for anything else (rotations, pictures' results) gives the nearest reading that there was. Before an episode's first
reading there is none older: the first one then stands for all.

Legend: N worlds, n of them, L readings kept, k numbers of a reading.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class DelayLine:
    """The last readings of N worlds."""

    def __init__(self, num_envs: int, size: int, longest: float, interpolate: bool, dtype: str = "float64"):
        """longest: the longest lag that will be asked for [control steps]."""
        self._past = np.zeros((num_envs, math.ceil(longest) + 1, size), dtype)
        self._now, self._rows, self._interpolate = 0, np.arange(num_envs), interpolate

    def begin(self, worlds: np.ndarray, reading: np.ndarray) -> None:
        """An episode begins with this reading (n, k)."""
        self._past[worlds] = reading[:, None]

    def push(self, reading: np.ndarray) -> None:
        """The newest reading (N, k)."""
        self._now = (self._now + 1) % self._past.shape[1]
        self._past[:, self._now] = reading

    def read(self, lag: np.ndarray) -> np.ndarray:
        """The reading (N, k) of `lag` (N,) control steps ago."""
        kept = self._past.shape[1]
        if not self._interpolate:
            return self._past[self._rows, (self._now - np.rint(lag).astype(np.int64)) % kept]
        whole = np.floor(lag).astype(np.int64)
        newer = self._past[self._rows, (self._now - whole) % kept]
        older = self._past[self._rows, (self._now - np.ceil(lag).astype(np.int64)) % kept]
        return newer + (lag - whole)[:, None] * (older - newer)

    def state_dict(self) -> dict[str, Any]:
        return {"past": self._past.copy(), "now": self._now}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._past[:], self._now = np.asarray(state["past"]), int(state["now"])
