"""WorldArrays: what N Gymnasium environments are sent and what they answer, in one stretch of memory.

Worlds writes into such arrays where it is; worker processes write into theirs, a slice of the arrays of all worlds in
memory that they share with the process that asked for them.

    obs          as the observation space has it: one array (N, …), or for a Dict a dict of them
    action       (N, …) in the environments' own units
    reward       (N,) float64
    terminated, truncated, success    (N,) bool
    seed         (N,) int64, what a reset is told
    active       (N,) bool, the worlds that a command is for
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

Path = tuple[str, ...]  # the keys that lead to a leaf of nested Dicts
ALIGNMENT = 64  # bytes: worlds of two processes do not write into one cache line of the same array's beginning


class WorldArrays:
    """See the module; `memory` is any writable buffer of `nbytes(…)` bytes, fresh memory by default."""

    def __init__(self, observation: spaces.Space, action: spaces.Space, num_envs: int, memory: Any = None):
        memory = bytearray(nbytes(observation, action, num_envs)) if memory is None else memory
        self.leaves: list[tuple[Path, np.ndarray]] = []  # the arrays of `obs`
        self.obs: Any = {}
        for (name, path), shape, dtype, start in _layout(observation, action, num_envs):
            size = math.prod(shape)
            array = np.frombuffer(memory, dtype, size, start).reshape(shape)
            if name == "obs":
                self.leaves.append((path, array))
                _put(self, path, array)
            else:
                setattr(self, name, array)

    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray
    seed: np.ndarray
    active: np.ndarray

    def part(self, start: int, end: int) -> WorldArrays:
        """The arrays of the worlds from `start` to before `end`, in the same memory."""
        part = WorldArrays.__new__(WorldArrays)
        part.leaves, part.obs = [], {}
        for path, array in self.leaves:
            part.leaves.append((path, array[start:end]))
            _put(part, path, array[start:end])
        for name in ("action", "reward", "terminated", "truncated", "success", "seed", "active"):
            setattr(part, name, getattr(self, name)[start:end])
        return part

    def keep(self, world: int, obs: Any) -> None:
        """Write down what a world shows."""
        for path, rows in self.leaves:
            value = obs
            for key in path:
                value = value[key]
            rows[world] = value


def nbytes(observation: spaces.Space, action: spaces.Space, num_envs: int) -> int:
    """How much memory N worlds of these spaces need."""
    *_, (_, shape, dtype, start) = _layout(observation, action, num_envs)
    return start + math.prod(shape) * dtype.itemsize


def leaves(space: spaces.Space) -> Iterator[tuple[Path, spaces.Space]]:
    """The spaces inside nested Dicts, each with the keys that lead to it; a space of another kind is its own leaf."""
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            for path, leaf in leaves(inner):
                yield (key, *path), leaf
    else:
        yield (), space


def _layout(observation: spaces.Space, action: spaces.Space, n: int):
    """((name, path), shape, dtype, first byte) of every array."""
    flag = np.dtype(bool)
    parts = [(("obs", path), (n, *(leaf.shape or ())), np.dtype(leaf.dtype)) for path, leaf in leaves(observation)]
    parts += [(("action", ()), (n, *(action.shape or ())), np.dtype(action.dtype))]
    parts += [(("reward", ()), (n,), np.dtype(np.float64)), (("seed", ()), (n,), np.dtype(np.int64))]
    parts += [((name, ()), (n,), flag) for name in ("terminated", "truncated", "success", "active")]
    start = 0
    for name, shape, dtype in parts:
        yield name, shape, dtype, start
        start += -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT


def _put(arrays: WorldArrays, path: Path, array: np.ndarray) -> None:
    if not path:
        arrays.obs = array
        return
    inner = arrays.obs
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = array
