"""The return's distribution over a fixed row of atoms (Bellemare et al. 2017, "A Distributional Perspective", C51).

    z_i = v_min + i (v_max - v_min) / (n - 1),     Z(s, a) = sum_i p_i(s, a) delta(z_i),     Q = sum_i p_i z_i
    target: r + gamma z_i clipped to [v_min, v_max], its probability shared between the two nearest atoms   algorithm 1
    loss:   cross entropy between the projected target and p(s, a)

Cross entropy makes the size of a gradient independent of the size of the values, which is what lets large networks and
batches learn steadily (Farebrother et al. 2024, "Stop Regressing").

Legend: B batch, Z atoms.
"""

from __future__ import annotations

import torch
from torch import Tensor


def project(p: Tensor, values: Tensor, v_min: float, v_max: float) -> Tensor:
    """Probabilities (B, Z) on the atoms, for a distribution with probability p (B, Z) at `values` (B, Z).

    Values between two atoms count for both, the nearer one more; those beyond an end count for that end.
    """
    atoms = p.shape[-1]
    place = (values.clamp(v_min, v_max) - v_min) * ((atoms - 1) / (v_max - v_min))  # (B, Z) from 0 to Z - 1
    lower = place.floor().clamp(0, atoms - 2)
    share = place - lower
    index = lower.nan_to_num(
        0.0
    ).long()  # what is not finite stays so in `share`, instead of a place that does not exist
    result = torch.zeros_like(p).scatter_add(-1, index, p * (1.0 - share))
    return result.scatter_add(-1, index + 1, p * share)


def cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """-sum target log softmax(logits) (..., ) for target (B, Z), logits (..., B, Z)."""
    return -(target * torch.log_softmax(logits, -1)).sum(-1)
