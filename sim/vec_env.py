"""VecEnv: N worlds of a task behind one contract, whatever simulates them.

Legend: N worlds, A action. Tensors live on `device`; a step's tensors belong to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from ..batch import Step
from ..spec import Spec


class VecEnv(Protocol):
    """N worlds in step. An episode of world w is a pure function of (seed, w, its episode number, actions)."""

    spec: Spec
    num_envs: int
    device: torch.device
    max_episode_steps: int  # the time limit in control steps; 0 where the simulator does not say

    def reset(self, seed: int, worlds: Any = None) -> Mapping[str, Tensor]:
        """Start episode 0 of every world under `seed`; the first observations, group -> (N, dim).

        worlds: who they are (N,) to their random numbers, where others have worlds of the same run; 0 to N-1 if not
            told.
        """
        ...

    def step(self, action: Tensor) -> Step:
        """Apply action (N, A) in [-1, 1] for one control period (discrete: (N, 1) int64)."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later `load_state_dict` needs to go on to the bit: arrays and plain JSON data."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Restore, and return the observations to act on next."""
        ...

    def close(self) -> None: ...
