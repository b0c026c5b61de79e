"""A Q-network: the values of every choice for what is seen, with its derivative.

    vectors, normalized ----------------------+
                                              +--> hidden layers with ReLU --> Q (B, A)
    one camera --> convolutions with ReLU ----+

The convolutions are torch modules and differentiated by autograd; the derivative of the perceptron (perceptron.py) is
written out, since a small network spends most of its time on calls and autograd doubles them.

A dueling network (Wang et al. 2016) has two last hidden layers of the same size over the same inputs, one for the
advantages and one for the value. They are one layer of twice the size here, and the last weights are zero where they
would cross over:

    last weight  [ H x A     0   ]  from the advantages' units      (2 H, A + 1)
                 [   0     H x 1 ]  from the value's units

For choosing, the advantages are enough: argmax Q = argmax A. So that is all of it that acts and goes into the file.

Legend: B batch, N worlds, I vector inputs, A choices, H units of the last hidden layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..history import stacked_shape
from ..spec import Spec
from .dqn_update import dueling, dueling_gradient
from .networks import ConvEncoder, initialize_
from .perceptron import Layers, Perceptron, SmallPerceptron, in_numpy, perceptron

NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, kernel, stride (Mnih et al. 2015)
NATURE_2013 = ((16, 8, 4), (32, 4, 2))  # (Mnih et al. 2013)

Tape = tuple[Tensor, list[Tensor], Tensor | None]  # perceptron's inputs and hidden units, the encoder's output


class QNetwork:
    """The network; `weights` holds all its numbers, and an optimizer may change it in place."""

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
        sizes = [inputs, *self.hidden, self.choices]
        if dueling:
            sizes[-2:] = [2 * self.hidden[-1], self.choices + 1]
        self.head = perceptron(sizes, generator, device, rows)
        self.weights = self.head.flat
        if self.encoder is not None:
            self.weights = _gathered(self.encoder, self.head)
        self._crossing = self._part_streams() if dueling else None
        self._layers = self._acting_layers()
        self._acting = in_numpy(self._layers) if isinstance(self.head, SmallPerceptron) else self._layers

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
        out, units = self.head(x)
        return dueling(out) if self.dueling else out, (x, units, seen)

    def gradient(self, tape: Tape, d_q: Tensor) -> Tensor:
        """dL/dweight in the order of `weights`, given dL/dQ (B, A); the next call writes over it."""
        x, units, seen = tape
        d_out = dueling_gradient(d_q) if self.dueling else d_q
        pictured = None if seen is None else slice(self._vector_dim, None)
        d_seen = self.head.gradient(x, units, d_out, pictured)
        if self._crossing is not None:
            self.head.flat_gradient.masked_fill_(self._crossing, 0.0)
        if self.encoder is None or seen is None:
            return self.head.flat_gradient
        others = torch.autograd.grad(seen, list(self.encoder.parameters()), d_seen)
        return torch.cat([self.head.flat_gradient, *(g.flatten() for g in others)])

    def greedy(self, vector: Tensor | None, image: Tensor | None) -> Tensor:
        """The best choices (N, 1) int64."""
        x = vector
        if self.encoder is not None:
            with torch.no_grad():
                seen = self.encoder(image)
            x = seen if vector is None else torch.cat([vector, seen], 1)
        assert x is not None
        return self.head.largest(x, self._acting)

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
        tensors = {f"actor.{i}.weight": w.T for i, (w, _) in enumerate(self._layers)}
        tensors |= {f"actor.{i}.bias": b for i, (_, b) in enumerate(self._layers)}
        return {**tensors, **(self.encoder.tensors() if self.encoder else {})}

    def _part_streams(self) -> Tensor:
        """Set the weights that lead from one stream to the other to zero; which of all weights those are."""
        weight, bias = self.head.layers[-1]
        for p in (weight, bias):  # were drawn uniform in +-1/sqrt(fan_in); a stream sees half as many units
            p.mul_(2.0**0.5)
        crossing = torch.zeros_like(self.head.flat, dtype=torch.bool)
        last = crossing[-(weight.numel() + bias.numel()) :][: weight.numel()].view_as(weight)
        last[self.hidden[-1] :, :-1] = True
        last[: self.hidden[-1], -1] = True
        self.head.flat.masked_fill_(crossing, 0.0)
        return crossing

    def _acting_layers(self) -> Layers:
        """What acting needs: views, which follow the learning."""
        if not self.dueling:
            return self.head.layers
        *trunk, (weight, bias), (last, last_bias) = self.head.layers
        units = self.hidden[-1]
        return [*trunk, (weight[:, :units], bias[:units]), (last[:units, :-1], last_bias[:-1])]


def count_weights(network: QNetwork) -> int:
    """How many weights there are to learn."""
    never = 0 if network._crossing is None else int(network._crossing.sum())
    return network.weights.numel() - never


def _gathered(encoder: ConvEncoder, head: Perceptron) -> Tensor:
    """The numbers of both in one tensor, of which their weights become views."""
    params = list(encoder.parameters())
    weights = torch.cat([head.flat, *(p.detach().flatten() for p in params)])
    own, *others = weights.split([head.flat.numel(), *(p.numel() for p in params)])
    for p, part in zip(params, others, strict=True):
        p.data = part.view_as(p)
    head.move_to(own)
    return weights
