"""The tanh-Gaussian of soft actor-critic, as pure functions with their derivatives.

    u = mu + sigma * eps,   eps ~ N(0, 1),   a = tanh(u)                                    Haarnoja 2018, eq. 20-21
    log pi(a) = sum_i [ log N(u_i; mu_i, sigma_i) - log(1 - tanh(u_i)^2) ]

log(1 - tanh(u)^2) is written 2 (log 2 - u - softplus(-2u)): exact and finite however far u saturates, where
log(1 - a^2 + 1e-6) is wrong from |u| = 7 on.

Legend: B batch, A action.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # the paper's implementation


class TanhGaussian(NamedTuple):
    """A sample, and what its derivative needs."""

    action: Tensor  # (B, A) in [-1, 1]
    log_prob: Tensor  # (B,) log density of `action`
    scaled_noise: Tensor  # (B, A) sigma * eps, which is du / dlog_sigma
    inside: Tensor  # (B, A) bool, where log_std was not clamped


def tanh_gaussian(mean: Tensor, log_std: Tensor, noise: Tensor) -> TanhGaussian:
    """The action that standard normal `noise` (B, A) selects under mean, log_std (B, A), and its log density."""
    inside = (log_std >= LOG_STD_MIN) & (log_std <= LOG_STD_MAX)
    log_std = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
    scaled_noise = noise * log_std.exp()
    u = mean + scaled_noise
    # -log(1 - tanh(u)^2) = 2 (u + softplus(-2u)) - 2 log 2; the constants are added once a row
    log_prob = (2.0 * (u + F.softplus(-2.0 * u)) - 0.5 * noise.square() - log_std).sum(-1)
    constant = mean.shape[-1] * (0.5 * math.log(2.0 * math.pi) + 2.0 * math.log(2.0))
    return TanhGaussian(torch.tanh(u), log_prob - constant, scaled_noise, inside)


def tanh_gaussian_action(mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """The action alone, for acting."""
    return torch.tanh(torch.addcmul(mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX).exp(), noise))


def tanh_gaussian_gradient(sample: TanhGaussian, d_action: Tensor, d_log_prob: Tensor) -> tuple[Tensor, Tensor]:
    """(dJ/dmean, dJ/dlog_std), both (B, A), of a loss J with dJ/daction (B, A) and dJ/dlog_prob (B, 1) or a scalar.

    da/du = 1 - a^2, and dlog_prob/du = 2a: the density of the noise itself does not depend on the parameters.
    """
    a = sample.action
    d_mean = d_action * (1.0 - a.square()) + 2.0 * d_log_prob * a
    d_log_std = (d_mean * sample.scaled_noise - d_log_prob) * sample.inside
    return d_mean, d_log_std
