"""Deep Q-learning (Mnih et al. 2013, 1312.5602; Mnih et al. 2015, Nature 518, 529) and what was found to help it.

    L  = E[ w l(y - Q(s, a)) ]         l(e) = e^2, or Huber's, whose derivative is e clipped to [-1, 1]
    y  = R + gamma^n (1 - terminated) Q'(s', a'),   R = r_0 + gamma r_1 + ... + gamma^(n-1) r_(n-1)
    a' = argmax_a Q'(s', a)            Nature; Q' is the target network, or Q itself as Algorithm 1 prints it
    a' = argmax_a Q(s', a)             double Q-learning (van Hasselt et al. 2016)
    Q  = V + A - mean_a A              dueling networks (Wang et al. 2016, eq. 9)
    w, p                               importance weights, priorities p = |y - Q| (Schaul et al. 2016)

The target y (returns.py) is a constant: nothing is derived through it. So the derivative of the squared loss is

    dL/dQ = -2 E[ y - Q ]

where Mnih et al. 2013, eq. 3, print E[(y - Q) dQ]: without the sign and the factor. Only `terminated` cuts the
bootstrap. Each loss returns its value and its derivative; the networks (q_network.py) carry it on.

Legend: B batch, A choices.
"""

from __future__ import annotations

import torch
from torch import Tensor

RMSPROP_DECAY = 0.95  # Nature, extended data table 1: of the mean gradient and of the mean square alike
RMSPROP_MIN_SQUARE = 0.01  # ..., of the gradient summed over the batch, as DeepMind's code has it
SMALLEST_PRIORITY = 1e-6  # a transition without error can still be drawn (Schaul et al. 2016, section 3.3)


def next_value(target_q: Tensor, online_q: Tensor | None = None) -> Tensor:
    """The value (B,) of s', for Q'(s', .) (B, A); with Q(s', .) as well, that one chooses the action."""
    if online_q is None:
        return target_q.amax(1)
    return target_q.gather(1, online_q.argmax(1, keepdim=True))[:, 0]


def q_loss(
    q: Tensor, action: Tensor, target: Tensor, weight: Tensor | None = None, huber: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """L, dL/dQ (B, A) and the errors y - Q(s, a) (B,), for Q(s, .) (B, A), action (B, 1) int64, target (B,)."""
    error = target - q.gather(1, action).squeeze(1)
    bounded = error.clamp(-1.0, 1.0) if huber else error
    slope = bounded if weight is None else bounded * weight
    # Huber's loss is b (e - b / 2) for the bounded error b: one formula on both sides of the corner
    value = torch.dot(slope, torch.sub(error, bounded, alpha=0.5) if huber else error)
    rows = 1.0 / q.shape[0]
    d_chosen = slope * (-rows if huber else -2.0 * rows)
    return value * rows, torch.zeros_like(q).scatter_(1, action, d_chosen.unsqueeze(1)), error


def priorities(error: Tensor) -> Tensor:
    """New priorities (B,) of transitions whose error y - Q was this."""
    return error.abs() + SMALLEST_PRIORITY


def dueling(out: Tensor) -> Tensor:
    """Q (B, A) for advantages and value side by side, (B, A + 1)."""
    advantage, value = out[:, :-1], out[:, -1:]
    return advantage + (value - advantage.mean(1, keepdim=True))


def dueling_gradient(d_q: Tensor) -> Tensor:
    """dL/dout (B, A + 1) of `dueling`, for dL/dQ (B, A)."""
    total = d_q.sum(1, keepdim=True)
    return torch.cat([d_q - total / d_q.shape[1], total], 1)


def linear_schedule(step: float, start: float, end: float, length: float) -> float:
    """From `start` at step 0 to `end` at step `length`, and `end` from there on."""
    return end if step >= length else start + (end - start) * max(step, 0.0) / length


def centred_rmsprop_(
    params: list[Tensor],
    gradient: list[Tensor],
    averages: tuple[list[Tensor], list[Tensor]],
    rate: float,
    min_square: float,
) -> None:
    """One step of Nature's RMSProp (Graves 2013, eq. 38-40, without momentum), in place:

    m <- d m + (1 - d) g;   s <- d s + (1 - d) g^2;   p <- p - rate g / sqrt(s - m^2 + min_square)
    """
    first, second = averages
    torch._foreach_lerp_(first, gradient, 1.0 - RMSPROP_DECAY)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_mul_(second, RMSPROP_DECAY)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_addcmul_(second, gradient, gradient, 1.0 - RMSPROP_DECAY)  # pyright: ignore[reportPrivateImportUsage]
    spread = torch._foreach_addcmul(second, first, first, -1.0)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_clamp_min_(spread, 0.0)  # pyright: ignore[reportPrivateImportUsage]  # rounding may leave -1e-12
    torch._foreach_add_(spread, min_square)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_sqrt_(spread)  # pyright: ignore[reportPrivateImportUsage]
    torch._foreach_addcdiv_(params, gradient, spread, -rate)  # pyright: ignore[reportPrivateImportUsage]
