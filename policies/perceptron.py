"""One perceptron with ReLU and its hand-written derivative, in as few calls as there can be.

stacked_mlp.py has the same for K networks at once. With K = 1 and layers of some 64 units the arithmetic takes less
time than calling for it, so here the layers are plain matrices, transposed once and for all, with their biases added
by the product. All weights lie in one tensor, and so do their derivatives: a step of an optimizer, a norm or a copy
is one call. tests/policies/test_dqn.py holds it against autograd.

Legend: B batch, I inputs, H hidden units, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .stacked_mlp import draw

Layers = list[tuple[Tensor, Tensor]]  # weight (in, out), bias (out,)


class Perceptron:
    """Weights and buffers; `flat` may be changed in place."""

    def __init__(self, sizes: Sequence[int], generator: torch.Generator, device: torch.device, rows: int):
        """`rows`: of the batches that the derivative is wanted for."""
        params = [p[0].to(device) for p in draw(1, sizes, generator)]
        params[-2] = params[-2].T.contiguous()  # draw's last weight is (1, out, in)
        params[1::2] = [b[0] for b in params[1::2]]
        self._shapes = [p.shape for p in params]
        self.flat_gradient = torch.empty(sum(p.numel() for p in params), device=device)
        self._gradient = self._views(self.flat_gradient)
        self._rows, self._units = rows, [torch.empty(rows, b.numel(), device=device) for b in params[1:-2:2]]
        self._delta = [torch.empty_like(h) for h in self._units]
        self.move_to(torch.cat([p.flatten() for p in params]))

    def move_to(self, flat: Tensor) -> None:
        """From now on, the weights are the numbers of this tensor."""
        self.flat, self.layers = flat, self._views(flat)
        self._backward = [w.T for w, _ in self.layers]

    def __call__(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Outputs (B, O) for inputs (B, I), and the hidden units, which the next call writes over."""
        kept = x.shape[0] == self._rows
        units: list[Tensor] = []
        h = x
        for i, (weight, bias) in enumerate(self.layers[:-1]):
            h = torch.addmm(bias, h, weight, out=self._units[i] if kept else None).relu_()  # (B, H)
            units.append(h)
        weight, bias = self.layers[-1]
        return torch.addmm(bias, h, weight), units

    def gradient(self, x: Tensor, units: list[Tensor], d_out: Tensor, inputs: slice | None = None) -> Tensor | None:
        """Fill `flat_gradient` with dJ/dweight, given dJ/doutput (B, O); dJ/dx of the columns `inputs`, if named."""
        kept, delta = x.shape[0] == self._rows, d_out
        for i in reversed(range(len(self.layers))):
            d_weight, d_bias = self._gradient[i]
            torch.mm((units[i - 1] if i else x).T, delta, out=d_weight)
            torch.sum(delta, 0, out=d_bias)
            if i > 0:
                delta = torch.mm(delta, self._backward[i], out=self._delta[i - 1] if kept else None)
                delta = torch.ops.aten.threshold_backward.grad_input(delta, units[i - 1], 0.0, grad_input=delta)
        return None if inputs is None else torch.mm(delta, self._backward[0][:, inputs])

    def _views(self, flat: Tensor) -> Layers:
        parts = flat.split([shape.numel() for shape in self._shapes])
        views = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return list(zip(views[::2], views[1::2], strict=True))
