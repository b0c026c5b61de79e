"""One perceptron with ReLU and its hand-written derivative, in as few and as cheap calls as there can be.

stacked_mlp.py has the same for K networks at once. With K = 1 and layers of some 64 units the arithmetic takes less
time than calling for it, so here the layers are plain matrices, transposed once and for all, and all weights lie in
one tensor, as do their derivatives: a step of an optimizer, a norm or a copy is one call.

For such layers on a CPU, SmallPerceptron does the same in numpy on the same memory, where a call costs a third of
torch's. tests/policies/test_dqn.py holds both against autograd.

Legend: B batch, I inputs, H hidden units, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .stacked_mlp import draw

Layers = list[tuple[Any, Any]]  # weight (in, out), bias (out,), of torch or of numpy

# multiplications up to which numpy's BLAS takes one thread, for a product of matrices and of a row with a matrix
SMALL_PRODUCT, SMALL_LAYER = 2**18, 2**13


def perceptron(sizes: Sequence[int], generator: torch.Generator, device: torch.device, rows: int) -> Perceptron:
    """A perceptron with layers of these sizes; `rows`: of the batches that its derivative is wanted for."""
    largest = max(n_in * n_out for n_in, n_out in pairwise(sizes))
    small = device.type == "cpu" and largest <= SMALL_LAYER and largest * rows <= SMALL_PRODUCT
    return (SmallPerceptron if small else Perceptron)(sizes, generator, device, rows)


class Perceptron:
    """Weights and buffers; `flat` may be changed in place."""

    def __init__(self, sizes: Sequence[int], generator: torch.Generator, device: torch.device, rows: int):
        params = [p[0].to(device) for p in draw(1, sizes, generator)]
        params[-2] = params[-2].T.contiguous()  # draw's last weight is (1, out, in)
        params[1::2] = [b[0] for b in params[1::2]]
        self._shapes = [p.shape for p in params]
        self.flat_gradient = torch.zeros(sum(p.numel() for p in params), device=device)
        self._rows, self._units = rows, [torch.zeros(rows, b.numel(), device=device) for b in params[1:-2:2]]
        self._delta = [torch.zeros_like(h) for h in self._units]
        self._gradient = self._views(self.flat_gradient)
        self.move_to(torch.cat([p.flatten() for p in params]))

    def move_to(self, flat: Tensor) -> None:
        """From now on, the weights are the numbers of this tensor."""
        self.flat, self.layers = flat, self._views(flat)
        self._backward = [w.T for w, _ in self.layers]

    def __call__(self, x: Tensor) -> tuple[Tensor, list[Any]]:
        """Outputs (B, O) for inputs (B, I), and the hidden units, which the next call writes over."""
        kept = x.shape[0] == self._rows
        units: list[Tensor] = []
        h = x
        for i, (weight, bias) in enumerate(self.layers[:-1]):
            h = torch.addmm(bias, h, weight, out=self._units[i] if kept else None).relu_()  # (B, H)
            units.append(h)
        weight, bias = self.layers[-1]
        return torch.addmm(bias, h, weight), units

    def gradient(self, x: Tensor, units: list[Any], d_out: Tensor, inputs: slice | None = None) -> Tensor | None:
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

    def largest(self, x: Tensor, layers: Layers) -> Tensor:
        """Which output is the largest (B, 1) int64, of a network with these layers instead."""
        *hidden, (last_weight, last_bias) = layers
        for weight, bias in hidden:
            x = torch.addmm(bias, x, weight).relu_()
        return torch.addmm(last_bias, x, last_weight).argmax(1, keepdim=True)

    def _views(self, flat: Tensor) -> Layers:
        parts = flat.split([shape.numel() for shape in self._shapes])
        views = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        return list(zip(views[::2], views[1::2], strict=True))


class SmallPerceptron(Perceptron):
    """The same in numpy, for small layers on the CPU."""

    def move_to(self, flat: Tensor) -> None:
        super().move_to(flat)
        self._numpy_layers, self._numpy_gradients = in_numpy(self.layers), in_numpy(self._gradient)
        self._numpy_units, self._numpy_delta = ([h.numpy() for h in each] for each in (self._units, self._delta))
        self._active = [np.zeros(h.shape, bool) for h in self._units]
        self.numpy_gradient = self.flat_gradient.numpy()

    def __call__(self, x: Tensor) -> tuple[Tensor, list[Any]]:
        out, units = self.forward(x.numpy())
        return torch.from_numpy(out), units

    def gradient(self, x: Tensor, units: list[Any], d_out: Tensor, inputs: slice | None = None) -> Tensor | None:
        delta = self.backward(x.numpy(), units, d_out.numpy())
        return None if inputs is None else torch.from_numpy(np.dot(delta, self._numpy_layers[0][0][inputs].T))

    def forward(self, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """As calling it, from arrays to arrays."""
        kept, h = x.shape[0] == self._rows, x
        units: list[np.ndarray] = []
        for i, (weight, bias) in enumerate(self._numpy_layers[:-1]):
            h = np.dot(h, weight, out=self._numpy_units[i] if kept else None)
            h += bias
            units.append(np.maximum(h, 0.0, out=h))
        weight, bias = self._numpy_layers[-1]
        return np.dot(h, weight) + bias, units

    def backward(self, x: np.ndarray, units: list[np.ndarray], d_out: np.ndarray) -> np.ndarray:
        """As `gradient`, from arrays; dJ/d(what the first layer gives, before its ReLU)."""
        kept, delta = x.shape[0] == self._rows, d_out
        for i in reversed(range(len(self.layers))):
            d_weight, d_bias = self._numpy_gradients[i]
            np.dot((units[i - 1] if i else x).T, delta, out=d_weight)
            np.add.reduce(delta, 0, out=d_bias)
            if i > 0:
                delta = np.dot(delta, self._numpy_layers[i][0].T, out=self._numpy_delta[i - 1] if kept else None)
                delta *= np.greater(units[i - 1], 0.0, out=self._active[i - 1] if kept else None)
        return delta

    def largest(self, x: Tensor, layers: Layers) -> Tensor:
        *hidden, (last_weight, last_bias) = layers
        h = x.numpy()
        for weight, bias in hidden:
            h = np.maximum(np.dot(h, weight) + bias, 0.0)
        return torch.from_numpy((np.dot(h, last_weight) + last_bias).argmax(1)[:, None])


def in_numpy(layers: Layers) -> Layers:
    """The same memory as numpy's arrays."""
    return [(weight.numpy(), bias.numpy()) for weight, bias in layers]
