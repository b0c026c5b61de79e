"""Rollout: the last T steps of N worlds, for learners that use experience once and throw it away.

Steps are kept as they came, which costs nothing: no world overwrites a tensor that it handed out. One call for each
column then puts them side by side.

Frames come out one by one, as they came: a learner that sees several keeps those before among its extras, where they
reach back beyond the rollout's first row.

Legend: N worlds, T time, A action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch, Sample, Step
from ..errors import RunError, UsageError
from ..spec import Spec

Rows = tuple[Mapping[str, Tensor], Tensor, Mapping[str, Tensor], Step]  # obs, action, extras, step


class Rollout:
    """Filled by T calls of `add`, emptied by one `sample`, whose tensors are the caller's."""

    def __init__(self, spec: Spec, num_envs: int, steps: int, device: torch.device | str = "cpu"):
        self._groups = tuple(spec.observations)
        self._num_envs, self._steps, self._device = num_envs, steps, torch.device(device)
        self._rows: list[Rows] = []

    @property
    def num_rows(self) -> int:
        return len(self._rows) * self._num_envs

    def add(self, obs: Mapping[str, Tensor], action: Tensor, extras: Mapping[str, Tensor], step: Step) -> None:
        """Store one step of every world; `obs` is what was acted on, everything leads with (N,)."""
        if len(self._rows) == self._steps:
            raise UsageError(f"this rollout holds {self._steps} steps and is full; sample it before adding more")
        self._rows.append((obs, action, extras, step))

    def sample(self, request: Sample, rng: np.random.Generator) -> Batch:
        """The whole rollout in order, leading (N, T), with true successors; the rollout is empty afterwards."""
        if request != Sample(batch_size=0, length=self._steps):
            raise UsageError(f"a rollout is handed out whole, as Sample(batch_size=0, length={self._steps}); "
                             f"asked for {request}. A replay buffer serves other requests")  # fmt: skip
        if len(self._rows) < self._steps:
            raise UsageError(f"this rollout holds {len(self._rows)} of {self._steps} steps; collect the rest before "
                             f"sampling")  # fmt: skip
        obs, action, extras, steps = zip(*self._rows, strict=True)
        self._rows = []
        return Batch(
            obs={group: self._column([o[group] for o in obs]) for group in self._groups},
            action=self._column(action),
            reward=self._column([step.reward for step in steps]),
            next_obs={group: self._column([step.next_obs[group] for step in steps]) for group in self._groups},
            terminated=self._column([step.terminated for step in steps]),
            truncated=self._column([step.truncated for step in steps]),
            mask=self._mask(steps),
            extras={name: self._column([e[name] for e in extras]) for name in extras[0]},
        )

    def _column(self, values: Sequence[Tensor]) -> Tensor:
        """T times (N, ...) as (N, T, ...) on the rollout's device, without waiting for it."""
        column = torch.stack(values, 1)  # type: ignore[arg-type]
        return column.to(self._device, non_blocking=True) if self._device.type == "cuda" else column.to(self._device)

    def _mask(self, steps: Sequence[Step]) -> Tensor | None:
        """(N, T), where any step has one: worlds may say so only when it matters."""
        if all(step.mask is None for step in steps):
            return None
        return self._column([torch.ones_like(s.terminated) if s.mask is None else s.mask for s in steps])

    def save(self, folder: Path) -> dict[str, Any]:
        """Nothing to write: a run is saved between iterations, when its rollout is empty."""
        if self._rows:
            raise RunError(f"a rollout is saved when it is empty, this one holds {len(self._rows)} of {self._steps} "
                           f"steps; write checkpoints between iterations")  # fmt: skip
        return {}

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Back to empty, the only state that `save` allows."""
        self._rows = []
