"""Whole episodes of the present policy, for learners that need their returns.

An update wants `per_world` episodes of every world, each begun after the update before. Worlds that have theirs go on
and are not listened to, and so is the rest of an episode that was open when the policy changed: taking whichever
episodes end first instead would prefer short ones. With one world nothing is left out.

Legend: N worlds, T time, M episodes of an update.
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
from .segments import read_tensors, write_tensors

BEGUN_BEFORE = -1  # of an open episode: it began under another policy


class EpisodeBuffer:
    """Filled by `add` until `ready`, emptied by one `sample`."""

    def __init__(self, spec: Spec, num_envs: int, per_world: int, device: torch.device | str = "cpu"):
        self._groups = tuple(spec.observations)
        self._num_envs, self._per_world, self._device = num_envs, per_world, torch.device(device)
        self._begun = np.zeros(num_envs, np.int64)  # row at which the open episode of each world began
        self._episodes: list[tuple[int, int, int]] = []  # world, first row, row after the last
        self._rows: list[dict[str, Tensor]] = []  # since the last update; name -> (N, ...)
        self._saves = 0  # each to a file of its own: the checkpoint before names one until the next is complete

    @property
    def num_rows(self) -> int:
        return len(self._rows) * self._num_envs

    @property
    def ready(self) -> bool:
        """Whether every world has contributed its episodes."""
        return len(self._episodes) == self._num_envs * self._per_world

    def add(self, obs: Mapping[str, Tensor], action: Tensor, extras: Mapping[str, Tensor], step: Step) -> None:
        """Store one step of every world; `obs` is what was acted on, everything leads with (N,)."""
        row = {"action": action, "reward": step.reward, "terminated": step.terminated, "truncated": step.truncated}
        row |= {f"extras/{name}": value for name, value in extras.items()}
        for group in self._groups:
            row[f"obs/{group}"], row[f"next_obs/{group}"] = obs[group], step.next_obs[group]
        self._rows.append(row)
        ended = step.ended.numpy(force=True)
        if np.logical_or.reduce(ended):
            done = step.done.numpy(force=True)
            for world in np.flatnonzero(ended).tolist():
                self._close(world, bool(done[world]))

    def _close(self, world: int, done: bool) -> None:
        """The open episode of a world is over, or (not `done`) the step was none and the next begins one."""
        first = int(self._begun[world])
        if done and first != BEGUN_BEFORE and sum(w == world for w, _, _ in self._episodes) < self._per_world:
            self._episodes.append((world, first, len(self._rows)))
        self._begun[world] = len(self._rows)

    def sample(self, request: Sample, rng: np.random.Generator) -> Batch:
        """The episodes (M, T), in the order of worlds, padded where `mask` is False; the buffer is empty afterwards."""
        if request != Sample(batch_size=0):
            raise UsageError(f"whole episodes are handed out all at once, as Sample(batch_size=0); asked for {request}")
        if not self.ready:
            raise UsageError(f"{len(self._episodes)} of {self._num_envs * self._per_world} episodes are complete; "
                             f"collect on before sampling")  # fmt: skip
        episodes = sorted(self._episodes)
        lengths = torch.tensor([end - first for _, first, end in episodes])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        columns = {name: self._padded(name, episodes, mask) for name in self._rows[0]}
        parts = {kind: {n.removeprefix(kind): c for n, c in columns.items() if n.startswith(kind)}
                 for kind in ("obs/", "next_obs/", "extras/")}  # fmt: skip
        plain = {name: column for name, column in columns.items() if "/" not in name}
        # an open episode goes on under the policy that is about to change, unless it has not begun yet
        self._begun = np.where(self._begun == len(self._rows), 0, BEGUN_BEFORE)
        self._episodes, self._rows = [], []
        return Batch(obs=parts["obs/"], next_obs=parts["next_obs/"], extras=parts["extras/"],
                     mask=mask.to(self._device), **plain)  # fmt: skip

    def _padded(self, name: str, episodes: list[tuple[int, int, int]], mask: Tensor) -> Tensor:
        series = torch.stack([row[name] for row in self._rows])  # (rows, N, ...)
        result = series.new_zeros(*mask.shape, *series.shape[2:])
        for i, (world, first, end) in enumerate(episodes):
            result[i, : end - first] = series[first:end, world]
        return result.to(self._device)

    def set_priorities(self, rows: Tensor | None, priorities: Tensor) -> None:
        raise UsageError("whole episodes are not drawn, so they have no priorities")

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the rows since the last update as one new file."""
        self._saves += 1
        manifest = {"begun": self._begun.tolist(), "episodes": [list(e) for e in self._episodes],
                    "rows": len(self._rows), "saves": self._saves, "file": None}  # fmt: skip
        if self._rows:
            columns = {name: torch.stack([row[name] for row in self._rows]) for name in self._rows[0]}
            manifest["file"] = write_tensors(folder, f"episodes-{self._saves}.safetensors", columns)
        return manifest

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Become the buffer that was saved.

        Raises:
            RunError: the file is missing or damaged, or comes from a run with another number of worlds.
        """
        if len(manifest["begun"]) != self._num_envs:
            raise RunError(f"the episodes saved in {folder} are of {len(manifest['begun'])} worlds, this run has "
                           f"{self._num_envs}; resume with the settings that the run was started with")  # fmt: skip
        self._begun = np.array(manifest["begun"], np.int64)
        self._episodes = [(int(w), int(first), int(end)) for w, first, end in manifest["episodes"]]
        self._saves, self._rows = int(manifest["saves"]), []
        if manifest["file"] is not None:
            columns = read_tensors(folder, manifest["file"], {})
            self._rows = [{name: column[t] for name, column in columns.items()} for t in range(manifest["rows"])]
