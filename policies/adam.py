"""Adam on lists of tensors, in place, in one call: what the hand-written updates share.

    m <- b1 m + (1 - b1) g;   v <- b2 v + (1 - b2) g^2                      Kingma & Ba 2015, algorithm 1
    p <- p - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

Nothing here waits for a device: the count of steps is a tensor, and the step size may be one.

On the CPU a step treats numbers below 1e-38 as zero. The moments of a unit whose gradient has become zero (a dead
ReLU) shrink until they are that small and then stay so for ever, and there this arithmetic takes six times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # the paper's defaults
SMALLEST = 5e-324  # a double that is zero where denormals are flushed

# torch's own optimizers are made of these; its type stubs leave them out
_FUSED_ADAM_: Any = torch._fused_adam_  # pyright: ignore[reportPrivateImportUsage]
_NORMS: Any = torch._foreach_norm  # pyright: ignore[reportPrivateImportUsage]
_MULTIPLY_: Any = torch._foreach_mul_  # pyright: ignore[reportPrivateImportUsage]

Moments = tuple[list[Tensor], list[Tensor]]  # first, second


def zero_moments(params: Sequence[Tensor]) -> Moments:
    return [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]


def adam_(
    params: Sequence[Tensor],
    gradient: Sequence[Tensor],
    moments: Moments,
    steps: Tensor,
    rate: float | Tensor,
    epsilon: float = EPSILON,
    beta_2: float = BETA_2,
) -> None:
    """One step in place; `steps`, a scalar tensor, counts this one already."""
    if not torch.compiler.is_compiling():
        # the kernel inside torch.optim.Adam(fused=True): one pass over memory instead of seven
        with flushed_denormals():
            _FUSED_ADAM_(
                params, gradient, *moments, [], [steps] * len(params), lr=rate, beta1=BETA_1, beta2=beta_2,
                weight_decay=0.0, eps=epsilon, amsgrad=False, maximize=False,
            )  # fmt: skip
        return
    step_size = rate / (1.0 - BETA_1**steps)
    root = (1.0 - beta_2**steps).sqrt()
    for p, g, m, v in zip(params, gradient, *moments, strict=True):
        m.lerp_(g, 1.0 - BETA_1)
        v.mul_(beta_2).addcmul_(g, g, value=1.0 - beta_2)
        p.sub_(step_size * m / (v.sqrt() / root + epsilon))


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Numbers too small for a normalized mantissa count as zero inside, on this thread's CPU."""
    already = SMALLEST * 1.0 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def clip_norm_(gradient: Sequence[Tensor], most: float) -> Tensor:
    """Scale the gradient in place so that its norm is at most `most`; the norm before, a scalar tensor."""
    norms = _NORMS(gradient)
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    # clamped, not branched on: the host never looks. A norm that is not finite stays visible in the metric
    _MULTIPLY_(gradient, (norm + 1e-6).reciprocal_().mul_(most).clamp_max_(1.0))
    return norm
