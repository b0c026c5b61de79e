"""Observations by growing key: appended at the end, dropped from the front, found by bisection."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


class SideQueue:
    """Successors that a replay's ring does not show: group -> (entries, ...)."""

    def __init__(self, groups: Mapping[str, tuple[tuple[int, ...], torch.dtype]], device: torch.device):
        self._keys = np.empty(16, np.int64)
        self.obs = {g: torch.empty(16, *shape, dtype=dtype, device=device) for g, (shape, dtype) in groups.items()}
        self._first = self._end = 0

    @property
    def nbytes(self) -> int:
        return self._keys.nbytes + sum(t.nbytes for t in self.obs.values())

    def append(self, keys: np.ndarray, obs: Mapping[str, Tensor]) -> None:
        if self._end + len(keys) > len(self._keys):
            self._make_room(len(keys))
        place = slice(self._end, self._end + len(keys))
        self._keys[place] = keys
        for group, value in obs.items():
            self.obs[group][place] = value
        self._end += len(keys)

    def _make_room(self, count: int) -> None:
        """Move the entries to the front of arrays that leave a quarter free for those to come."""
        used = slice(self._first, self._end)
        size = max(16, (self._end - self._first + count) * 5 // 4)
        keys = np.empty(size, np.int64)
        keys[: self._end - self._first] = self._keys[used]
        for group, old in self.obs.items():
            new = old.new_empty(size, *old.shape[1:])
            new[: self._end - self._first] = old[used]
            self.obs[group] = new
        self._keys, self._first, self._end = keys, 0, self._end - self._first

    def drop_before(self, key: int) -> None:
        while self._first < self._end and self._keys[self._first] < key:
            self._first += 1

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(which of `keys` are here, where in `obs` they lie)."""
        held = self._keys[self._first : self._end]
        if len(held) == 0:
            return keys[:0], keys[:0]
        place = held.searchsorted(keys)
        rows = (held.take(place, mode="clip") == keys).nonzero()[0]  # beyond the last, where none is equal
        return rows, place[rows] + self._first

    def since(self, key: int) -> dict[str, Tensor]:
        """The entries from `key` on, as tensors to save."""
        start = self._first + int(np.searchsorted(self._keys[self._first : self._end], key))
        return {"key": torch.from_numpy(self._keys[start : self._end].copy()),
                **{g: t[start : self._end] for g, t in self.obs.items()}}  # fmt: skip
