"""Mix: several sources of batches in fixed shares, for instance half demonstrations and half replay (RLPD).

A batch of B rows has w_i B of source i where those are whole numbers, rows of a source side by side; otherwise each
share is rounded up or down by one draw, so that every source keeps its weight on average. Rows of a batch are not
shuffled: `Batch.origin` says which source each comes from.

RLPD: Ball et al. 2023, "Efficient online reinforcement learning with offline data", arXiv 2302.02948, sec. 4.1.

Legend: B batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch, Sample, Step
from ..errors import UsageError

ONES = ("mask", "action_mask", "weight", "steps")  # what a source leaves out is 1 there


class Source(Protocol):
    """Whatever answers a request with a batch: replay, rollout, OfflineDataset, Mix."""

    def sample(self, request: Sample, rng: np.random.Generator) -> Batch: ...


class Mix:
    """One source made of several, `weights` (one each, equal unless told) being their shares of every batch.

    Steps that are added, saved and loaded go to the first source, so that a Mix of a replay and demonstrations stands
    where a replay does.
    """

    def __init__(self, sources: Sequence[Any], weights: Sequence[float] | None = None):
        self.sources = tuple(sources)
        self.weights = checked_weights([1.0] * len(self.sources) if weights is None else weights, len(self.sources))

    def sample(self, request: Sample, rng: np.random.Generator) -> Batch:
        """Rows of every source by its share, or with batch_size 0 all that they hold."""
        if request.batch_size == 0:
            counts = [0] * len(self.sources)
        else:
            counts = shares(request.batch_size, self.weights, rng)
        parts = {i: source.sample(replace(request, batch_size=count), rng)
                 for i, (source, count) in enumerate(zip(self.sources, counts, strict=True))
                 if count > 0 or request.batch_size == 0}  # fmt: skip
        return _joined(parts)

    def set_priorities(self, rows: Tensor | None, priorities: Tensor) -> None:
        raise UsageError("rows of a mix are not drawn by priority; ask for priority 0, or learn from a replay alone")

    # ---- the first source ----------------------------------------------------------------------

    @property
    def num_rows(self) -> int:
        return self.sources[0].num_rows

    def add(self, obs: Mapping[str, Tensor], action: Tensor, extras: Mapping[str, Tensor], step: Step) -> None:
        self.sources[0].add(obs, action, extras, step)

    def save(self, folder: Path) -> dict[str, Any]:
        return self.sources[0].save(folder)

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.sources[0].load(folder, manifest)


def checked_weights(weights: Sequence[float], count: int) -> np.ndarray:
    """The weights as fractions of their sum (count,)."""
    given = np.asarray(weights, float)
    if given.shape != (count,) or not (np.isfinite(given) & (given >= 0)).all() or given.sum() == 0:
        raise UsageError(f"weights must be {count} numbers, one for each source, not negative and not all 0; "
                         f"found {list(weights)}")  # fmt: skip
    return given / given.sum()


def shares(total: int, weights: np.ndarray, rng: np.random.Generator) -> list[int]:
    """How many of `total` rows each source gives: `weights` (k,) of them, rounded up or down with that mean.

    The borders between sources, cumulated shares, are moved by one common draw and rounded down: systematic sampling.
    Where all shares are whole numbers nothing is drawn.
    """
    borders = np.concatenate([[0.0], np.cumsum(weights) * total])
    borders[-1] = total
    whole = np.rint(borders)
    if np.abs(borders - whole).max() > 1e-9 * total:
        whole = np.floor(borders + rng.random())
        whole[0], whole[-1] = 0, total
    return np.diff(whole).astype(int).tolist()


def _joined(parts: Mapping[int, Batch]) -> Batch:
    """The rows of several batches one after the other, with their origin."""
    batches = list(parts.values())
    columns: dict[str, Any] = {}
    for f in fields(Batch):
        values = [getattr(batch, f.name) for batch in batches]
        if f.name in ONES and any(v is not None for v in values):
            like = next(v for v in values if v is not None)
            values = [_ones(b, like) if v is None else v for b, v in zip(batches, values, strict=True)]
        columns[f.name] = _concatenated(f.name, values)
    columns["rows"] = None  # each source's own, and none of the mix's
    columns["origin"] = torch.cat([b.action.new_full((len(b.action),), i, dtype=torch.int64)
                                   for i, b in parts.items()])  # fmt: skip
    return Batch(**columns)


def _ones(batch: Batch, like: Tensor) -> Tensor:
    return torch.ones(len(batch.action), *like.shape[1:], dtype=like.dtype, device=like.device)


def _concatenated(name: str, values: list[Any]) -> Any:
    if isinstance(values[0], Mapping):
        groups = [tuple(sorted(v)) for v in values]
        if len(set(groups)) > 1:
            raise UsageError(f"the sources of a mix differ in {name}: {' and '.join(map(str, groups))}")
        return {key: _cat(f"{name}/{key}", [v[key] for v in values]) for key in values[0]}
    if all(v is None for v in values):
        return None
    if any(v is None for v in values):
        if name in ("rows", "origin"):
            return None
        raise UsageError(f"one source of a mix gives {name} and another does not")
    return _cat(name, values)


def _cat(name: str, values: list[Tensor]) -> Tensor:
    if len({(tuple(v.shape[1:]), v.dtype, v.device) for v in values}) > 1:
        raise UsageError(f"the sources of a mix differ in {name}: "
                         f"{', '.join(f'{v.dtype} {tuple(v.shape[1:])} on {v.device}' for v in values)}")  # fmt: skip
    return torch.cat(values)
