"""Returns, advantages and targets: the one place where learners bootstrap.

Two rules hold throughout. A value is bootstrapped unless the task itself ended there: `terminated` alone says so, and
where time ran out (`truncated`) the episode would have gone on from the *true* successor. Sums over time end wherever
an episode does, either way: what comes after belongs to another one.

Rollouts lead with (N, T), and so do all arguments; their last column is cut like a truncation, without being one.
Rows where `mask` is False are no transitions: they give 0 and nothing flows through them.

Legend: N worlds, T time, B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .scan import scan_backward


def td_target(
    reward: Tensor, terminated: Tensor, next_value: Tensor, discount: float | Tensor, steps: Tensor | None = None
) -> Tensor:
    """y = r + discount^steps (1 - terminated) V(s')   (B,), of transitions or of n-step rows.

    steps: (B,) the effective n of every row, fewer than n where its episode or the buffer ended; None is 1.
    """
    assert reward.shape == terminated.shape == next_value.shape
    assert steps is None or steps.shape == reward.shape
    kept = torch.where(terminated, 0.0, next_value)
    if steps is None and not isinstance(discount, Tensor):
        return torch.add(reward, kept, alpha=discount)
    return reward + (discount if steps is None else discount ** steps.to(reward.dtype)) * kept


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

    `next_value` is the value of the true successor s'_t: where an episode ended `value[:, t + 1]` belongs to another.
    """
    assert reward.shape == value.shape == next_value.shape == terminated.shape == truncated.shape
    delta = td_target(reward, terminated, next_value, discount) - value
    return _summed(delta, discount * gae_lambda, terminated | truncated, mask)


def discounted_returns(
    reward: Tensor,
    next_value: Tensor | None,
    terminated: Tensor,
    truncated: Tensor,
    discount: float,
    mask: Tensor | None = None,
) -> Tensor:
    """Monte-Carlo returns to go (N, T): G_t = r_t + discount G_{t+1} within an episode.

    Where time ran out, or the rollout did, the rest is `next_value` of the true successor; with None it counts as 0,
    which is wrong by just that much, and all that can be done without a critic.
    """
    assert reward.shape == terminated.shape == truncated.shape
    assert next_value is None or next_value.shape == reward.shape
    done = terminated | truncated
    if next_value is not None:
        cut = truncated.clone()
        cut[:, -1] = True
        if mask is not None:  # the rollout may end in rows that are none
            cut[:, :-1] |= ~mask[:, 1:]
        reward = reward + discount * torch.where(cut & ~terminated, next_value, 0.0)
    return _summed(reward, discount, done, mask)


def n_step_returns(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float,
    n: int,
    mask: Tensor | None = None,
) -> Tensor:
    """Bootstrapped returns (N, T) over n steps, or fewer where the episode or the rollout ends.

    G^1_t = r_t + discount (1 - terminated_t) V(s'_t)
    G^k_t = r_t + discount G^{k-1}_{t+1},   and G^1_t where step t was an episode's last
    """
    assert reward.shape == truncated.shape and n >= 1
    one = td_target(reward, terminated, next_value, discount)
    ends = terminated | truncated
    ends[:, -1] = True
    if mask is not None:
        one = torch.where(mask, one, 0.0)
        ends[:, :-1] |= ~mask[:, 1:]
    result = one
    for _ in range(min(n, reward.shape[1]) - 1):  # no sum is longer than the rollout
        result = torch.where(ends, one, reward + discount * result.roll(-1, 1))
    return result if mask is None else torch.where(mask, result, 0.0)


def _summed(x: Tensor, discount: float, done: Tensor, mask: Tensor | None) -> Tensor:
    """y_t = x_t + discount (1 - done_t) y_{t+1}, over rows that are transitions."""
    assert mask is None or mask.shape == x.shape
    carry = discount * (~done).to(x.dtype)
    if mask is not None:
        x, carry = torch.where(mask, x, 0.0), torch.where(mask, carry, 0.0)
    return scan_backward(x, carry)
