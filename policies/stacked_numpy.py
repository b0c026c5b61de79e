"""Stacked perceptrons on the CPU in numpy, on the memory of torch's tensors: a call costs a third.

For layers so small that the arithmetic takes less time than calling for it, and BLAS only one thread. The same
function as stacked_mlp.py, which says what is computed; tests/policies/test_a2c.py holds updates of both against
autograd.

Legend: K networks, B batch, I inputs, H hidden units, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .perceptron import SMALL_LAYER, SMALL_PRODUCT
from .stacked_mlp import Params


def is_small(params: Params, rows: int) -> bool:
    """Whether perceptrons with these parameters are better off here, for batches of so many rows."""
    largest = max(w[0].numel() for w in params[::2])
    return params[0].is_cpu and largest <= SMALL_LAYER and largest * rows <= SMALL_PRODUCT


class StackedNumpy:
    """Passes over perceptrons whose parameters, and derivatives of them, are the given tensors."""

    def __init__(self, params: Params, gradient: Params, activation: str):
        self._params, self._gradient = [p.numpy() for p in params], [g.numpy() for g in gradient]
        self._last = self._params[-2].swapaxes(1, 2)  # (K, H, O)
        self._first = [p[0] for p in self._params]  # of the first network alone
        self._activate, self._slope = FUNCTIONS[activation]

    def forward(self, x: Tensor) -> tuple[Tensor, list[np.ndarray]]:
        """Outputs (K, B, O) for inputs (B, I), and the hidden activations that the backward pass wants."""
        h, hidden = x.numpy(), []
        for i in range(0, len(self._params) - 2, 2):
            h = np.matmul(h, self._params[i])  # (K, B, H)
            h += self._params[i + 1]
            h = self._activate(h)
            hidden.append(h)
        return torch.from_numpy(np.matmul(hidden[-1], self._last) + self._params[-1]), hidden

    def first(self, x: Tensor) -> Tensor:
        """Outputs (B, O) of the first network alone."""
        *layers, weight, bias = self._first
        h = x.numpy()
        for w, b in zip(layers[::2], layers[1::2], strict=True):
            h = np.dot(h, w)
            h += b
            h = self._activate(h)
        return torch.from_numpy(np.dot(h, weight.T) + bias)

    def parameter_gradient(self, x: Tensor, hidden: Sequence[Any], d_out: Tensor) -> None:
        """Fill in dJ/dparameter, given dJ/doutput (K, B, O) at the first B rows of what `forward` was given."""
        rows, delta = d_out.shape[1], d_out.numpy()
        inputs = [x.numpy(), *hidden]
        np.matmul(delta.swapaxes(1, 2), hidden[-1][:, :rows], out=self._gradient[-2])
        np.add.reduce(delta, 1, keepdims=True, out=self._gradient[-1])
        for i in reversed(range(len(hidden))):
            delta = np.matmul(
                delta, self._params[2 * i + 2] if i == len(hidden) - 1 else self._params[2 * i + 2].swapaxes(1, 2)
            )
            delta *= self._slope(hidden[i][:, :rows])
            np.matmul(inputs[i][..., :rows, :].swapaxes(-1, -2), delta, out=self._gradient[2 * i])
            np.add.reduce(delta, 1, keepdims=True, out=self._gradient[2 * i + 1])


def _tanh_slope(h: np.ndarray) -> np.ndarray:
    slope = np.multiply(h, h)
    return np.subtract(1.0, slope, out=slope)


def _elu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0)))


Function = Callable[[np.ndarray], np.ndarray]
FUNCTIONS: dict[str, tuple[Function, Function]] = {  # of its input, and the derivative in terms of its output
    "tanh": (lambda x: np.tanh(x, out=x), _tanh_slope),
    "relu": (lambda x: np.maximum(x, 0.0, out=x), lambda h: h > 0.0),
    "elu": (_elu, lambda h: np.where(h > 0.0, np.float32(1.0), h + np.float32(1.0))),
}
