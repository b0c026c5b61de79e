"""EpisodeStatistics: returns, lengths and successes of the episodes that end in training, on the host.

Legend: N worlds, T steps that were kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Step


class EpisodeStatistics:
    """Return, length and success of the episodes that ended since they were last asked for.

    Steps are kept until there are some, or until someone asks: a look at each alone would cost a small task's step a
    tenth of its time, and on a GPU wait for it.
    """

    TOGETHER = 64  # steps

    def __init__(self, num_envs: int):
        self._return = np.zeros(num_envs)
        self._length = np.zeros(num_envs)
        self._sums = np.zeros(4)  # episodes, returns, lengths, successes
        self._defines_success = False
        self._steps: list[tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]] = []

    def add(self, step: Step) -> None:
        self._steps.append((step.reward, step.terminated, step.truncated, step.success, step.mask))
        if len(self._steps) == self.TOGETHER:
            self._count()

    def _count(self) -> None:
        """Take in the steps kept, in their order: sums come out the same however many were kept."""
        if not self._steps:
            return
        rewards, terminated, truncated, successes, masks = zip(*self._steps, strict=True)
        self._steps = []
        reward = torch.stack(rewards).numpy(force=True).astype(np.float64)  # (T, N)
        done = (torch.stack(terminated) | torch.stack(truncated)).numpy(force=True)
        counts = np.ones(reward.shape)
        if any(mask is not None for mask in masks):
            given = np.stack([np.ones(len(done[0]), bool) if m is None else m.numpy(force=True) for m in masks])
            reward, counts, done = np.where(given, reward, 0.0), given.astype(np.float64), done & given
        begin = 0
        for row in [*np.flatnonzero(np.logical_or.reduce(done, axis=1)).tolist(), len(done) - 1]:
            if begin <= row:
                reward[begin] += self._return
                self._return = np.add.accumulate(reward[begin : row + 1])[-1]
                self._length = self._length + counts[begin : row + 1].sum(0)
                begin = row + 1
                self._end(done[row], successes[row])

    def _end(self, done: np.ndarray, success: Tensor | None) -> None:
        """The episodes of the worlds `done` (N,) are over."""
        if np.logical_or.reduce(done):
            self._defines_success = success is not None
            successes = 0 if success is None else success.numpy(force=True)[done].sum()
            self._sums += (done.sum(), self._return[done].sum(), self._length[done].sum(), successes)
            self._return[done] = 0.0
            self._length[done] = 0.0

    def take(self) -> dict[str, float]:
        self._count()
        n, returns, lengths, successes = self._sums.tolist()
        self._sums[:] = 0.0
        if n == 0:
            return {}
        values = {"train/return": returns / n, "train/length": lengths / n, "train/episodes": n}
        return {**values, "train/success": successes / n} if self._defines_success else values

    def state_dict(self) -> dict[str, Any]:
        self._count()
        return {"return": self._return, "length": self._length, "sums": self._sums, "success": self._defines_success}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._return, self._length, self._sums = (np.array(state[k]) for k in ("return", "length", "sums"))
        self._defines_success, self._steps = state["success"], []
