"""Advantages and returns from values. Bootstrapping asks `terminated` alone; traces end wherever an episode does.

Legend: N worlds, T time.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float,
    gae_lambda: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Generalized advantage estimates (N, T), Schulman et al. 2015 (arXiv 1506.02438) eq. 16.

        delta_t = r_t + discount (1 - terminated_t) V(s'_t) - V(s_t)
        A_t     = delta_t + discount lambda (1 - done_t) A_{t+1}

    All arguments (N, T). `next_value` is the value of the *true* successor s'_t: where time ran out the episode
    would have gone on from there, and where an episode ended `value[:, t + 1]` belongs to another one.
    Rows where `mask` is False are no transitions: their advantage is 0 and nothing flows through them.
    """
    assert reward.shape == value.shape == next_value.shape == terminated.shape == truncated.shape
    delta = reward + discount * torch.where(terminated, 0.0, next_value) - value
    carry = discount * gae_lambda * (~(terminated | truncated)).to(delta.dtype)
    if mask is not None:
        delta, carry = torch.where(mask, delta, 0.0), torch.where(mask, carry, 0.0)
    # one time step is contiguous in memory
    delta, carry = delta.T.contiguous(), carry.T.contiguous()  # (T, N)
    advantage = delta.clone()
    for t in range(len(delta) - 2, -1, -1):
        advantage[t].addcmul_(carry[t], advantage[t + 1])
    return advantage.T.contiguous()  # (N, T)
