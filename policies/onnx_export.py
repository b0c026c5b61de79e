"""`export_onnx`: a policy file written as an ONNX model that was seen to act as torch does.

The graph is onnx_graph.py's. Where onnxruntime is installed, the model plays a few steps on random observations
beside the torch Policy, and is not written if any action or state differs by more than 1e-5.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PolicyFileError, UsageError
from ..files import replace_durably
from .onnx_graph import NEXT, onnx_model, require_package
from .policy_file import PolicyFile, read_policy

TOLERANCE = 1e-5  # of actions and states, absolute up to 1 and relative beyond
ROWS, STEPS = 16, 4  # of the check

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    inputs: dict[str, str]  # name -> type and shape
    outputs: dict[str, str]
    difference: float | None  # largest seen between the model and torch; None where onnxruntime is missing


def export_onnx(policy: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Exported:
    """Write the policy in a file as an ONNX model: to `out`, or beside it with the ending .onnx.

    Raises:
        PolicyFileError: the policy cannot be read, the model acts otherwise, or the disk refused it.
        UsageError: the package onnx is missing, or `out` is the policy itself.
    """
    policy = Path(policy)
    path = policy.with_suffix(".onnx") if out is None else Path(out)
    if path.resolve() == policy.resolve():
        raise UsageError(f"--out {path} is the policy itself; choose another name, such as {policy.stem}.onnx")
    file = read_policy(policy)
    model = onnx_model(file)
    payload = model.SerializeToString(deterministic=True)
    difference = compare(file, payload) if importlib.util.find_spec("onnxruntime") else None
    try:
        replace_durably(path, payload)
    except OSError as error:
        raise PolicyFileError(f"cannot write the ONNX model {path}: {error.strerror}") from error
    return Exported(path, _described(model.graph.input), _described(model.graph.output), difference)


class OnnxPolicy:
    """An ONNX model of ours in onnxruntime, with the contract of Policy in numpy."""

    def __init__(self, payload: bytes):
        runtime = require_package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # small products, faster on one
        self._session = runtime.InferenceSession(payload, options, providers=["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._state = [name.removeprefix(NEXT) for name in self._outputs[1:]]
        self._inputs = {x.name: (x.type, x.shape[1:]) for x in self._session.get_inputs()}

    def initial_state(self, n: int) -> dict[str, np.ndarray]:
        types = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}
        return {name: np.zeros((n, *self._inputs[name][1]), types[self._inputs[name][0]]) for name in self._state}

    def act(self, obs: Arrays, state: Arrays) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Actions (B, H, A) for observations group -> (B, ...), and the next state."""
        given = {**obs, **state}
        action, *after = self._session.run(self._outputs, {name: given[name] for name in self._inputs})
        return action, dict(zip(self._state, after, strict=True))


def compare(file: PolicyFile, payload: bytes) -> float:
    """The largest difference between the ONNX model and the torch Policy over some steps on random observations.

    Choices, also of a mixture's mean, may differ only where the outputs that they stand for do not.

    Raises:
        PolicyFileError: it is beyond the tolerance.
    """
    import torch

    from .mixture import clear_choice
    from .policy import Policy

    policy, model = Policy.of(file), OnnxPolicy(payload)
    rng, worst = np.random.default_rng(0), 0.0
    state, theirs = policy.initial_state(ROWS), model.initial_state(ROWS)
    for _ in range(STEPS):
        obs = random_obs(file, rng, ROWS)
        tensors = {group: torch.from_numpy(x) for group, x in obs.items()}
        outputs, _ = policy.outputs(tensors, state)
        expected, state = policy.act(tensors, state)
        action, theirs = model.act(obs, theirs)
        pairs = [(state[name].numpy(), x) for name, x in theirs.items()]
        if file.network["head"] == "argmax":  # what was chosen against what is best
            chosen = outputs.gather(-1, torch.from_numpy(action))
            pairs.append((outputs.amax(-1, keepdim=True).numpy(), chosen.numpy()))
        elif file.network["head"] == "mixture":
            decided = clear_choice(outputs, file.network["modes"], TOLERANCE).numpy()
            pairs.append((expected.numpy()[decided], action[decided]))
        else:
            pairs.append((expected.numpy(), action))
        for ours, other in pairs:
            ours, other = ours.astype(np.float64), other.astype(np.float64)
            worst = max(worst, float(np.max(np.abs(ours - other) / np.maximum(1.0, np.abs(ours)), initial=0.0)))
    if not worst <= TOLERANCE:
        raise PolicyFileError(f"the ONNX model differs from the torch policy by {worst:.2g}, expected at most "
                              f"{TOLERANCE:g}; nothing was written")  # fmt: skip
    return worst


def random_obs(file: PolicyFile, rng: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
    """Newest frames of the groups that a policy reads: where there is a normalizer, as it has seen them."""
    spec, network = file.spec, file.network
    obs, start = {}, 0
    for group in network["groups"]:
        x = rng.standard_normal((rows, spec.obs_dim(group))).astype(np.float32)
        end = start + x.shape[1] * spec.history(group)
        if network.get("normalizer_clip"):  # of the newest frame, which is stacked last
            newest = slice(end - x.shape[1], end)
            x = file.tensors["normalizer.mean"][newest] + file.tensors["normalizer.std"][newest] * x
        obs[group], start = x, end
    if conv := network.get("conv"):
        obs[conv["group"]] = rng.integers(0, 256, (rows, *spec.obs_shape(conv["group"])), np.uint8)
    return obs


def _described(values: Any) -> dict[str, str]:
    onnx = require_package("onnx")
    result = {}
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        result[value.name] = f"{dtype} ({', '.join(d.dim_param or str(d.dim_value) for d in tensor.shape.dim)})"
    return result
