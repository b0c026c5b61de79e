"""OfflineDataset: demonstrations as a source of batches.

Legend: S steps of all episodes, B batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch, Sample
from ..errors import DatasetError, UsageError
from ..spec import Spec
from .log import Episode, Log
from .log_spec import ObsMapping, spec_of


class OfflineDataset:
    """The steps of one or more logs, in memory on one device. `sample(request, rng) -> Batch`."""

    def __init__(self, logs: Sequence[Log], mapping: ObsMapping | None = None, device: torch.device | str = "cpu"):
        if not logs:
            raise UsageError("a dataset needs at least one file")
        self.spec: Spec = spec_of(logs[0], mapping)
        self.device = torch.device(device)
        keys = mapping or {group: [group if "poise_spec" in logs[0].attributes else t.name for t in terms]
                           for group, terms in self.spec.observations.items()}  # fmt: skip
        episodes = [episode for log in logs for episode in log.episodes]
        self._obs = {g: self._together(episodes, [f"obs/{k}" for k in ks]) for g, ks in keys.items()}
        self._next = {g: self._together(episodes, [f"next_obs/{k}" for k in ks]) for g, ks in keys.items()}
        self._action = self._together(episodes, ["actions"])
        self._reward = self._together(episodes, ["rewards"])
        self._terminated = self._together(episodes, ["terminations"]).bool()
        self._truncated = self._together(episodes, ["truncations"]).bool()

    @property
    def num_rows(self) -> int:
        """Transitions that can be sampled."""
        return len(self._action)

    def sample(self, request: Sample, rng: np.random.Generator) -> Batch:
        """Transitions drawn uniformly, with replacement."""
        request.refuse_beyond("this dataset", "discount", "imitation")
        rows = torch.from_numpy(rng.integers(0, self.num_rows, request.batch_size)).to(self.device)
        return Batch(
            obs={g: x[rows] for g, x in self._obs.items()},
            action=self._action[rows],
            reward=self._reward[rows],
            next_obs={g: x[rows] for g, x in self._next.items()},
            terminated=self._terminated[rows],
            truncated=self._truncated[rows],
            rows=rows,
        )

    def _together(self, episodes: Sequence[Episode], names: Sequence[str]) -> Tensor:
        """Columns side by side, episodes one after the other: (S, D), or (S,)."""
        for episode in episodes:
            if missing := [name for name in names if name not in episode.columns]:
                raise DatasetError(f"{episode.name} has no {missing[0]}; it has {', '.join(episode.columns)}")
        parts = [_flat([np.asarray(e.columns[name][:]) for name in names]) for e in episodes]
        return torch.from_numpy(np.concatenate(parts)).to(self.device)


def _flat(columns: Sequence[np.ndarray]) -> np.ndarray:
    if len(columns) == 1:
        return columns[0] if columns[0].dtype == np.uint8 else np.asarray(columns[0], np.float32)
    return np.concatenate([np.asarray(c, np.float32).reshape(len(c), -1) for c in columns], axis=1)


def load(files: Sequence[Any], mapping: Mapping[str, Sequence[str]] | None = None) -> OfflineDataset:
    """The dataset of some files of any layout."""
    from .open_log import open_log

    logs = [open_log(file) for file in files]
    try:
        return OfflineDataset(logs, mapping)
    finally:
        for log in logs:
            log.close()
