"""Soft actor-critic for a choice among n actions (Christodoulou 2019, arXiv 1910.07207): expectations are exact.

    V(s)    = sum_a pi(a|s) [ min_i Q'_i(s, a) - alpha log pi(a|s) ]                                            eq. 10
    y       = r + gamma (1 - terminated) V(s')
    J_Q     = 1/2 E[ (Q_i(s)[a] - y)^2 ]   for i = 1, 2
    J_pi    = E[ sum_a pi(a|s) ( alpha log pi(a|s) - min_i Q_i(s, a) ) ]                                        eq. 12
    J_alpha = E[ sum_a pi(a|s) ( -alpha (log pi(a|s) + H) ) ]   with target entropy H, a share of log n         eq. 11

A critic gives the value of every action at once, the actor its logits. Nothing is sampled but the batch.

Legend: B batch, n choices.
"""

from __future__ import annotations

import torch
from torch import Tensor


def soft_value(q: Tensor, logits: Tensor, alpha: Tensor) -> Tensor:
    """V (B,) of eq. 10, for the critics' smaller or mean q (B, n) and the actor's logits (B, n)."""
    log_prob = torch.log_softmax(logits, -1)
    return (log_prob.exp() * (q - alpha * log_prob)).sum(-1)


def policy_loss(q: Tensor, logits: Tensor, alpha: Tensor) -> Tensor:
    """J_pi, for q (B, n), which counts as constant: minus the soft value."""
    return -soft_value(q, logits, alpha).mean()


def entropy(logits: Tensor) -> Tensor:
    """Entropy [nat] (B,) of the policy."""
    log_prob = torch.log_softmax(logits, -1)
    return -(log_prob.exp() * log_prob).sum(-1)


def chosen(q: Tensor, action: Tensor) -> Tensor:
    """Q_i(s)[a] (K, B) of q (K, B, n), for the choices action (B, 1) int64."""
    return q.gather(-1, action.expand(len(q), -1, -1))[..., 0]
