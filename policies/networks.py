"""The networks of policies and critics."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "tanh": nn.Tanh}


def mlp(sizes: Sequence[int], activation: str) -> nn.Sequential:
    """A multi-layer perceptron: linear layers of the given sizes, the activation between them."""
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        if i > 0:
            layers.append(ACTIVATIONS[activation]())
        layers.append(nn.Linear(n_in, n_out))
    return nn.Sequential(*layers)


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """The linear layers of an mlp, in order."""
    return [m for m in network.modules() if isinstance(m, nn.Linear)]


def initialize_(network: nn.Module, generator: torch.Generator, last_gain: float | None = None) -> nn.Module:
    """Draw the weights of an mlp from `generator`, never from the global one, and return it.

    Without `last_gain`: torch's default, uniform in +-1/sqrt(fan_in) (LeCun). With it: orthogonal, gain sqrt(2)
    and `last_gain` for the last layer, biases zero, as PPO wants (Huang et al. 2022, "37 details", 2).
    """
    layers = linear_layers(network)
    with torch.no_grad():
        for i, layer in enumerate(layers):
            if last_gain is None:
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.uniform_(-bound, bound, generator=generator)
            else:
                gain = last_gain if i == len(layers) - 1 else 2.0**0.5
                nn.init.orthogonal_(layer.weight, gain, generator=generator)
                layer.bias.zero_()
    return network
