"""A policy file as an ONNX model, node by node: normalizer, history and LSTM inside. No torch here.

    inputs    one per group that the network reads, the newest frame alone: vectors (B, dim) float32, cameras
              (B, height, width, channels) uint8; and one per entry of the policy's state, zeros at an episode's start
    outputs   "action", (B, H, A) float32 in [-1, 1] or the choices (B, H, 1) int64; "next.<entry>" of the state
    metadata  "spec", "algorithm" and "provenance" of the policy file, as JSON

The network is network_document.py's. Legend: B batch, H chunk (1 for step policies), A action.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import PolicyFileError, UsageError
from ..history import PREFIX
from ..spec import Spec
from .network_document import LSTM_STATE, groups_read, head_inputs, initial_state
from .policy_file import PolicyFile

OPSET = 17  # of 2021, with layer normalization; every runtime of today reads it
IR_VERSION = 8
NEXT = "next."
FLOAT = 1  # onnx.TensorProto.FLOAT
OPERATORS = {"elu": "Elu", "relu": "Relu", "tanh": "Tanh"}


def require_package(name: str) -> Any:
    """An optional package, imported. Raises UsageError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UsageError(f"exporting to ONNX needs the package {name}: pip install 'poise[export]'") from None


def onnx_model(policy: PolicyFile) -> Any:
    """The onnx.ModelProto that acts as this policy does.

    Raises:
        UsageError: the package onnx is missing.
        PolicyFileError: an observation group is named as an output is.
    """
    onnx = require_package("onnx")
    make, spec, network = onnx.helper, policy.spec, policy.network
    if "action" in groups_read(network):
        raise PolicyFileError("an ONNX model's output is called 'action', and so is an observation group of this "
                              "policy; rename the group")  # fmt: skip
    graph = _Graph(onnx, policy.tensors)
    groups = {g: np.zeros((0, *spec.obs_shape(g)), spec.observations[g][0].dtype) for g in groups_read(network)}
    state: dict[str, np.ndarray] = initial_state(spec, network, 0, np.zeros)
    after = _act(graph, policy)

    def value(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        return make.make_tensor_value_info(name, make.np_dtype_to_tensor_dtype(np.dtype(dtype)), ["B", *shape])

    inputs = [value(name, x.shape[1:], x.dtype) for name, x in {**groups, **state}.items()]
    size, kind = (1, np.int64) if network["head"] == "argmax" else (spec.action_dim, np.float32)
    outputs = [value("action", (spec.action_horizon, size), kind)]
    outputs += [value(NEXT + name, x.shape[1:], x.dtype) for name, x in state.items()]
    assert set(after) == set(state)
    model = make.make_model(
        make.make_graph(graph.nodes, "poise", inputs, outputs, graph.constants),
        opset_imports=[make.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="poise",
    )
    document = {"spec": spec.to_json(), "algorithm": policy.algorithm, "provenance": dict(policy.provenance)}
    make.set_model_props(model, {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True)
                                 for k, v in document.items()})  # fmt: skip
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and constants as they come; a value is known by its name."""

    def __init__(self, onnx: Any, tensors: Mapping[str, np.ndarray]):
        self._onnx, self._tensors = onnx, tensors
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, output: str = "", count: int = 1, **attributes: Any) -> Any:
        """A node; the name of its output, `output` or a fresh one, or a list of `count` names."""
        names = [output or f"{operator}.{len(self.nodes)}"] if count == 1 else [
            f"{operator}.{len(self.nodes)}.{i}" for i in range(count)]  # fmt: skip
        self.nodes.append(self._onnx.helper.make_node(operator, inputs, names, **attributes))
        return names[0] if count == 1 else names

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """A constant of its own."""
        return self._keep(np.asarray(value, dtype), f"constant.{len(self.constants)}")

    def weight(self, name: str) -> str:
        """A tensor of the policy file, under its name there."""
        return self._keep(self._tensors[name], name)

    def _keep(self, array: np.ndarray, name: str) -> str:
        self.constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    # ---- layers ------------------------------------------------------------------------------

    def linear(self, x: str, name: str) -> str:
        return self.add("Gemm", x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), transB=1)

    def layer_norm(self, x: str, name: str) -> str:
        return self.add("LayerNormalization", x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"),
                        axis=-1, epsilon=1e-5)  # fmt: skip

    def activation(self, x: str, name: str) -> str:
        return self.add("Mul", x, self.add("Sigmoid", x)) if name == "silu" else self.add(OPERATORS[name], x)


def _act(graph: _Graph, policy: PolicyFile) -> dict[str, str]:
    """Put the whole of `act` into the graph; the names of the state's next entries."""
    spec, network = policy.spec, policy.network
    stacked, after = {}, {}
    for group in groups_read(network):
        stacked[group] = group
        if spec.history(group) > 1:
            stacked[group] = graph.add("Concat", PREFIX + group, group, axis=-1)
            bounds = [graph.constant([x], np.int64) for x in (spec.obs_shape(group)[-1], 2**62, -1)]  # start, end, axis
            after[PREFIX + group] = graph.add("Slice", stacked[group], *bounds, output=f"{NEXT}{PREFIX}{group}")
    parts = [_vector(graph, network, [stacked[g] for g in network["groups"]])] if network["groups"] else []
    if conv := network.get("conv"):
        parts.append(_encode(graph, conv, stacked[conv["group"]]))
    x = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=-1)
    if network.get("lstm"):
        x, c = _remember(graph, x, network["lstm"])
        after |= zip(LSTM_STATE, (x, c), strict=True)
    for i in range(len(network["hidden"])):
        x = graph.linear(x, f"actor.{i}")
        x = graph.layer_norm(x, f"actor.{i}.norm") if network.get("norm") else x
        x = graph.activation(x, network["activation"])
    x = graph.linear(x, f"actor.{len(network['hidden'])}")
    x = graph.add("Reshape", x, graph.constant([-1, spec.action_horizon, head_inputs(spec, network)], np.int64))
    match network["head"]:
        case "argmax":
            graph.add("ArgMax", x, axis=-1, keepdims=1, output="action")
        case "mixture":
            graph.add("Tanh", _likeliest(graph, x, spec, network["modes"]), output="action")
        case "tanh":
            graph.add("Tanh", x, output="action")
        case _:
            graph.add("Clip", x, graph.constant(-1.0), graph.constant(1.0), output="action")
    return after


