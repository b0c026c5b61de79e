"""Rewards scaled by the running deviation of the discounted return, so that values are of order one in every task.

    R_t = r_t + discount (1 - done_{t-1}) R_{t-1}            r'_t = clip(r_t / std(R), -10, 10)

Engstrom et al. 2020 (arXiv 2005.12729) and Huang et al. 2022, detail "reward scaling". The reward is not centred,
which would change what is best. Buffers hold raw rewards and logs show them; only a learner's values are scaled.

Legend: N worlds, T time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..normalizer import Normalizer, Pool
from .scan import scan_forward

CLIP = 10.0


class ReturnNormalizer:
    """Follows the discounted return of N worlds from rollout to rollout."""

    def __init__(self, num_envs: int, discount: float, device: torch.device | str = "cpu",
                 pool: Pool | None = None):  # fmt: skip
        """`pool`: as in Normalizer."""
        self.discount = discount
        self.running = Normalizer(1, device=device, pool=pool)
        self.carry = torch.zeros(num_envs, dtype=torch.float64, device=device)  # discount (1 - done) R of the last step

    def update(self, reward: Tensor, done: Tensor, mask: Tensor | None = None) -> None:
        """Merge the returns of a rollout, reward and done (N, T); rows where `mask` (N, T) is False do not count."""
        x = reward.to(torch.float64, copy=True)
        goes_on = self.discount * (~done).double()
        if mask is not None:  # what is no transition rewards and discounts nothing
            x, goes_on = torch.where(mask, x, 0.0), torch.where(mask, goes_on, 1.0)
        x[:, 0] += self.carry
        returns = scan_forward(x, goes_on.roll(1, -1))
        self.carry.copy_(goes_on[:, -1] * returns[:, -1])
        self.running.update(returns[..., None], mask)

    @property
    def scale(self) -> Tensor:
        """The deviation (1,) that rewards are divided by."""
        return self.running.std32

    def __call__(self, reward: Tensor) -> Tensor:
        return (reward / self.scale).clamp(-CLIP, CLIP)

    def state_dict(self) -> dict[str, Any]:
        return {"running": self.running.state_dict(), "carry": self.carry.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.running.load_state_dict(state["running"])
        self.carry.copy_(state["carry"])
