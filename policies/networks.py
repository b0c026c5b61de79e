"""The networks of policies and critics, as torch modules that learners put together.

    PolicyNetwork   the whole network of a policy file's document (network_document.py)
    ConvEncoder     picture -> features
    LSTMCore        one recurrent layer, a step or a sequence at a time (lstm.py)
    mlp             linear layers with activations, and layer norm if asked for

All weights are drawn by `initialize_` from a generator of the caller's; `*_tensors` name them as the policy file
does. Legend: B batch, I inputs, F features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..history import stacked_shape
from ..spec import Spec
from .lstm import LSTMCore, LSTMState
from .network_document import core_inputs, feature_maps, layer_sizes

ACTIVATIONS: dict[str, type[nn.Module]] = {"elu": nn.ELU, "relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}


def mlp(sizes: Sequence[int], activation: str, norm: str | None = None) -> nn.Sequential:
    """A multi-layer perceptron: linear layers of the given sizes, the activation between them.

    norm: "layer" puts a layer norm between every hidden layer and its activation.
    """
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(n_in, n_out))
        if i < len(sizes) - 2:
            layers += [nn.LayerNorm(n_out)] if norm else []
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """The linear layers of an mlp, in order."""
    return [m for m in network.modules() if isinstance(m, nn.Linear)]


def mlp_tensors(network: nn.Module, name: str = "actor") -> dict[str, Tensor]:
    """The weights of an mlp under the names of the policy file; the tensors themselves, no copies."""
    tensors = {}
    norms = [m for m in network.modules() if isinstance(m, nn.LayerNorm)]
    for i, layer in enumerate(linear_layers(network)):
        tensors[f"{name}.{i}.weight"], tensors[f"{name}.{i}.bias"] = layer.weight.detach(), layer.bias.detach()
    for i, norm in enumerate(norms):
        tensors[f"{name}.{i}.norm.weight"], tensors[f"{name}.{i}.norm.bias"] = norm.weight.detach(), norm.bias.detach()
    return tensors


class ConvEncoder(nn.Module):
    """Convolutions over a picture, flattened; with `features`, then tanh(layer_norm(linear)) (DrQ, DrQ-v2)."""

    def __init__(
        self,
        shape: tuple[int, ...],
        layers: Sequence[Sequence[int]],
        activation: str = "relu",
        features: int | None = None,
    ):
        """shape: (height, width, channels) of the stacked picture; layers: (channels, kernel, stride) of each."""
        super().__init__()
        maps = feature_maps(shape, layers)
        self.convolutions = nn.Sequential()
        for (n_in, _, _), (n_out, kernel, stride) in zip(maps, layers, strict=False):
            self.convolutions.extend([nn.Conv2d(n_in, n_out, kernel, stride), ACTIVATIONS[activation]()])
        flat = math.prod(maps[-1])
        self.bottleneck = None if features is None else nn.Sequential(nn.Linear(flat, features), nn.LayerNorm(features))
        self.size = features or flat

    def forward(self, image: Tensor) -> Tensor:
        """Features (..., size) of pictures (..., height, width, channels) with values from 0 to 255."""
        x = image.flatten(0, -4).permute(0, 3, 1, 2).float() / 255.0  # (B, channels, height, width)
        x = self.convolutions(x).flatten(1)
        if self.bottleneck is not None:
            x = torch.tanh(self.bottleneck(x))
        return x.view(*image.shape[:-3], self.size)

    def tensors(self) -> dict[str, Tensor]:
        """The weights under the names of the policy file; the tensors themselves, no copies."""
        result = {}
        for i, layer in enumerate(m for m in self.convolutions if isinstance(m, nn.Conv2d)):
            assert layer.bias is not None
            result[f"encoder.conv.{i}.weight"], result[f"encoder.conv.{i}.bias"] = layer.weight, layer.bias
        if self.bottleneck is not None:
            for name, layer in zip(("features", "norm"), self.bottleneck, strict=True):
                result[f"encoder.{name}.weight"], result[f"encoder.{name}.bias"] = layer.weight, layer.bias
        return {name: tensor.detach() for name, tensor in result.items()}


class PolicyNetwork(nn.Module):
    """The network of a document: vector and camera features, an LSTM if there is one, a perceptron."""

    def __init__(self, spec: Spec, document: Mapping[str, Any]):
        """`document` as network_document.py describes it, and already checked; outputs are those before the head."""
        super().__init__()
        conv, size = document.get("conv"), document.get("lstm")
        self.encoder = self.core = None
        if conv:
            shape = stacked_shape(spec, conv["group"])
            self.encoder = ConvEncoder(shape, conv["layers"], conv["activation"], conv.get("features"))
        if size:
            self.core = LSTMCore(core_inputs(spec, document), size)
        self.actor = mlp(layer_sizes(spec, document), document["activation"], document.get("norm"))

    def features(self, vector: Tensor | None, image: Tensor | None = None) -> Tensor:
        """What goes into the LSTM, or the perceptron: (..., F).

        vector: (..., I), concatenated and normalized, or None; image: (..., height, width, channels) or None.
        """
        if self.encoder is None or image is None:
            assert vector is not None
            return vector
        seen = self.encoder(image)
        return seen if vector is None else torch.cat([vector, seen], -1)

    def forward(
        self, vector: Tensor | None, image: Tensor | None = None, state: LSTMState | None = None
    ) -> tuple[Tensor, LSTMState | None]:
        """One step: outputs (B, O), and the LSTM's next state where there is one."""
        x = self.features(vector, image)
        if self.core is not None:
            x, state = self.core(x, self.core.initial_state(len(x)) if state is None else state)
        return self.actor(x), state

    def tensors(self) -> dict[str, Tensor]:
        """The weights under the names of the policy file; the tensors themselves, no copies."""
        parts = [part.tensors() for part in (self.encoder, self.core) if part is not None]
        return {name: tensor for part in [*parts, mlp_tensors(self.actor)] for name, tensor in part.items()}

    @torch.no_grad()
    def load_tensors_(self, tensors: Mapping[str, Tensor]) -> PolicyNetwork:
        """Take over the weights of a policy file, and return the network."""
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])
        return self


@torch.no_grad()
def initialize_(network: nn.Module, generator: torch.Generator, last_gain: float | None = None) -> nn.Module:
    """Draw the weights of a network from `generator`, never from the global one, and return it.

    Without `last_gain`: torch's default, uniform in +-1/sqrt(fan_in) (LeCun), of an LSTM in +-1/sqrt(H). With it:
    orthogonal, gain sqrt(2), 1 for an LSTM and `last_gain` for the last linear layer, biases zero, as PPO wants
    (Huang et al. 2022, "37 details", 2). Layer norms keep their ones and zeros.
    """
    linear = linear_layers(network)
    for layer in network.modules():
        if isinstance(layer, LSTMCore):
            weights, biases, fan_in, gain = [layer.weight_ih, layer.weight_hh], [layer.bias], layer.size, 1.0
        elif isinstance(layer, nn.Linear | nn.Conv2d):
            assert layer.bias is not None
            weights, biases, fan_in = [layer.weight], [layer.bias], layer.weight[0].numel()
            gain = last_gain if linear and layer is linear[-1] else 2.0**0.5
        else:
            continue
        if last_gain is None:
            for tensor in [*weights, *biases]:
                tensor.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=generator)
        else:
            assert gain is not None
            for weight in weights:
                nn.init.orthogonal_(weight, gain, generator=generator)
            for bias in biases:
                bias.zero_()
    return network