def _likeliest(graph: _Graph, x: str, spec: Spec, modes: int) -> str:
    """The mean (B, H, A) of the largest weight of a mixture."""
    split = graph.constant([modes * spec.action_dim, modes], np.int64)
    means, logits = graph.add("Split", x, split, axis=-1, count=2)
    means = graph.add("Reshape", means, graph.constant([0, 0, modes, spec.action_dim], np.int64))
    return graph.add("GatherND", means, graph.add("ArgMax", logits, axis=-1, keepdims=1), batch_dims=2)


def _vector(graph: _Graph, network: Mapping[str, Any], groups: list[str]) -> str:
    """The vector groups side by side and normalized."""
    x = groups[0] if len(groups) == 1 else graph.add("Concat", *groups, axis=-1)
    if clip := network.get("normalizer_clip"):
        x = graph.add("Sub", x, graph.weight("normalizer.mean"))
        x = graph.add("Div", x, graph.weight("normalizer.std"))
        x = graph.add("Clip", x, graph.constant(-clip), graph.constant(clip))
    return x


def _encode(graph: _Graph, conv: Mapping[str, Any], image: str) -> str:
    """The camera's features."""
    x = graph.add("Div", graph.add("Cast", image, to=FLOAT), graph.constant(255.0))
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    for i, (_, kernel, stride) in enumerate(conv["layers"]):
        weights = graph.weight(f"encoder.conv.{i}.weight"), graph.weight(f"encoder.conv.{i}.bias")
        x = graph.add("Conv", x, *weights, kernel_shape=[kernel, kernel], strides=[stride, stride])
        x = graph.activation(x, conv["activation"])
    x = graph.add("Flatten", x, axis=1)
    if conv.get("features"):
        x = graph.add("Tanh", graph.layer_norm(graph.linear(x, "encoder.features"), "encoder.norm"))
    return x


def _remember(graph: _Graph, x: str, size: int) -> tuple[str, str]:
    """One step of the LSTM: the names of its next h and c."""
    x = graph.add("Gemm", x, graph.weight("lstm.weight_ih"), graph.weight("lstm.bias"), transB=1)
    x = graph.add("Gemm", LSTM_STATE[0], graph.weight("lstm.weight_hh"), x, transB=1)
    i, f, g, o = graph.add("Split", x, graph.constant([size] * 4, np.int64), axis=-1, count=4)
    kept = graph.add("Mul", graph.add("Sigmoid", f), LSTM_STATE[1])
    new = graph.add("Mul", graph.add("Sigmoid", i), graph.add("Tanh", g))
    c = graph.add("Add", kept, new, output=NEXT + LSTM_STATE[1])
    return graph.add("Mul", graph.add("Sigmoid", o), graph.add("Tanh", c), output=NEXT + LSTM_STATE[0]), c
