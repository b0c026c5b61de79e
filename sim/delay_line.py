"""DelayLine: what was seen a while ago, for N worlds with a lag each, in control steps.

A lag of k + f control steps, 0 <= f < 1, lies between two readings. A line for joints interpolates between them; a line
for anything else (rotations, pictures' results) gives the nearest reading that there was. Before an episode's first
reading there is none older: the first one then stands for all. On the CPU the line is a ring; on a device it moves up,
since a number of Python's that changes could not be recorded.

Legend: N worlds, n of them, L readings kept, k numbers of a reading.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .rows import copied, integers, on_device, restored, space, written, zeros

if TYPE_CHECKING:
    import torch


class DelayLine:
    """The last readings of N worlds."""

    def __init__(self, num_envs: int, size: int, longest: float, interpolate: bool, dtype: str = "float",
                 device: torch.device | None = None):  # fmt: skip
        """longest: the longest lag that will be asked for [control steps]."""
        self._past = zeros((num_envs, math.ceil(longest) + 1, size), device, dtype)
        self._now = 0 if device is None else math.ceil(longest)  # where the newest reading lies
        self._rows, self._longest, self._interpolate = on_device(np.arange(num_envs), device), longest, interpolate

    def begin(self, worlds: Any, reading: Any) -> None:
        """An episode begins with this reading (n, k)."""
        self._past = written(self._past, worlds, reading[:, None])

    def push(self, reading: Any) -> None:
        """The newest reading (N, k)."""
        if isinstance(reading, np.ndarray):
            self._now = (self._now + 1) % self._past.shape[1]
            self._past[:, self._now] = reading
        else:
            self._past = space(reading).concat([self._past[:, 1:], reading[:, None]], axis=1)

    def read(self, lag: Any) -> Any:
        """The reading (N, k) of `lag` (N,) control steps ago."""
        xp = space(lag)
        if not isinstance(lag, np.ndarray):
            lag = lag.clip(max=self._longest)  # float32 can round up what is longest
        if not self._interpolate:
            return self._ago(xp.round(lag))
        whole = xp.floor(lag)
        newer, older = self._ago(whole), self._ago(xp.ceil(lag))
        return newer + (lag - whole)[:, None] * (older - newer)

    def _ago(self, steps: Any) -> Any:
        return self._past[self._rows, (self._now - integers(steps)) % self._past.shape[1]]

    def state_dict(self) -> dict[str, Any]:
        return {"past": copied(self._past), "now": self._now}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._past, self._now = restored(state["past"], self._past), int(state["now"])
