"""K perceptrons of one shape side by side, with a hand-written backward pass: the inner loop of the learners.

Twin critics become one batched product a layer, and an actor is the case K = 1. The derivative is written out
because autograd spends a third of an update on the CPU on fresh memory: here every product lands in a buffer
that is kept (`Workspace`), and a gradient that nobody asked for is not computed. Under torch.compile the
workspace is empty, and the compiler plans the memory itself. tests/policies/test_stacked_mlp.py holds both
passes against autograd.

Hidden weights are stored (K, in, out) and the last one (K, out, in): so every product of both passes has a
layout that is fast for BLAS (a 256 x 256 by 256 x 1 product takes MKL eight times as long the other way).

With `Workspace.bf16` the products between hidden layers, where nearly all the time goes, take their factors rounded
to bfloat16 and sum in float32; inputs, outputs, biases, activations and the weights themselves stay float32. On a CPU
with the instructions such a product takes a quarter of the time (see precision.py).

Legend: K networks, B batch, I inputs, H hidden units, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import bf16_product
from .products import layer, product

ACTIVATIONS = ("relu", "tanh", "elu")  # those whose derivative follows from their output

Params = list[Tensor]  # weight 0, bias 0, weight 1, bias 1, …; biases are (K, 1, out)


def shapes(networks: int, sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """The shape of every parameter of `networks` perceptrons with layers of these sizes."""
    result = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        result += [(networks, n_out, n_in) if last else (networks, n_in, n_out), (networks, 1, n_out)]
    return result


def draw(networks: int, sizes: Sequence[int], generator: torch.Generator) -> Params:
    """Weights and biases uniform in +-1/sqrt(fan_in) (LeCun; torch's default), from `generator` alone."""
    bounds = [n_in**-0.5 for n_in in sizes[:-1] for _ in range(2)]
    return [torch.empty(shape).uniform_(-bound, bound, generator=generator)
            for shape, bound in zip(shapes(networks, sizes), bounds, strict=True)]  # fmt: skip


@dataclass(frozen=True)
class Workspace:
    """Where the products of one kind of pass go; None lets each of them allocate."""

    hidden: list[Tensor | None]  # (K, B, H) outputs of the hidden layers
    delta: list[Tensor | None]  # (K, B, H) derivatives with respect to them
    gradient: list[Tensor | None]  # one for every parameter
    bf16: bool = False  # whether products between hidden layers round their factors to bfloat16

    @staticmethod
    def kept(params: Params, forward_rows: int, backward_rows: int, bf16: bool = False) -> Workspace:
        """Buffers for passes over so many rows."""
        weights = params[:-2:2]
        return Workspace(
            [w.new_empty(len(w), forward_rows, w.shape[-1]) for w in weights],
            [w.new_empty(len(w), backward_rows, w.shape[-1]) for w in weights],
            [torch.empty_like(p) for p in params],
            bf16,
        )

    @staticmethod
    def none(params: Params, bf16: bool = False) -> Workspace:
        return Workspace([None] * (len(params) // 2), [None] * (len(params) // 2), [None] * len(params), bf16)

    def product(self, a: Tensor, b: Tensor, out: Tensor | None) -> Tensor:
        """a @ b (K, ., .) between two hidden layers."""
        return bf16_product(a, b, out) if self.bf16 else product(a, b, out)

    def layer(self, h: Tensor, i: int, params: Params, activation: str) -> Tensor:
        """Hidden layer i (K, B, H) of its inputs (K, B, ·)."""
        weight, bias, out = params[2 * i], params[2 * i + 1], self.hidden[i]
        rounded = self.bf16 and i > 0
        if not rounded and (found := layer(h, weight, bias, activation, out)) is not None:
            return found
        h = self.product(h, weight, out) if i > 0 else product(h, weight, out)
        return _activate_(h.add_(bias), activation)


def forward(
    params: Params, x: Tensor, work: Workspace, activation: str = "relu", dropout: Sequence[Tensor] = ()
) -> tuple[Tensor, list[Tensor]]:
    """Outputs (K, B, O) for inputs (B, I) or (K, B, I), and the hidden activations that the backward pass wants.

    dropout: for every hidden layer, what its units (K, B, H) are multiplied with: 0, or 1 / (1 - rate).
    """
    h, hidden = x.expand(len(params[0]), -1, -1), []
    for i in range(len(params) // 2 - 1):
        h = work.layer(h, i, params, activation)
        h = h.mul_(dropout[i]) if dropout else h
        hidden.append(h)  # (K, B, H)
    # a row times a matrix takes BLAS a third of the time of the matrix times a column
    out = torch.bmm(params[-2], h.mT).mT if params[-2].shape[1] == 1 else torch.bmm(h, params[-2].mT)
    return out + params[-1], hidden


def parameter_gradient(
    params: Params, x: Tensor, hidden: list[Tensor], d_out: Tensor, work: Workspace, activation: str = "relu",
    dropout: Sequence[Tensor] = (),
) -> Params:  # fmt: skip
    """dJ/dparameter for every parameter, given dJ/doutput (K, B, O) at inputs x (B, I) or (K, B, I).

    dropout: as the forward pass had it; of ReLU alone, whose derivative a factor does not change.
    """
    inputs = [x.expand(len(params[0]), -1, -1), *hidden]
    gradient = list(work.gradient)
    gradient[-2] = torch.bmm(d_out.mT, hidden[-1], out=gradient[-2])
    gradient[-1] = torch.sum(d_out, 1, keepdim=True, out=gradient[-1])
    for i, delta in _backpropagate(params, hidden, d_out, work, activation, dropout):
        if i == 0:
            gradient[0] = product(inputs[0].mT, delta, gradient[0])
        else:
            gradient[2 * i] = work.product(inputs[i].mT, delta, gradient[2 * i])
        gradient[2 * i + 1] = torch.sum(delta, 1, keepdim=True, out=gradient[2 * i + 1])
    return gradient  # type: ignore[return-value]


def input_gradient(
    params: Params, hidden: list[Tensor], d_out: Tensor, first: int, work: Workspace, activation: str = "relu"
) -> Tensor:
    """dJ/dx (B, I - first) for the inputs from column `first` on, summed over the networks that share them."""
    if _skips_rows(params, d_out, work):
        return _sparse_input_gradient(params, hidden, d_out, first, activation)
    *_, (_, delta) = _backpropagate(params, hidden, d_out, work, activation)
    return torch.bmm(params[0][:, first:], delta.mT).sum(0).T.contiguous()


def _skips_rows(params: Params, d_out: Tensor, work: Workspace) -> bool:
    """Whether it pays to ask which rows have a derivative at all: on the CPU, where the answer costs nothing."""
    return len(params[0]) > 1 and d_out.shape[2] == 1 and d_out.is_cpu and not (
        work.bf16 or torch.compiler.is_compiling()
    )  # fmt: skip


def _sparse_input_gradient(params: Params, hidden: list[Tensor], d_out: Tensor, first: int, activation: str) -> Tensor:
    """The same, leaving out the rows with which a network has nothing to do: half, for the smaller of two critics."""
    result = d_out.new_zeros(d_out.shape[1], params[0].shape[1] - first)
    for k in range(len(params[0])):
        rows = d_out[k, :, 0].nonzero().squeeze(1)
        delta = d_out[k].index_select(0, rows) * params[-2][k]  # (r, H)
        for i in reversed(range(len(hidden))):
            delta = _through(delta, hidden[i][k].index_select(0, rows), activation)
            if i > 0:
                delta = torch.mm(delta, params[2 * i][k].T)
        result.index_add_(0, rows, torch.mm(delta, params[0][k, first:].T))
    return result


def _backpropagate(params: Params, hidden: list[Tensor], d_out: Tensor, work: Workspace, activation: str,
                   dropout: Sequence[Tensor] = ()):  # fmt: skip
    """(layer, dJ/dpre-activation (K, B, H)) from the last hidden layer to the first."""
    outer = torch.mul if d_out.shape[2] == 1 else torch.bmm  # the same with one output, in one pass
    delta = outer(d_out, params[-2], out=work.delta[-1])
    for i in reversed(range(len(hidden))):
        delta = _through(delta.mul_(dropout[i]) if dropout else delta, hidden[i], activation)
        yield i, delta
        if i > 0:
            delta = work.product(delta, params[2 * i].mT, work.delta[i - 1])


def _activate_(x: Tensor, activation: str) -> Tensor:
    """The activation of x, in place."""
    if activation == "relu":
        return x.relu_()
    return x.tanh_() if activation == "tanh" else F.elu_(x)


def _through(delta: Tensor, h: Tensor, activation: str) -> Tensor:
    """`delta` times the activation's derivative, in terms of its output `h`."""
    if torch.compiler.is_compiling():
        if activation == "relu":
            return torch.where(h > 0, delta, 0.0)
        return delta * (1.0 - h.square()) if activation == "tanh" else torch.where(h > 0, delta, delta * (h + 1.0))
    # the same in place and in one pass
    aten = torch.ops.aten
    if activation == "relu":
        return aten.threshold_backward.grad_input(delta, h, 0.0, grad_input=delta)
    if activation == "tanh":
        return aten.tanh_backward.grad_input(delta, h, grad_input=delta)
    return aten.elu_backward.grad_input(delta, 1.0, 1.0, 1.0, True, h, grad_input=delta)
