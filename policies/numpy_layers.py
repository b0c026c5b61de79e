"""The layers of a policy in numpy, each a function made from the file's tensors. No torch here.

Legend: B batch, I inputs, H units of the LSTM, C channels, k kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]
Tensors = Mapping[str, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * x)


def elu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


ACTIVATIONS: dict[str, Function] = {"elu": elu, "relu": relu, "tanh": np.tanh, "silu": silu}


def linear(tensors: Tensors, name: str) -> Function:
    """x -> W x + b for x (B, in)."""
    weight, bias = np.ascontiguousarray(tensors[f"{name}.weight"].T), tensors[f"{name}.bias"]
    return lambda x: x @ weight + bias


def layer_norm(tensors: Tensors, name: str) -> Function:
    """x -> weight (x - mean) / sqrt(var + 1e-5) + bias over the last axis (Ba et al. 2016; torch's epsilon)."""
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]

    def normalize(x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        variance = np.square(centred).mean(-1, keepdims=True)
        return centred / np.sqrt(variance + np.float32(1e-5)) * weight + bias

    return normalize


def perceptron(network: Mapping[str, Any], tensors: Tensors) -> Function:
    """The hidden layers and the output layer: (B, in) -> (B, outputs)."""
    layers: list[Function] = []
    for i in range(len(network["hidden"])):
        layers.append(linear(tensors, f"actor.{i}"))
        if network.get("norm"):
            layers.append(layer_norm(tensors, f"actor.{i}.norm"))
        layers.append(ACTIVATIONS[network["activation"]])
    return chain([*layers, linear(tensors, f"actor.{len(network['hidden'])}")])


def chain(layers: list[Function]) -> Function:
    """One function after the other."""

    def run(x: np.ndarray) -> np.ndarray:
        for layer in layers:
            x = layer(x)
        return x

    return run


def convolution(weight: np.ndarray, bias: np.ndarray, stride: int) -> Function:
    """(B, height, width, C) -> (B, rows, columns, channels), without padding.

    A convolution is one product of the patches (B, rows, columns, k k C), a view until then, with the kernels.
    """
    channels, _, kernel, _ = weight.shape
    kernels = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(-1, channels)  # (k k C, channels)

    def convolve(x: np.ndarray) -> np.ndarray:
        patches = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(1, 2))  # type: ignore[arg-type]
        patches = patches[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3)  # (B, rows, columns, k, k, C)
        return patches.reshape(*patches.shape[:3], -1) @ kernels + bias

    return convolve


def conv_encoder(conv: Mapping[str, Any], tensors: Tensors) -> Function:
    """The camera's features (B, F) for pictures (B, height, width, channels) uint8."""
    layers: list[Function] = []
    for i, (_, _, stride) in enumerate(conv["layers"]):
        layers.append(convolution(tensors[f"encoder.conv.{i}.weight"], tensors[f"encoder.conv.{i}.bias"], stride))
        layers.append(ACTIVATIONS[conv["activation"]])
    convolve = chain(layers)
    bottleneck = chain([])
    if conv.get("features"):
        bottleneck = chain([linear(tensors, "encoder.features"), layer_norm(tensors, "encoder.norm"), np.tanh])

    def encode(image: np.ndarray) -> np.ndarray:
        x = convolve(image.astype(np.float32) / np.float32(255.0))
        return bottleneck(x.transpose(0, 3, 1, 2).reshape(len(x), -1))  # channel by channel, as in torch

    return encode


def likeliest_mean(x: np.ndarray, modes: int) -> np.ndarray:
    """The head of a mixture: (B, H, M A + M) -> tanh of the mean of the largest weight, (B, H, A)."""
    means = x[..., :-modes].reshape(*x.shape[:-1], modes, -1)  # (B, H, M, A)
    best = x[..., -modes:].argmax(-1)[..., None, None]
    return np.tanh(np.take_along_axis(means, best, -2)[..., 0, :])


def lstm_step(tensors: Tensors) -> Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """One step of the LSTM: x (B, I), h and c (B, H) -> the next h and c."""
    w_ih, w_hh = (np.ascontiguousarray(tensors[f"lstm.{name}"].T) for name in ("weight_ih", "weight_hh"))
    bias = tensors["lstm.bias"]

    def step(x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        i, f, g, o = np.split(x @ w_ih + bias + h @ w_hh, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    return step
