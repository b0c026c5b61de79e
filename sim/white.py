"""White: numbers that are new at every control step: noise, and chances that something fails.

They are keyed by (seed, name, world, episode, step), so they need no saved state. They are drawn for blocks of steps
at a time, because one vectorised draw costs the same for one step as for many.

Legend: N worlds, n of them, k numbers of a channel.
"""

from __future__ import annotations

import numpy as np

from ..keyed import Stream, normals, uniforms

_BLOCK = 32  # control steps drawn at a time


class White:
    """The channels of N worlds."""

    def __init__(self, num_envs: int):
        self._num_envs = num_envs
        self._channels: list[Channel] = []

    def __bool__(self) -> bool:
        return bool(self._channels)

    def normal(self, name: str, size: int) -> Channel:
        """Standard normal numbers for one named purpose."""
        self._channels.append(Channel(name, True, np.zeros((self._num_envs, _BLOCK, size))))
        return self._channels[-1]

    def uniform(self, name: str, size: int) -> Channel:
        """Numbers in (0, 1) for one named purpose."""
        self._channels.append(Channel(name, False, np.zeros((self._num_envs, _BLOCK, size))))
        return self._channels[-1]

    def seed(self, seed: int) -> None:
        """Take the numbers of another seed."""
        for channel in self._channels:
            channel.seed(seed)

    def prepare(self, rows: np.ndarray, worlds: np.ndarray, episodes: np.ndarray, steps: np.ndarray) -> None:
        """Draw the blocks that hold `steps` (n,), for rows (n,) playing the given worlds and episodes."""
        if not len(rows):
            return
        first = steps - steps % _BLOCK
        when = (first[:, None] + np.arange(_BLOCK)).ravel()  # (n * block,)
        worlds, episodes = np.repeat(worlds, _BLOCK), np.repeat(episodes, _BLOCK)
        drawn = uniforms([(c.stream, worlds, episodes, c.count, when) for c in self._channels])
        for channel, u in zip(self._channels, drawn, strict=True):
            channel.fill(rows, u)

    def follow(self, worlds: np.ndarray, episodes: np.ndarray, steps: np.ndarray) -> None:
        """The same for those of all N that begin a new block."""
        due = np.flatnonzero(steps % _BLOCK == 0)
        self.prepare(due, worlds[due], episodes[due], steps[due])


class Channel:
    """The numbers of one purpose."""

    def __init__(self, name: str, is_normal: bool, buffer: np.ndarray):
        self._name, self._normal, self._buffer = name, is_normal, buffer  # (N, block, k)
        self._rows = np.arange(len(buffer))
        self.seed(0)

    def seed(self, seed: int) -> None:
        self.stream = Stream(seed, self._name)

    @property
    def count(self) -> int:
        """How many uniform numbers a step takes."""
        size = self._buffer.shape[-1]
        return size + size % 2 if self._normal else size

    def fill(self, rows: np.ndarray, u: np.ndarray) -> None:
        """Take a block for each of rows (n,), from uniform numbers (n * block, count)."""
        drawn = normals(u)[:, : self._buffer.shape[-1]] if self._normal else u
        self._buffer[rows] = drawn.reshape(len(rows), _BLOCK, -1)

    def at(self, steps: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Numbers (n, k) of the given worlds (all by default) at their control steps (n,)."""
        return self._buffer[self._rows if rows is None else rows, steps % _BLOCK]
