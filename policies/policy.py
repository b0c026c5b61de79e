"""Policy: the torch side of a policy file, for evaluating many worlds at once and for exporting.

Legend: B batch, H chunk (1 for step policies), A action.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..history import stack_history
from ..spec import Spec
from .mixture import likeliest_mean
from .network_document import LSTM_STATE, check_network, groups_read, initial_state
from .networks import PolicyNetwork
from .policy_file import PolicyFile, read_policy, write_policy

DTYPES = {"float32": torch.float32, "uint8": torch.uint8}


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
        check_network(self.network, self.spec, f"a policy of {algorithm}")
        self.provenance, self.evaluation = dict(provenance or {}), dict(evaluation or {})
        self.tensors = {name: t.detach().cpu().float().clone() for name, t in tensors.items()}
        self._network = PolicyNetwork(self.spec, self.network).load_tensors_(self.tensors).requires_grad_(False)
        self._seen = self.spec.only(groups_read(self.network))

    def initial_state(self, n: int) -> dict[str, Tensor]:
        """What the policy carries for n worlds at the start of an episode: earlier frames, the LSTM's h and c."""
        return initial_state(self.spec, self.network, n, lambda shape, dtype: torch.zeros(shape, dtype=DTYPES[dtype]))

    @torch.no_grad()
    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Actions for observations group -> (B, ...), and the next state.

        Returns: (B, H, A) in [-1, 1], or of a discrete task the choices (B, H, 1) int64.
        """
        x, after = self.outputs(obs, state)
        match self.network["head"]:
            case "argmax":
                return x.argmax(-1, keepdim=True), after
            case "mixture":
                return likeliest_mean(x, self.network["modes"]), after
        return torch.tanh(x) if self.network["head"] == "tanh" else x.clamp(-1.0, 1.0), after

    @torch.no_grad()
    def outputs(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The network's outputs (B, H, O) before the head, such as the values of all choices, and the next state."""
        network = self.network
        stacked, after = stack_history(self._seen, obs, state)
        image = stacked[network["conv"]["group"]] if network.get("conv") else None
        memory = (state[LSTM_STATE[0]], state[LSTM_STATE[1]]) if network.get("lstm") else None
        x, memory = self._network(self._vector(stacked), image, memory)
        if memory is not None:
            after |= zip(LSTM_STATE, memory, strict=True)
        return x.unflatten(-1, (self.spec.action_horizon, -1)), after  # (B, H, O)

    def _vector(self, stacked: Mapping[str, Tensor]) -> Tensor | None:
        """The vector groups side by side and normalized; nothing for a network that sees a camera alone."""
        if not (groups := self.network["groups"]):
            return None
        x = stacked[groups[0]] if len(groups) == 1 else torch.cat([stacked[group] for group in groups], -1)
        if clip := self.network.get("normalizer_clip"):
            x = ((x - self.tensors["normalizer.mean"]) / self.tensors["normalizer.std"]).clamp(-clip, clip)
        return x

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy file; errors as `write_policy`."""
        write_policy(path, self.file())

    def file(self) -> PolicyFile:
        """What `save` writes."""
        tensors = {name: t.numpy() for name, t in self.tensors.items()}
        return PolicyFile(self.spec, self.algorithm, self.network, tensors, self.provenance, self.evaluation)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Policy:
        """The policy of a file; errors as `read_policy`."""
        return cls.of(read_policy(path))

    @classmethod
    def of(cls, file: PolicyFile) -> Policy:
        """The policy that a file's contents describe."""
        tensors = {name: torch.from_numpy(array.copy()) for name, array in file.tensors.items()}
        return cls(file.spec, file.algorithm, file.network, tensors, file.provenance, file.evaluation)


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """The policy in a file, ready to act.

    Raises:
        PolicyFileError: naming the field, what was expected and what was found.
    """
    return Policy.load(path)
