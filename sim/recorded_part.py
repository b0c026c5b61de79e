"""Recorded: a part of a device's step as one CUDA graph, around state that stays where it is in memory.

A graph replays the same kernels on the same addresses, so what a part leaves behind has to lie where it will look the
next time. Parts are written as any code is, with new tensors for new values; here, after each, the new values are
copied into the place where the state lay the first time, and its owner is handed that place back:

    part()                 reads the state where it lies, makes new tensors
    state() -> tree        a dict of tensors and of such dicts: everything that a part leaves behind
    place <- tree          inside the graph too
    put(place)

What comes for the first time makes its place, so the runs before recording make all of them. On a CPU nothing is
recorded, and everything else happens as on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..cuda_graph import captured

Tree = Mapping[str, Any]


class Place:
    """Where the state of some owner lies."""

    def __init__(self, state: Callable[[], Tree], put: Callable[[Tree], None]):
        self._state, self._put = state, put
        self._tree: dict[str, Any] = {}

    def settle(self) -> None:
        """Copy the present state into its place, and let the owner have that; what is new gets a place."""
        new = self._state()
        pairs = list(_pairs(self._tree, new))
        places = {_memory(old) for old, _ in pairs}
        changed = [(old, value) for old, value in pairs if old is not value]
        # a value that lies in another's place, or is a part of its own, is taken before anything is written there
        values = [value.clone() if _memory(value) in places else value for _, value in changed]
        for (old, _), value in zip(changed, values, strict=True):
            old.copy_(value)
        self._put(self._tree)

    def forget(self) -> None:
        """Of other worlds to come: the next settling makes another place."""
        self._tree = {}


def recorded(part: Callable[[], None], place: Place, device: torch.device) -> Callable[[], object]:
    """A function of nothing and for nothing, which leaves its results in the state, as a CUDA graph (cuda_graph.py)."""

    def run() -> dict[str, Tensor]:
        part()
        place.settle()
        return {}

    return captured(run, device)


def cloned(tree: Tree) -> dict[str, Any]:
    """A tree of copies of the tensors; what is none stays."""
    return {k: v.clone() if isinstance(v, Tensor) else cloned(v) if isinstance(v, Mapping) else v
            for k, v in tree.items()}  # fmt: skip


def _pairs(place: dict[str, Any], new: Tree) -> Iterator[tuple[Tensor, Tensor]]:
    """Places and what belongs there; they are made, as copies, for what comes for the first time."""
    for name, value in new.items():
        if isinstance(value, Mapping):
            yield from _pairs(place.setdefault(name, {}), value)
        elif name in place and isinstance(value, Tensor):
            yield place[name], value
        else:
            place[name] = value.clone() if isinstance(value, Tensor) else value


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
