"""Proportional prioritized sampling (Schaul et al. 2016, arXiv 1511.05952): a sum tree over the places of a ring.

    P(i) = p_i^a / sum_k p_k^a        w_i = (N P(i))^-b / max_j w_j                                     eqs. 1, 3.4

New transitions get the largest priority seen, so that each is drawn before long. A node of the tree is the sum of
its FANOUT children; the leaves are the lowest level. Every operation is a few numpy calls a level, and 16 children
make 5 levels of a million places where two would make 20. The running sums over siblings are kept too, since a draw
compares with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

FANOUT = 16
BELOW_ONE = 1.0 - 2.0**-52


class Priorities:
    """Priorities of `size` places; 0 marks a place that is never drawn."""

    def __init__(self, size: int, exponent: float):
        self.exponent = exponent  # a of eq. 1
        self.largest = 1.0  # priority seen so far
        self._size = size
        widths = [-(-size // FANOUT)]  # nodes over the leaves, over those, ... the root
        while widths[-1] > 1:
            widths.append(-(-widths[-1] // FANOUT))
        self._children = [np.zeros((width, FANOUT)) for width in widths]  # leaves first; a row belongs to one node
        self._sums = [np.zeros((width, FANOUT + 1)) for width in widths]  # of the first 0, 1, ... FANOUT children

    @property
    def total(self) -> float:
        return float(self._sums[-1][0, -1])

    def admit(self, places: np.ndarray, valid: np.ndarray | bool = True) -> None:
        """New transitions lie at `places` (k,), but none where not `valid`."""
        self._set(places, np.where(valid, self.largest**self.exponent, 0.0))

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
        node = np.zeros(count, np.int64)
        each = np.arange(count)
        for level in reversed(self._sums):
            sums = level.take(node, 0)  # (count, FANOUT + 1)
            # below the last sum, however the sums were rounded: so the first sum above is of a child that is not empty
            mass = np.minimum(mass, sums[:, -1] * BELOW_ONE)
            child = (sums[:, 1:] > mass[:, None]).argmax(1)
            mass -= sums[each, child]
            node = node * FANOUT + child
        return node

    def weight(self, places: np.ndarray, count: int, importance: float) -> np.ndarray:
        """w_i (k,) float32 of `places`, where `count` places can be drawn in all; `importance` is b of sec. 3.4."""
        probability = self._children[0].reshape(-1).take(places) / self.total
        weight = (count * probability) ** -importance
        return (weight / weight.max()).astype(np.float32)

    def state_dict(self) -> dict[str, np.ndarray]:
        return {"leaves": self._children[0].reshape(-1)[: self._size].copy(),
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
        node = places
        for children, sums in zip(self._children, self._sums, strict=True):
            children.reshape(-1)[node] = value
            node = node // FANOUT  # one that comes up twice is written twice the same
            running = np.add.accumulate(children.take(node, 0), axis=1)
            sums[node, 1:] = running
            value = running[:, -1]
