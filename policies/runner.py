"""A policy in numpy, straight from its file: what the arm's control process runs. No torch here.

Legend: B batch, H chunk (1 for step policies), A action.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np

from ..spec import Spec
from .policy_file import PolicyFile, read_policy


def _elu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "elu": _elu,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}


class Runner:
    """The deterministic policy of a file: normalize, multi-layer perceptron, squash."""

    def __init__(self, policy: PolicyFile):
        self.spec: Spec = policy.spec
        self.provenance = policy.provenance
        network, tensors = policy.network, policy.tensors
        self._group = network["group"]
        self._activation = ACTIVATIONS[network["activation"]]
        self._head = np.tanh if network["head"] == "tanh" else (lambda x: np.clip(x, -1.0, 1.0))
        count = len(network["hidden"]) + 1
        self._layers = [(np.ascontiguousarray(tensors[f"actor.{i}.weight"].T), tensors[f"actor.{i}.bias"])
                        for i in range(count)]  # fmt: skip
        self._clip = network.get("normalizer_clip")
        if self._clip:
            self._mean, self._std = tensors["normalizer.mean"], tensors["normalizer.std"]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Runner:
        """The runner of a policy file; errors as `read_policy`."""
        return cls(read_policy(path))

    def initial_state(self, n: int) -> dict[str, np.ndarray]:
        """What a recurrent policy would carry for n worlds; nothing for a perceptron."""
        return {}

    def act(self, obs: Mapping[str, np.ndarray], state: Mapping[str, np.ndarray]):
        """Actions (B, H, A) in [-1, 1] for observations group -> (B, dim) float32, and the next state."""
        x = obs[self._group]
        if self._clip:
            x = np.clip((x - self._mean) / self._std, -self._clip, self._clip)
        for i, (weight, bias) in enumerate(self._layers):
            x = (self._activation(x) if i else x) @ weight + bias
        return self._head(x)[:, None, :], state
