"""Return, length and success of episodes whose worlds lie on a device: `EpisodeStatistics` without a look at a step.

Every step is added where it is, by one CUDA graph; numbers come to the host when a log line asks for them, together.

Legend: N worlds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Step
from ..cuda_graph import captured


class DeviceEpisodeStatistics:
    """Of the episodes that ended since they were last asked for."""

    def __init__(self, num_envs: int, device: torch.device):
        self._return = torch.zeros(num_envs, dtype=torch.float64, device=device)  # of the episodes that go on
        self._length = torch.zeros_like(self._return)
        self._sums = self._return.new_zeros(4)  # episodes, returns, lengths, successes
        self._defines_success = False
        self._count = captured(self._take_in, device)

    def add(self, step: Step) -> None:
        """Take in a step of every world, which none of them masks (a DeviceReplay refuses those that do)."""
        self._defines_success = step.success is not None
        success = step.terminated if step.success is None else step.success
        self._count(step.reward, step.terminated, step.truncated, success)

    def _take_in(self, reward: Tensor, terminated: Tensor, truncated: Tensor, success: Tensor) -> dict[str, Tensor]:
        done = terminated | truncated
        self._return.add_(reward)
        self._length.add_(1.0)
        ended = torch.stack([torch.ones_like(self._return), self._return, self._length, success.double()])  # (4, N)
        self._sums.add_(torch.where(done, ended, 0.0).sum(1))
        for running in (self._return, self._length):
            running.copy_(torch.where(done, 0.0, running))
        return {}

    def take(self) -> dict[str, float]:
        n, returns, lengths, successes = self._sums.tolist()
        self._sums.zero_()
        if n == 0:
            return {}
        values = {"train/return": returns / n, "train/length": lengths / n, "train/episodes": n}
        return {**values, "train/success": successes / n} if self._defines_success else values

    def state_dict(self) -> dict[str, Any]:
        """As that of `EpisodeStatistics`, which reads it too."""
        running = {"return": self._return, "length": self._length, "sums": self._sums}
        return {**{name: x.cpu().numpy().copy() for name, x in running.items()}, "success": self._defines_success}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for kept, name in ((self._return, "return"), (self._length, "length"), (self._sums, "sums")):
            kept.copy_(torch.from_numpy(np.asarray(state[name])))
        self._defines_success = state["success"]
