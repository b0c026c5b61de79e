"""A policy in numpy, straight from its file: what the arm's control process runs. No torch here.

Legend: B batch, H chunk (1 for step policies), A action.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from ..history import stack_history
from ..spec import Spec
from .network_document import LSTM_STATE, groups_read, initial_state
from .numpy_layers import conv_encoder, likeliest_mean, lstm_step, perceptron
from .policy_file import PolicyFile, read_policy


class Runner:
    """The deterministic policy of a file: stack, normalize, camera features, LSTM, perceptron, head."""

    def __init__(self, policy: PolicyFile):
        self.spec: Spec = policy.spec
        self.provenance = policy.provenance
        self._network, self._tensors = network, tensors = policy.network, policy.tensors
        self._seen = self.spec.only(groups_read(network))
        self._encode = conv_encoder(network["conv"], tensors) if network.get("conv") else None
        self._remember = lstm_step(tensors) if network.get("lstm") else None
        self._actor = perceptron(network, tensors)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Runner:
        """The runner of a policy file; errors as `read_policy`."""
        return cls(read_policy(path))

    def initial_state(self, n: int) -> dict[str, np.ndarray]:
        """What the policy carries for n worlds at the start of an episode: earlier frames, the LSTM's h and c."""
        return initial_state(self.spec, self._network, n, np.zeros)

    def act(self, obs: Mapping[str, np.ndarray], state: Mapping[str, np.ndarray]):
        """Actions for observations group -> (B, ...), float32 or uint8, and the next state.

        Returns: (B, H, A) in [-1, 1], or of a discrete task the choices (B, H, 1) int64.
        """
        network = self._network
        stacked, after = stack_history(self._seen, obs, state)
        x = self._vector(stacked)
        if self._encode is not None:
            x = np.concatenate([x, self._encode(stacked[network["conv"]["group"]])], -1)
        if self._remember is not None:
            memory = self._remember(x, state[LSTM_STATE[0]], state[LSTM_STATE[1]])
            after |= zip(LSTM_STATE, memory, strict=True)
            x = memory[0]
        x = self._actor(x)
        x = x.reshape(len(x), self.spec.action_horizon, -1)  # (B, H, outputs)
        match network["head"]:
            case "argmax":
                return x.argmax(-1, keepdims=True), after
            case "mixture":
                return likeliest_mean(x, network["modes"]), after
        return np.tanh(x) if network["head"] == "tanh" else np.clip(x, -1.0, 1.0), after

    def _vector(self, stacked: Mapping[str, np.ndarray]) -> np.ndarray:
        """The vector groups side by side and normalized: (B, I); I = 0 for a network that sees a camera alone."""
        groups = self._network["groups"]
        if not groups:
            return np.zeros((len(stacked[self._network["conv"]["group"]]), 0), np.float32)
        x = stacked[groups[0]] if len(groups) == 1 else np.concatenate([stacked[group] for group in groups], -1)
        if clip := self._network.get("normalizer_clip"):
            x = np.clip((x - self._tensors["normalizer.mean"]) / self._tensors["normalizer.std"], -clip, clip)
        return x
