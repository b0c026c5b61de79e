"""Proportional prioritized sampling (Schaul et al. 2016, arXiv 1511.05952): a sum tree over the places of a ring.

    P(i) = p_i^a / sum_k p_k^a        w_i = (N P(i))^-b / max_j w_j                                     eqs. 1, 3.4

New transitions get the largest priority seen, so that each is drawn before long. The tree is a flat array: node 1 is
the root, the children of node k are 2k and 2k + 1, the leaves come last; every operation is one numpy call a level.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


class Priorities:
    """Priorities of `size` places; 0 marks a place that is never drawn."""

    def __init__(self, size: int, exponent: float):
        self.exponent = exponent  # a of eq. 1
        self.largest = 1.0  # priority seen so far
        self._levels = max(1, int(np.ceil(np.log2(size))))
        self._leaves = 1 << self._levels
        self._tree = np.zeros(2 * self._leaves)
        self._size = size

    @property
    def total(self) -> float:
        return float(self._tree[1])

    def admit(self, places: np.ndarray) -> None:
        """New transitions lie at `places` (k,)."""
        self._set(places, self.largest**self.exponent)

    def remove(self, places: np.ndarray) -> None:
        """Never draw `places` (k,) again until they are admitted anew."""
        self._set(places, 0.0)

    def update(self, places: np.ndarray, priorities: np.ndarray) -> None:
        """Priorities p_i > 0 (k,) of `places`; of a place that is named twice, the last counts."""
        if len(places) > 0:
            self.largest = max(self.largest, float(priorities.max()))
            self._set(places, priorities**self.exponent)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` places, one from each of as many equal shares of the total (stratified)."""
        mass = (np.arange(count) + rng.random(count)) * (self.total / count)
        node = np.ones(count, np.int64)
        for _ in range(self._levels):
            left = self._tree[2 * node]
            # never into an empty subtree, however the sums were rounded
            right = ((mass >= left) & (self._tree[2 * node + 1] > 0.0)) | (left == 0.0)
            mass = np.where(right, mass - left, mass)
            node = 2 * node + right
        return node - self._leaves

    def weight(self, places: np.ndarray, count: int, importance: float) -> np.ndarray:
        """w_i (k,) float32 of `places`, where `count` places can be drawn in all; `importance` is b of sec. 3.4."""
        probability = self._tree[places + self._leaves] / self.total
        weight = (count * probability) ** -importance
        return (weight / weight.max()).astype(np.float32)

    def state_dict(self) -> dict[str, np.ndarray]:
        return {"leaves": self._tree[self._leaves : self._leaves + self._size].copy(),
                "largest": np.array([self.largest, self.exponent])}  # fmt: skip

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Priorities:
        """The priorities of `state_dict`."""
        largest, exponent = np.asarray(state["largest"]).tolist()
        result = cls(len(state["leaves"]), exponent)
        result.largest = largest
        result._set(np.arange(result._size), np.asarray(state["leaves"]))
        return result

    def _set(self, places: np.ndarray, value: np.ndarray | float) -> None:
        node = places + self._leaves
        self._tree[node] = value
        for _ in range(self._levels):
            node = node >> 1  # a parent may come up twice, and is then written twice the same
            self._tree[node] = self._tree[2 * node] + self._tree[2 * node + 1]
