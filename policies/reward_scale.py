"""Rewards divided by a running scale of their discounted sum, so that values fit between fixed ends.

    G_t = r_t + discount (1 - done_{t-1}) G_{t-1}
    scale = max( std(G), max |G| / most )                                FlashSAC (arXiv 2604.04539), sec. 4

The reward is not centred, which would change what is best. Replays hold raw rewards; a learner scales those of a batch
by the scale of the day.

Legend: N worlds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..normalizer import Normalizer
from .parallel import ALONE, Group, pool_of


class RewardScale:
    """Follows the discounted sum of rewards in N worlds, step by step."""

    def __init__(self, num_envs: int, discount: float, most: float, device: torch.device,
                 group: Group = ALONE):  # fmt: skip
        """most: what no value should exceed once divided by the scale."""
        self.discount, self.most, self._group = discount, most, group
        self._running = Normalizer(1, device=device, pool=pool_of(group))
        self._sum = torch.zeros(num_envs, device=device)  # G, already zero where an episode ended
        self._largest = torch.zeros((), device=device)

    def update(self, reward: Tensor, done: Tensor, mask: Tensor | None = None) -> None:
        """Take in one step, reward and done (N,); worlds where `mask` is False made no transition."""
        g = self.discount * self._sum + reward
        if mask is not None:
            g = torch.where(mask, g, self._sum)
        self._running.update(g[:, None], mask)
        torch.maximum(self._largest, self._group.largest(g.abs().max()), out=self._largest)  # in place, for CUDA graphs
        self._sum.copy_(torch.where(done if mask is None else done & mask, 0.0, g))

    def cover(self, largest: float) -> None:
        """Take in that discounted sums of this size exist, which these worlds have not shown yet."""
        self._largest.clamp_min_(largest)

    def __call__(self, reward: Tensor) -> Tensor:
        return reward / torch.maximum(self._running.std32[0], self._largest / self.most)

    def state_dict(self) -> dict[str, Any]:
        return {"running": self._running.state_dict(), "sum": self._sum.clone(), "largest": self._largest.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._running.load_state_dict(state["running"])
        self._sum.copy_(state["sum"])
        self._largest.copy_(state["largest"])
