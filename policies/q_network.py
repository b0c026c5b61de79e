"""A Q-network: the values of every choice for what is seen, with its derivative.

    vectors, normalized ----------------------+
                                              +--> hidden layers with ReLU --> Q (B, A)
    one camera --> convolutions with ReLU ----+

The convolutions are torch modules and differentiated by autograd; the perceptron is stacked_mlp's with K = 1, whose
derivative is written out, since a small network spends most of its time on calls and autograd doubles them.

A dueling network (Wang et al. 2016) has two last hidden layers of the same size over the same inputs, one for the
advantages and one for the value. They are one layer of twice the size here, and the last weights are zero where they
would cross over:

                 advantages' units   value's unit
    last weight  [  A x H                0     ]       (1, A + 1, 2 H)
                 [   0                 1 x H   ]

For choosing, the advantages are enough: argmax Q = argmax A. So that is all of it that acts and goes into the file.

Legend: B batch, N worlds, I vector inputs, A choices, H units of the last hidden layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..history import stacked_shape
from ..spec import Spec
from .dqn_update import dueling, dueling_gradient
from .networks import ConvEncoder, initialize_
from .stacked_mlp import Params, Workspace, draw, forward, input_gradient, parameter_gradient

NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, kernel, stride (Mnih et al. 2015)
NATURE_2013 = ((16, 8, 4), (32, 4, 2))  # (Mnih et al. 2013)

Tape = tuple[Tensor, list[Tensor], Tensor | None]  # perceptron's inputs and hidden units, the encoder's output


class QNetwork:
    """The network and its weights, which an optimizer may change in place."""

    def __init__(
        self,
        spec: Spec,
        hidden: Sequence[int],
        conv: Sequence[Sequence[int]],
        dueling: bool,
        generator: torch.Generator,
        device: torch.device,
        rows: int,
    ):
        """`conv`: layers for the task's one camera, if it has any; `rows`: of the batches that are learned from."""
        self.vectors, self.camera = spec.vectors, spec.images[0] if spec.images else None
        self.hidden, self.conv, self.dueling, self.choices = tuple(hidden), conv, dueling, spec.choices
        self.encoder: ConvEncoder | None = None
        if self.camera is not None:
            encoder = ConvEncoder(stacked_shape(spec, self.camera), conv)
            initialize_(encoder, generator)
            self.encoder = encoder.to(device)
        self._vector_dim = sum(stacked_shape(spec, g)[-1] for g in self.vectors)
        inputs = self._vector_dim + (self.encoder.size if self.encoder else 0)
        head = [p.to(device) for p in _draw(inputs, self.hidden, self.choices, dueling, generator)]
        self._flat, self.head = _side_by_side(head)
        self._crossing = _crossing(self.choices, self.hidden[-1]).to(device) if dueling else None
        self._flat_gradient, gradient = _side_by_side(head)
        self._kept = replace(Workspace.kept(self.head, rows, rows), gradient=gradient)
        self._fresh = replace(Workspace.none(self.head), gradient=gradient)
        self._rows = rows
        self._acting = self._layers()

    @property
    def params(self) -> Params:
        """Every weight: the perceptron's in one tensor, so that an optimizer makes one call of it, then the encoder's."""
        return [self._flat, *([p.detach() for p in self.encoder.parameters()] if self.encoder else [])]

    def values(self, vector: Tensor | None, image: Tensor | None) -> Tensor:
        """Q (B, A) for vectors (B, I), pictures (B, height, width, channels), or both."""
        return self.recorded(vector, image, record=False)[0]

    def recorded(self, vector: Tensor | None, image: Tensor | None, record: bool = True) -> tuple[Tensor, Tape]:
        """Q (B, A), and what `gradient` needs; the next call of either writes over it."""
        x, seen = vector, None
        if self.encoder is not None:
            with torch.set_grad_enabled(record):
                seen = self.encoder(image)
            x = seen.detach() if vector is None else torch.cat([vector, seen.detach()], 1)
        assert x is not None
        out, units = forward(self.head, x, self._work(x))
        return dueling(out[0]) if self.dueling else out[0], (x, units, seen)

    def gradient(self, tape: Tape, d_q: Tensor) -> Params:
        """dL/dweight for every weight, in the order of `params`, given dL/dQ (B, A)."""
        x, units, seen = tape
        d_out = (dueling_gradient(d_q) if self.dueling else d_q)[None]
        gradient = parameter_gradient(self.head, x, units, d_out, self._work(x))
        if self._crossing is not None:
            gradient[-2].masked_fill_(self._crossing, 0.0)
        if self.encoder is None or seen is None:
            return [self._flat_gradient]
        d_seen = input_gradient(self.head, units, d_out, self._vector_dim, self._work(x))
        return [self._flat_gradient, *torch.autograd.grad(seen, list(self.encoder.parameters()), d_seen)]

    def greedy(self, vector: Tensor | None, image: Tensor | None) -> Tensor:
        """The best choices (N, 1) int64, with as few calls as there can be."""
        x = vector
        if self.encoder is not None:
            seen = self.encoder(image)
            x = seen if vector is None else torch.cat([vector, seen], 1)
        assert x is not None
        *hidden, (weight, bias) = self._acting
        for w, b in hidden:
            x = torch.addmm(b, x, w).relu_()
        return torch.addmm(bias, x, weight).argmax(1, keepdim=True)

    def document(self) -> dict[str, Any]:
        """The network of a policy file (network_document.py), without a normalizer."""
        document: dict[str, Any] = {"kind": "mlp", "groups": list(self.vectors), "hidden": list(self.hidden),
                                    "activation": "relu", "head": "argmax"}  # fmt: skip
        if self.camera is not None:
            layers = [list(layer) for layer in self.conv]
            document["conv"] = {"group": self.camera, "layers": layers, "activation": "relu"}
        return document

    def tensors(self) -> Mapping[str, Tensor]:
        """The weights under the names of the policy file."""
        tensors = {f"actor.{i}.weight": w.T for i, (w, _) in enumerate(self._acting)}
        tensors |= {f"actor.{i}.bias": b for i, (_, b) in enumerate(self._acting)}
        return {**tensors, **(self.encoder.tensors() if self.encoder else {})}

    def _work(self, x: Tensor) -> Workspace:
        return self._kept if len(x) == self._rows else self._fresh

    def _layers(self) -> list[tuple[Tensor, Tensor]]:
        """(weight (in, out), bias (out,)) of what acting needs: views, which follow the learning."""
        weights, biases = self.head[::2], [b[0, 0] for b in self.head[1::2]]
        units = self.hidden[-1]
        hidden = [(w[0], b) for w, b in zip(weights[:-1], biases[:-1], strict=True)]
        if self.dueling:
            hidden[-1] = (hidden[-1][0][:, :units], hidden[-1][1][:units])
        return [*hidden, (weights[-1][0, : self.choices, :units].T, biases[-1][: self.choices])]


