"""Policy: the torch side of a policy file, for evaluating many worlds at once and for exporting.

Legend: B batch, H chunk (1 for step policies), A action.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..spec import Spec
from .networks import linear_layers, mlp
from .policy_file import PolicyFile, read_policy, write_policy


class Policy:
    """A deterministic policy: Spec, normalizer, network and provenance, as the file holds them."""

    def __init__(
        self,
        spec: Spec,
        algorithm: str,
        network: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        provenance: Mapping[str, Any] | None = None,
        evaluation: Mapping[str, Any] | None = None,
    ):
        self.spec = spec.for_policy_file()
        self.algorithm, self.network = algorithm, dict(network)
        self.provenance, self.evaluation = dict(provenance or {}), dict(evaluation or {})
        self.tensors = {name: t.detach().cpu().float().clone() for name, t in tensors.items()}
        sizes = [self.spec.obs_dim(network["group"]), *network["hidden"], self.spec.action_dim]
        self._actor = mlp(sizes, network["activation"])
        with torch.no_grad():
            for i, layer in enumerate(linear_layers(self._actor)):
                layer.weight.copy_(self.tensors[f"actor.{i}.weight"])
                layer.bias.copy_(self.tensors[f"actor.{i}.bias"])
        self._actor.requires_grad_(False)

    def initial_state(self, n: int) -> dict[str, Tensor]:
        """What a recurrent policy would carry for n worlds; nothing for a perceptron."""
        return {}

    @torch.no_grad()
    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Actions (B, H, A) in [-1, 1] for observations group -> (B, dim), and the next state."""
        x = obs[self.network["group"]]
        if clip := self.network.get("normalizer_clip"):
            x = ((x - self.tensors["normalizer.mean"]) / self.tensors["normalizer.std"]).clamp(-clip, clip)
        x = self._actor(x)
        x = torch.tanh(x) if self.network["head"] == "tanh" else x.clamp(-1.0, 1.0)
        return x[:, None, :], state

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy file; errors as `write_policy`."""
        tensors = {name: t.numpy() for name, t in self.tensors.items()}
        write_policy(path, PolicyFile(self.spec, self.algorithm, self.network, tensors,
                                      self.provenance, self.evaluation))  # fmt: skip

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """The policy of a file; errors as `read_policy`."""
        file = read_policy(path)
        tensors = {name: torch.from_numpy(array.copy()) for name, array in file.tensors.items()}
        return cls(file.spec, file.algorithm, file.network, tensors, file.provenance, file.evaluation)


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """The policy in a file, ready to act.

    Raises:
        PolicyFileError: naming the field, what was expected and what was found.
    """
    return Policy.load(path)
