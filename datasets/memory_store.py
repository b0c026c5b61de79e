"""The steps of a dataset in memory on one device: one gather gives every flat column of a row.

    packed   (R, W) float32    state | goal | … | action, side by side: a batch is one gather and then views
    apart    (R, …)            cameras (uint8), choices (int64), each an array of its own

R counts steps, episodes one after the other, and behind them the successors that no next row shows: of an episode's
last step, and wherever `next_obs` is not to the bit the next `obs`. So an observation is held once, as in the replay.

Legend: S steps, R rows, B batch, T window, A action.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..machine import free_memory
from ..spec import Spec
from .buffers import LARGE, Buffers
from .log import Episode
from .log_arrays import LogArrays


class MemoryStore:
    """`take` of named columns at rows, `successors` of groups after rows."""

    def __init__(self, parts: Sequence[LogArrays], spec: Spec, device: torch.device):
        self._spec, self._device = spec, device
        self._episodes = [(part, episode) for part in parts for episode in part.episodes]
        self._steps = sum(episode.steps for _, episode in self._episodes)
        self._slices = _slices(spec)
        self._arrays: dict[str, Any] = self._empty(self._steps + len(self._episodes))
        self._buffers = Buffers()
        self._next: np.ndarray | None = None  # (S,) row of each step's successor; None where it is always the next
        self._fill()

    # ---- reading -------------------------------------------------------------------------------

    def take(self, names: Sequence[str], rows: np.ndarray) -> dict[str, Tensor]:
        """Columns, each obs/<group> or action, at rows (…): (…, dim) or (…, height, width, channels)."""
        result: dict[str, Tensor] = {}
        packed: Tensor | None = None
        for name in names:
            if name in self._slices:
                if packed is None:
                    packed = self._rows("packed", rows)
                result[name] = packed[..., self._slices[name]]
            else:
                result[name] = self._rows(name, rows)
        return result

    def successors(self, names: Sequence[str], rows: np.ndarray) -> dict[str, Tensor]:
        """The observations that followed the actions of steps (…)."""
        return self.take(names, rows + 1 if self._next is None else self._next.take(rows))

    def _rows(self, name: str, rows: np.ndarray) -> Tensor:
        array = self._arrays[name]
        if isinstance(array, Tensor):
            flat = torch.from_numpy(rows.reshape(-1)).to(self._device)
            return array.index_select(0, flat).view(*rows.shape, *array.shape[1:])
        shape = (*rows.shape, *array.shape[1:])
        if math.prod(shape) * array.itemsize < LARGE:
            return torch.from_numpy(array.take(rows, 0))
        # clip: the only way that writes in place; no row is beyond
        return torch.from_numpy(array.take(rows, 0, out=self._buffers.array(shape, array.dtype), mode="clip"))

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())

    # ---- filling -------------------------------------------------------------------------------

    def _empty(self, rows: int) -> dict[str, Any]:
        spec = self._spec
        width = max((s.stop for s in self._slices.values()), default=0)
        arrays: dict[str, Any] = {"packed": np.zeros((rows, width), np.float32)} if width else {}
        for group in spec.observations:
            if f"obs/{group}" not in self._slices:
                arrays[f"obs/{group}"] = np.zeros((rows, *spec.obs_shape(group)), np.uint8)
        if spec.discrete:
            arrays["action"] = np.zeros((rows, spec.action_dim), np.int64)
        return arrays

    def _column(self, name: str) -> Any:
        """The array of a column, or the part of one that holds it: a view."""
        return self._arrays["packed"][:, self._slices[name]] if name in self._slices else self._arrays[name]

    def _fill(self) -> None:
        start, spare = 0, self._steps
        following = np.arange(1, self._steps + 1)
        for part, episode in self._episodes:
            rows = slice(start, start + episode.steps)
            self._column("action")[rows] = part.actions(episode)
            for group in self._spec.observations:
                self._column(f"obs/{group}")[rows] = part.group(episode, "obs", group)
            if part.has_successors:
                spare = self._keep_successors(part, episode, rows, following, spare)
            else:
                following[rows.stop - 1] = rows.stop - 1  # unknown: told of a step that terminated, and never read
            start += episode.steps
        self._arrays = {name: array[:spare] for name, array in self._arrays.items()}
        if not np.array_equal(following, np.arange(1, self._steps + 1)):
            self._next = following
        if self._device.type != "cpu":
            self._arrays = {name: torch.from_numpy(a).to(self._device) for name, a in self._arrays.items()}

    def _keep_successors(
        self, part: LogArrays, episode: Episode, rows: slice, following: np.ndarray, spare: int
    ) -> int:
        """Put the successors that no next row shows behind all steps; the first row behind them."""
        after = {group: part.group(episode, "next_obs", group) for group in self._spec.observations}
        hidden = np.zeros(episode.steps, bool)
        hidden[-1] = True
        for group, value in after.items():
            hidden[:-1] |= differs(value[:-1], self._column(f"obs/{group}")[rows][1:])
        kept = np.flatnonzero(hidden)
        self._make_room(spare + len(kept))
        for group, value in after.items():
            self._column(f"obs/{group}")[spare : spare + len(kept)] = value[kept]
        following[rows.start + kept] = spare + np.arange(len(kept))
        return spare + len(kept)

    def _make_room(self, rows: int) -> None:
        for name, array in self._arrays.items():
            if len(array) < rows:
                more = np.zeros((rows + rows // 4 - len(array), *array.shape[1:]), array.dtype)
                self._arrays[name] = np.concatenate([array, more])


def differs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where rows (T, …) of equal types are not the same to the bit: (T,) bool."""
    bits = {4: np.uint32, 1: np.uint8}[a.dtype.itemsize]
    unequal = np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits)
    return unequal.any(axis=tuple(range(1, a.ndim)))


def _slices(spec: Spec) -> dict[str, slice]:
    """Where each flat column lies in a packed row."""
    slices: dict[str, slice] = {}
    start = 0
    widths = {f"obs/{g}": spec.obs_dim(g) for g in spec.observations if not spec.is_image(g)}
    if not spec.discrete:
        widths["action"] = spec.action_dim
    for name, width in widths.items():
        slices[name] = slice(start, start + width)
        start += width
    return slices


def memory_needed(parts: Sequence[LogArrays], spec: Spec) -> int:
    """Bytes that the steps take in memory, successors beyond those at episodes' ends not counted."""
    rows = sum(episode.steps + 1 for part in parts for episode in part.episodes)
    cameras = sum(math.prod(spec.obs_shape(g)) for g in spec.observations if spec.is_image(g))
    width = max((s.stop for s in _slices(spec).values()), default=0)
    return rows * (4 * width + cameras + 8 * spec.action_dim * spec.discrete)


def memory_allowed(memory: int | str | None, device: torch.device) -> int:
    """Bytes that a dataset may take: those told, as 500M or 2G too, or half of what is free where it is to lie."""
    if memory is None:
        free = free_memory(device)
        return (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if free is None else free) // 2
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", str(memory).strip().upper())
    if match is None:
        raise UsageError(f"memory should be a number of bytes, such as 500M or 2G, not {memory!r}")
    return int(float(match[1]) * 1024 ** "_KMGT".index(match[2] or "_"))
