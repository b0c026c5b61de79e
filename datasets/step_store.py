"""Where a dataset's steps lie: in memory, in their files, or the cameras in the files and all else in memory.

What fits the memory allowed is held there. Cameras are the first to stay in the files, since they are nearly all of the
bytes and cost little more there; flat columns follow where they alone are larger than memory.

Legend: B batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..spec import Spec
from .gather import Store
from .log_arrays import LogArrays
from .mapped_store import MappedStore
from .memory_store import MemoryStore, memory_needed
from .step_index import StepIndex


def make_store(parts: Sequence[LogArrays], index: StepIndex, spec: Spec, device: torch.device,
               allowed: int) -> tuple[Store, tuple[str, ...]]:  # fmt: skip
    """(the store, the columns that stay in the files) of a dataset that may take so many bytes."""
    names = ("action", *(f"obs/{group}" for group in spec.observations))
    flat = spec.only([group for group in spec.observations if not spec.is_image(group)])
    cameras = tuple(f"obs/{group}" for group in spec.observations if spec.is_image(group))
    if memory_needed(parts, spec) <= allowed:
        return MemoryStore(parts, spec, device), ()
    if cameras and memory_needed(parts, flat) <= allowed:
        mapped = MappedStore(parts, index, cameras, device)
        return DividedStore(MemoryStore(parts, flat, device), mapped, cameras), cameras
    return MappedStore(parts, index, names, device), names


class DividedStore:
    """Some columns in the files, the others in memory."""

    def __init__(self, held: MemoryStore, mapped: MappedStore, in_files: Sequence[str]):
        self._held, self._mapped, self._in_files = held, mapped, frozenset(in_files)

    def take(self, names: Sequence[str], rows: np.ndarray) -> dict[str, Tensor]:
        """Columns, each obs/<group> or action, at rows (…)."""
        held, mapped = self._divide(names)
        return {**self._held.take(held, rows), **self._mapped.take(mapped, rows)}

    def successors(self, names: Sequence[str], rows: np.ndarray) -> dict[str, Tensor]:
        """The observations that followed the actions of steps (…)."""
        held, mapped = self._divide(names)
        return {**self._held.successors(held, rows), **self._mapped.successors(mapped, rows)}

    def _divide(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        return [n for n in names if n not in self._in_files], [n for n in names if n in self._in_files]