def count_weights(network: QNetwork) -> int:
    """How many weights there are to learn."""
    never = 0 if network._crossing is None else int(network._crossing.sum())
    return sum(p.numel() for p in network.params) - never


def _draw(inputs: int, hidden: tuple[int, ...], choices: int, dueling: bool, generator: torch.Generator) -> Params:
    """Weights uniform in +-1/sqrt(fan_in); a stream of a dueling network sees half of the units."""
    if not dueling:
        return draw(1, [inputs, *hidden, choices], generator)
    params = draw(1, [inputs, *hidden[:-1], 2 * hidden[-1], choices + 1], generator)
    for p in params[-2:]:
        p.mul_(2.0**0.5)
    params[-2].masked_fill_(_crossing(choices, hidden[-1]), 0.0)
    return params


def _side_by_side(params: Params) -> tuple[Tensor, Params]:
    """The numbers of `params` in one tensor, and views of it with their shapes."""
    flat = torch.cat([p.flatten() for p in params])
    parts = flat.split([p.numel() for p in params])
    return flat, [part.view_as(p) for part, p in zip(parts, params, strict=True)]


def _crossing(choices: int, units: int) -> Tensor:
    """Which of the last weights (1, A + 1, 2 H) lead from one stream to the other: they stay zero."""
    value_row, value_unit = torch.arange(choices + 1) == choices, torch.arange(2 * units) >= units
    return (value_row[:, None] != value_unit)[None]
