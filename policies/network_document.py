"""The network document of a policy file: which network it is, checked against a Spec. No torch here.

    kind             "mlp"
    groups           vector groups, concatenated in this order; each stacked over its history (history.py)
    normalizer_clip  optional: v <- clip((v - mean) / std, ± this) of the concatenated vector v
    conv             optional: {"group": a camera, "layers": [[channels, kernel, stride], ...], "activation",
                     "features": optional F}; its output follows the vector
    lstm             optional: H, the size of one recurrent layer between those inputs and the hidden layers
    hidden           sizes of the hidden layers
    activation       elu | relu | tanh | silu, after every hidden layer
    norm             optional: "layer", a layer norm between a hidden layer and its activation
    head             tanh | clip: continuous actions in [-1, 1];  argmax: the index of the largest output;
                     mixture: tanh of the likeliest of M means
    modes            with mixture: M

    encoder.conv.<i>.weight      (channels, in, kernel, kernel)    without padding
    encoder.conv.<i>.bias        (channels,)
    encoder.features.weight      (F, flat)      F = features: tanh(layer_norm(linear(flat))) (Yarats et al. 2021, DrQ)
    encoder.features.bias        (F,)
    encoder.norm.weight, .bias   (F,)
    lstm.weight_ih, .weight_hh   (4H, in), (4H, H)    gates in torch's order: input, forget, cell, output
    lstm.bias                    (4H,)
    actor.<i>.weight, .bias      (out, in), (out,)    hidden layers, then the output layer
    actor.<i>.norm.weight, .bias (out,)               of the hidden layers, where "norm" is named
    normalizer.mean, .std        (vector,)

A policy's state, leading (B,): "history.<group>", the earlier frames of the groups it reads, and "lstm.h", "lstm.c".
An image (height, width, channels) uint8 is divided by 255; the last feature map is flattened channel by channel,
each row by row, as torch flattens (channels, height, width). Outputs: action_horizon actions, one after the other; of a
mixture each is M means (A), one after the other, and then M logits of how likely they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from .. import history
from ..errors import PolicyFileError
from ..spec import ObsTerm, Spec

ACTIVATIONS = ("elu", "relu", "tanh", "silu")
HEADS = ("tanh", "clip", "argmax", "mixture")
FIELDS = ("kind", "groups", "normalizer_clip", "conv", "lstm", "hidden", "activation", "norm", "head", "modes")
LSTM_STATE = ("lstm.h", "lstm.c")
CONV_FIELDS = ("group", "layers", "activation", "features")
MOST_INPUTS = 2**26  # numbers that a network may see of one world, and that one layer may gather from a picture
MOST_WEIGHTS = 2**28  # 1 GiB; a policy that runs many times a second on an arm is far smaller


def groups_read(network: Mapping[str, Any]) -> tuple[str, ...]:
    """The observation groups that this network reads: the vectors, then the camera."""
    return (*network["groups"], *([network["conv"]["group"]] if network.get("conv") else []))


def initial_state(spec: Spec, network: Mapping[str, Any], n: int, zeros: Any) -> dict[str, Any]:
    """What a policy carries for n worlds at the start of an episode; zeros(shape, dtype_name) makes an array."""
    state = history.initial_history(spec.only(groups_read(network)), n, zeros)
    if size := network.get("lstm"):
        state |= {name: zeros((n, size), "float32") for name in LSTM_STATE}
    return state


def vector_dim(spec: Spec, network: Mapping[str, Any]) -> int:
    """Length of the concatenated vector, its groups stacked over their history."""
    return sum(history.stacked_shape(spec, group)[-1] for group in network["groups"])


def feature_maps(shape: tuple[int, ...], layers: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Shapes (channels, height, width) of the image (height, width, channels) and of every layer's output."""
    maps = [(shape[2], shape[0], shape[1])]
    for channels, kernel, stride in layers:
        _, height, width = maps[-1]
        maps.append((channels, (height - kernel) // stride + 1, (width - kernel) // stride + 1))
    return maps


def conv_dim(spec: Spec, conv: Mapping[str, Any]) -> int:
    """How many numbers the encoder of the camera hands on."""
    maps = feature_maps(history.stacked_shape(spec, conv["group"]), conv["layers"])
    return conv.get("features") or math.prod(maps[-1])


def layer_sizes(spec: Spec, network: Mapping[str, Any]) -> list[int]:
    """Sizes of the perceptron at the end: what goes in, the hidden layers, the outputs."""
    n_in = network.get("lstm") or core_inputs(spec, network)
    return [n_in, *network["hidden"], spec.action_horizon * head_inputs(spec, network)]


def head_inputs(spec: Spec, network: Mapping[str, Any]) -> int:
    """Outputs of the perceptron for one action."""
    if network["head"] == "mixture":
        return network["modes"] * (spec.action_dim + 1)
    return spec.choices if network["head"] == "argmax" else spec.action_dim


def core_inputs(spec: Spec, network: Mapping[str, Any]) -> int:
    """Length of vector and camera features together."""
    return vector_dim(spec, network) + (conv_dim(spec, network["conv"]) if network.get("conv") else 0)


def expected_tensors(spec: Spec, network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that this network needs to serve this Spec."""
    shapes: dict[str, tuple[int, ...]] = {}
    if conv := network.get("conv"):
        maps = feature_maps(history.stacked_shape(spec, conv["group"]), conv["layers"])
        for i, (channels, kernel, _) in enumerate(conv["layers"]):
            shapes[f"encoder.conv.{i}.weight"] = (channels, maps[i][0], kernel, kernel)
            shapes[f"encoder.conv.{i}.bias"] = (channels,)
        if features := conv.get("features"):
            shapes["encoder.features.weight"] = (features, math.prod(maps[-1]))
            shapes["encoder.features.bias"] = (features,)
            shapes["encoder.norm.weight"] = shapes["encoder.norm.bias"] = (features,)
    if size := network.get("lstm"):
        shapes["lstm.weight_ih"] = (4 * size, core_inputs(spec, network))
        shapes["lstm.weight_hh"], shapes["lstm.bias"] = (4 * size, size), (4 * size,)
    for i, (n_in, n_out) in enumerate(pairwise(layer_sizes(spec, network))):
        shapes[f"actor.{i}.weight"] = (n_out, n_in)
        shapes[f"actor.{i}.bias"] = (n_out,)
        if network.get("norm") and i < len(network["hidden"]):
            shapes[f"actor.{i}.norm.weight"] = shapes[f"actor.{i}.norm.bias"] = (n_out,)
    if network.get("normalizer_clip"):
        shapes["normalizer.mean"] = shapes["normalizer.std"] = (vector_dim(spec, network),)
    return shapes


# ---- checking --------------------------------------------------------------------------------


def check_network(network: Mapping[str, Any], spec: Spec, where: Any) -> None:
    """Refuse a document that is malformed, does not suit the Spec, or is beyond all reason.

    Raises:
        PolicyFileError: naming `where`, the field, what was found and what was expected.
    """

    def refuse(what: str, found: Any, expected: str):
        raise PolicyFileError(f"{where}: network {what} is {found!r}, expected {expected}")

    def check(holds: bool, what: str, found: Any, expected: str) -> None:
        if not holds:
            refuse(what, found, expected)

    check(network.get("kind") == "mlp", "kind", network.get("kind"), "'mlp'")
    for name in network:
        check(name in FIELDS, f"field {name!r}", network[name], f"only {', '.join(FIELDS)}")
    groups, vectors = network.get("groups"), [g for g in spec.vectors if _is_vector(spec.observations[g])]
    conv, size = network.get("conv"), network.get("lstm")
    check(isinstance(groups, list | tuple) and all(isinstance(g, str) and g in vectors for g in groups)
          and len(set(groups)) == len(groups), "groups", groups,
          f"a list of the spec's float32 groups, each once: {', '.join(vectors) or 'it has none'}")  # fmt: skip
    assert groups is not None
    check(bool(groups) or conv is not None, "groups", groups, "at least one group, or a conv encoder")
    clip = network.get("normalizer_clip")
    check(clip is None or (type(clip) in (int, float) and 0 < clip < math.inf and bool(groups)), "normalizer_clip",
          clip, "a positive number or nothing, and a vector group to normalize")  # fmt: skip
    if conv is not None:
        _check_conv(conv, spec, check)
    check(size is None or _is_size(size), "lstm", size, "a size between 1 and 65536, or nothing")
    hidden = network.get("hidden")
    check(isinstance(hidden, list | tuple) and all(_is_size(n) for n in hidden), "hidden", hidden,
          "a list of layer sizes between 1 and 65536")  # fmt: skip
    check(network.get("activation") in ACTIVATIONS, "activation", network.get("activation"),
          f"one of {', '.join(ACTIVATIONS)}")  # fmt: skip
    check(network.get("norm") in (None, "layer"), "norm", network.get("norm"), "'layer' or nothing")
    _check_head(network.get("head"), network.get("modes"), spec, check)

    inputs = sum(math.prod(history.stacked_shape(spec, group)) for group in groups_read(network))
    check(inputs <= MOST_INPUTS, "input", inputs, f"at most {MOST_INPUTS} numbers; what would a policy see in more?")
    weights = sum(math.prod(shape) for shape in expected_tensors(spec, network).values())
    check(weights <= MOST_WEIGHTS, "size", weights, f"at most {MOST_WEIGHTS} weights; use smaller layers")


def _is_vector(terms: Sequence[ObsTerm]) -> bool:
    """Whether a group can be stacked and normalized: numbers of one kind and one history."""
    one_kind = {t.dtype for t in terms} == {"float32"} and len({t.history for t in terms}) == 1
    return one_kind and sum(t.size for t in terms) > 0


def _is_size(n: Any) -> bool:
    return type(n) is int and 0 < n <= 65536


def _check_head(head: Any, modes: Any, spec: Spec, check: Any) -> None:
    check(head in HEADS, "head", head, f"one of {', '.join(HEADS)}")
    if head == "mixture":
        check(_is_size(modes), "modes", modes, "a number of means between 1 and 65536")
    else:
        check(modes is None, "modes", modes, "nothing without the head 'mixture'")
    if spec.discrete:
        check(head == "argmax", "head", head, "'argmax', since the spec's actions are discrete")
        check(spec.choices > 0, "head", head, "one discrete action; the spec has "
              + ", ".join(term.name for term in spec.actions))  # fmt: skip
    else:
        check(head != "argmax", "head", head, "'tanh', 'clip' or 'mixture', since the spec's actions are continuous")


def _check_conv(conv: Any, spec: Spec, check: Any) -> None:
    check(isinstance(conv, Mapping) and set(conv) <= set(CONV_FIELDS), "conv", conv,
          f"an object of {', '.join(CONV_FIELDS)}")  # fmt: skip
    check(isinstance(conv.get("group"), str) and conv["group"] in spec.images, "conv.group", conv.get("group"),
          f"one of the spec's cameras: {', '.join(spec.images) or 'it has none'}")  # fmt: skip
    layers: Any = conv.get("layers")
    check(isinstance(layers, list | tuple) and len(layers) > 0 and all(
        isinstance(x, list | tuple) and len(x) == 3 and all(_is_size(n) for n in x) for x in layers),
        "conv.layers", layers, "a list of [channels, kernel, stride], each between 1 and 65536")  # fmt: skip
    check(conv.get("activation") in ACTIVATIONS, "conv.activation", conv.get("activation"),
          f"one of {', '.join(ACTIVATIONS)}")  # fmt: skip
    features = conv.get("features")
    check(features is None or _is_size(features), "conv.features", features, "a size between 1 and 65536, or nothing")
    maps = feature_maps(history.stacked_shape(spec, conv["group"]), layers)
    for i, (_, kernel, _) in enumerate(conv["layers"]):
        (channels, height, width), (_, rows, columns) = maps[i], maps[i + 1]
        check(kernel <= min(height, width), "conv.layers", layers,
              f"no kernel larger than its input; a kernel of {kernel} meets {height} x {width}")  # fmt: skip
        check(channels * kernel * kernel * rows * columns <= MOST_INPUTS, "conv.layers", layers,
              f"no layer that gathers more than {MOST_INPUTS} numbers of a picture")  # fmt: skip
