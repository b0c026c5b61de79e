"""A mixture of Gaussians over actions, for demonstrations that do one thing now and another then.

    p(a|s)    = sum_m w_m prod_i N(a_i; tanh(mu_mi), sigma_mi^2),   w = softmax(logits)       Bishop 1994, eq. 22
    sigma     = softplus(raw) + min_std
    J         = -E[ log p(a|s) ]
    deployed  tanh(mu_m) of the largest w_m

The form is robomimic's (Mandlekar et al. 2021, arXiv 2108.03298, BC with a GMM), which evaluates with "low noise": a
component is drawn by its weight, and all deviations are 1e-4. A policy file is deterministic, so here the likeliest
component is always the one, and there is no noise at all.

Legend: B batch, M components, A action. `out` (B, 2 M A + M) is M means (A), then M logits, then M raw deviations (A).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def mixture_nll(out: Tensor, action: Tensor, modes: int, min_std: float) -> tuple[Tensor, Tensor]:
    """J, and its derivative with respect to out."""
    rows, dims = action.shape
    means, logits, raw = out.split([modes * dims, modes, modes * dims], -1)
    mean, raw = torch.tanh(means.view(rows, modes, dims)), raw.view(rows, modes, dims)
    inverse = (F.softplus(raw) + min_std).reciprocal()
    z = (action[:, None] - mean) * inverse  # (B, M, A)
    log_density = (inverse.log() - 0.5 * z.square()).sum(-1) - 0.5 * dims * math.log(2.0 * math.pi)  # (B, M)
    log_joint = torch.log_softmax(logits, -1) + log_density
    log_p = torch.logsumexp(log_joint, -1)
    # how far each component answers for the action; all derivatives are weighed with it
    answers = torch.exp(log_joint - log_p[:, None])  # (B, M)
    d_logits = torch.softmax(logits, -1) - answers
    d_mean = -answers[..., None] * z * inverse * (1.0 - mean.square())
    d_raw = answers[..., None] * (1.0 - z.square()) * inverse * torch.sigmoid(raw)
    d_out = torch.cat([d_mean.flatten(1), d_logits, d_raw.flatten(1)], -1)
    return -log_p.mean(), d_out / rows


def likeliest_mean(x: Tensor, modes: int) -> Tensor:
    """tanh of the mean of the largest weight: (..., M A + M) -> (..., A)."""
    means = x[..., :-modes].unflatten(-1, (modes, -1))  # (..., M, A)
    best = x[..., -modes:].argmax(-1)[..., None, None].expand(*x.shape[:-1], 1, means.shape[-1])
    return torch.tanh(means.gather(-2, best)[..., 0, :])


def clear_choice(x: Tensor, modes: int, margin: float) -> Tensor:
    """(...) bool: whether the largest weight's logit is ahead of the next by more than rounding could change."""
    if modes == 1:
        return torch.ones(x.shape[:-1], dtype=torch.bool)
    first, second = x[..., -modes:].topk(2, -1).values.unbind(-1)
    return first - second > 2.0 * margin * first.abs().clamp(min=1.0)
