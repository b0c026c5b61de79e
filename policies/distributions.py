"""Distributions over actions, as pure functions with their derivatives.

The tanh-Gaussian of soft actor-critic:

    u = mu + sigma * eps,   eps ~ N(0, 1),   a = tanh(u)                                    Haarnoja 2018, eq. 20-21
    log pi(a) = sum_i [ log N(u_i; mu_i, sigma_i) - log(1 - tanh(u_i)^2) ]

log(1 - tanh(u)^2) is written 2 (log 2 - u - softplus(-2u)): exact and finite however far u saturates, where
log(1 - a^2 + 1e-6) is wrong from |u| = 7 on.

One of n choices, by logits:

    log pi(a) = logits_a - log sum_i exp logits_i

Legend: B batch, A action, n choices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
    clamped = log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)
    inside, log_std = clamped == log_std, clamped
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


# ---- the Gaussian with one deviation for all states ------------------------------------------------------------------


def gaussian_log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density (...) of x (..., A) under independent Gaussians mean (..., A), log_std (A,)."""
    return gaussian_log_prob_and_gradient(x, mean, log_std)[0]


def gaussian_log_prob_and_gradient(
    x: Tensor, mean: Tensor, log_std: Tensor
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    """gaussian_log_prob, and what turns dJ/dlog_prob (B,) into (dJ/dmean (B, A), dJ/dlog_std (A,))."""
    inverse = torch.exp(-log_std)
    z = (x - mean) * inverse
    squared = z.square()
    constant = -0.5 * math.log(2.0 * math.pi) * log_std.shape[-1] - log_std.sum()

    def gradient(d_log_prob: Tensor) -> tuple[Tensor, Tensor]:
        return d_log_prob[:, None] * z * inverse, torch.mv(squared.mT, d_log_prob) - d_log_prob.sum()

    return torch.add(constant, squared.sum(-1), alpha=-0.5), gradient


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Entropy [nat], a scalar; its derivative with respect to every log_std is 1."""
    return log_std.sum(-1) + 0.5 * math.log(2.0 * math.pi * math.e) * log_std.shape[-1]


def gaussian_kl(old_mean: Tensor, old_log_std: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(old || new) [nat] (...), exact: means (..., A), log_std (A,)."""
    variance_ratio = torch.exp(2.0 * (old_log_std - log_std))
    shift = (old_mean - mean) * torch.exp(-log_std)
    return (log_std - old_log_std + 0.5 * (variance_ratio + shift.square() - 1.0)).sum(-1)


def gaussian_kl_gradient(
    old_mean: Tensor, old_log_std: Tensor, mean: Tensor, log_std: Tensor, d_kl: Tensor
) -> tuple[Tensor, Tensor]:
    """(dJ/dmean (B, A), dJ/dlog_std (A,)) of a loss J with dJ/dKL (B,)."""
    inverse = torch.exp(-log_std)
    shift = (mean - old_mean) * inverse  # (B, A)
    variance_ratio = torch.exp(2.0 * (old_log_std - log_std))
    d = d_kl[:, None]
    return d * shift * inverse, (d * (1.0 - variance_ratio - shift.square())).sum(0)


# ---- one of n choices ------------------------------------------------------------------------------------------------


def categorical_sample(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Choices (..., 1) int64 drawn under logits (..., n): the largest of logits plus Gumbel noise, -log of Exp(1).

    A third of the time of torch.multinomial, and it needs no probabilities.
    """
    waiting = torch.empty_like(logits).exponential_(generator=generator)
    return (logits - waiting.log_()).argmax(-1, keepdim=True)


def categorical_log_prob(action: Tensor, logits: Tensor) -> Tensor:
    """Log probability (...) of the choices `action` (...) int64 under logits (..., n)."""
    return torch.log_softmax(logits, -1).gather(-1, action[..., None])[..., 0]


def categorical_log_prob_and_gradient(action: Tensor, logits: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """categorical_log_prob of rows (B,), and what turns dJ/dlog_prob (B,) into dJ/dlogits (B, n): one where it was
    chosen, minus the probability."""
    log_p, chosen = torch.log_softmax(logits, -1), action[:, None]

    def gradient(d_log_prob: Tensor) -> Tensor:
        d = d_log_prob[:, None]
        return (-d * log_p.exp()).scatter_add(-1, chosen, d)

    return log_p.gather(-1, chosen)[:, 0], gradient


def categorical_entropy(logits: Tensor) -> Tensor:
    """Entropy [nat] (...) under logits (..., n)."""
    log_p = torch.log_softmax(logits, -1)
    return -(log_p.exp() * log_p).sum(-1)


def categorical_entropy_gradient(logits: Tensor, d_entropy: Tensor) -> Tensor:
    """dJ/dlogits (B, n) of a loss J with dJ/dentropy (B,): -p (log p + H)."""
    log_p = torch.log_softmax(logits, -1)
    p = log_p.exp()
    return -d_entropy[:, None] * p * (log_p - (p * log_p).sum(-1, keepdim=True))


def categorical_kl(old_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(old || new) [nat] (...), exact, for logits (..., n)."""
    old_log_p = torch.log_softmax(old_logits, -1)
    return (old_log_p.exp() * (old_log_p - torch.log_softmax(logits, -1))).sum(-1)


def categorical_kl_gradient(old_logits: Tensor, logits: Tensor, d_kl: Tensor) -> Tensor:
    """dJ/dlogits (B, n) of a loss J with dJ/dKL (B,): p - p_old."""
    return d_kl[:, None] * (torch.softmax(logits, -1) - torch.softmax(old_logits, -1))
