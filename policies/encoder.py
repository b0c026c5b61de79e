"""A camera's encoder in front of a hand-written perceptron, which hands back what its features should have been.

The perceptron's own passes are stacked_mlp.py's; those of the convolutions are autograd's, begun at dJ/dfeatures.

Legend: B batch, F features, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .adam import adam_, zero_moments
from .networks import ConvEncoder, initialize_


class Encoder:
    """ConvEncoder with its optimizer; what the last call saw is what `descend` learns from."""

    def __init__(self, conv: Mapping[str, Any], shape: Sequence[int], generator: torch.Generator, device: torch.device):
        """conv: the encoder's part of a policy file's document; shape: (height, width, C) of the stacked picture."""
        network = ConvEncoder(tuple(shape), conv["layers"], conv["activation"], conv.get("features"))
        initialize_(network, generator)
        self.network = network.to(device)
        self._weights = list(self.network.parameters())
        self.params = [p.detach() for p in self._weights]  # the same memory
        self.moments = zero_moments(self.params)
        self._features: Any = None

    def __call__(self, image: Tensor) -> Tensor:
        """Features (B, F) of pictures (B, height, width, C) uint8, as a constant."""
        with torch.enable_grad():
            self._features = features = self.network(image)
        return features.detach()

    @torch.no_grad()
    def look(self, image: Tensor) -> Tensor:
        """The same, with nothing kept to learn from."""
        return self.network(image)

    def descend(self, d_features: Tensor, steps: Tensor, rate: float | Tensor) -> None:
        """One step of Adam down J, given dJ/dfeatures (B, F); `steps` counts this one already."""
        assert self._features is not None
        gradient = torch.autograd.grad(self._features, self._weights, d_features)
        self._features = None
        adam_(self.params, [g.contiguous() for g in gradient], self.moments, steps, rate)

    def lists(self) -> dict[str, list[Tensor]]:
        """Everything that an update changes."""
        return {"encoder": self.params, "encoder_moment_1": self.moments[0], "encoder_moment_2": self.moments[1]}
