"""Rollout: the last T steps of N worlds, for learners that use experience once and throw it away.

Legend: N worlds, T time, A action. Each observation is held once: the successor of step t is the observation of
step t + 1, except where an episode ended, whose true last observation is kept aside. Of worlds on a GPU all successors
are held, since the host would have to wait for where an episode ended.

Frames come out one by one, as they came: a learner that sees several keeps those before among its extras, where they
reach back beyond the rollout's first row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch, Sample, Step
from ..errors import RunError, UsageError
from ..spec import Spec


class Rollout:
    """Filled by T calls of `add`, emptied by one `sample`, which hands its tensors over: they are the caller's."""

    def __init__(self, spec: Spec, num_envs: int, steps: int, device: torch.device | str = "cpu"):
        self._groups = tuple(spec.observations)
        self._num_envs, self._steps, self._device = num_envs, steps, torch.device(device)
        self._clear()

    def _clear(self) -> None:
        self._t = 0
        self._obs: dict[str, Tensor] = {}  # group -> (N, T + 1, ...); column T holds the last successors
        self._columns: dict[str, Tensor] = {}  # reward, action, extras/log_prob, ... -> (N, T, ...)
        self._cells: list[tuple[Tensor, ...]] = []  # the same, and the observations, a step at a time: T x (N, ...)
        self._next_obs: dict[str, Tensor] = {}  # group -> (N, T, ...), of worlds on a device
        self._mask: Tensor | None = None  # (N, T), where any step had one
        self._ends: dict[int, Mapping[str, Tensor]] = {}  # step -> true successors, where an episode ended

    @property
    def num_rows(self) -> int:
        return self._t * self._num_envs

    def add(self, obs: Mapping[str, Tensor], action: Tensor, extras: Mapping[str, Tensor], step: Step) -> None:
        """Store one step of every world; `obs` is what was acted on, everything leads with (N,)."""
        if self._t == self._steps:
            raise UsageError(f"this rollout holds {self._steps} steps and is full; sample it before adding more")
        row = {"action": action, "reward": step.reward, "terminated": step.terminated, "truncated": step.truncated}
        row.update({f"extras/{name}": value for name, value in extras.items()})
        if self._t == 0:
            self._columns = {name: self._empty(value, self._steps) for name, value in row.items()}
            self._obs = {group: self._empty(obs[group], self._steps + 1) for group in self._groups}
            self._cells = [x.unbind(1) for x in (*self._columns.values(), *self._obs.values())]
        cells = [cell[self._t] for cell in self._cells]
        values = [*(row[name] for name in self._columns), *(obs[group] for group in self._groups)]
        torch._foreach_copy_(cells, values)  # pyright: ignore[reportPrivateImportUsage]
        done = step.done
        if not done.is_cpu:  # the host would have to wait for whether any is
            if self._t == 0:
                self._next_obs = {group: self._empty(step.next_obs[group], self._steps) for group in self._groups}
            for group, storage in self._next_obs.items():
                storage[:, self._t] = step.next_obs[group]
        elif done.any():
            self._ends[self._t] = step.next_obs
        if step.mask is not None:  # worlds may say so only when it matters
            if self._mask is None:
                self._mask = torch.ones(self._num_envs, self._steps, dtype=torch.bool, device=self._device)
            self._mask[:, self._t] = step.mask
        self._t += 1
        if self._t == self._steps:
            for group, storage in self._obs.items():
                storage[:, self._t] = step.next_obs[group]

    def sample(self, request: Sample, rng: np.random.Generator) -> Batch:
        """The whole rollout in order, leading (N, T), with true successors; the rollout is empty afterwards."""
        if request != Sample(batch_size=0, length=self._steps):
            raise UsageError(f"a rollout is handed out whole, as Sample(batch_size=0, length={self._steps}); "
                             f"asked for {request}. A replay buffer serves other requests")  # fmt: skip
        if self._t < self._steps:
            raise UsageError(f"this rollout holds {self._t} of {self._steps} steps; collect the rest before sampling")
        next_obs = self._next_obs or self._true_successors()
        columns = {name: column for name, column in self._columns.items() if not name.startswith("extras/")}
        batch = Batch(
            obs={group: storage[:, :-1] for group, storage in self._obs.items()},
            next_obs=next_obs,
            mask=self._mask,
            extras={n.removeprefix("extras/"): c for n, c in self._columns.items() if n.startswith("extras/")},
            **columns,
        )
        self._clear()
        return batch

    def _true_successors(self) -> dict[str, Tensor]:
        """group -> (N, T, ...): what came next, and what an episode ended with where one did."""
        next_obs = {group: storage[:, 1:].clone() for group, storage in self._obs.items()}
        done = self._columns["terminated"] | self._columns["truncated"]
        for t, ends in self._ends.items():
            rows = done[:, t].nonzero().squeeze(1)
            for group in self._groups:
                next_obs[group][rows, t] = ends[group][rows.to(ends[group].device)].to(self._device)
        return next_obs

    def save(self, folder: Path) -> dict[str, Any]:
        """Nothing to write: a run is saved between iterations, when its rollout is empty."""
        if self._t > 0:
            raise RunError(f"a rollout is saved when it is empty, this one holds {self._t} of {self._steps} steps; "
                           f"write checkpoints between iterations")  # fmt: skip
        return {}

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Back to empty, the only state that `save` allows."""
        self._clear()

    def _empty(self, like: Tensor, steps: int) -> Tensor:
        return torch.empty(like.shape[0], steps, *like.shape[1:], dtype=like.dtype, device=self._device)
