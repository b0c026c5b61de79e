"""White: numbers that are new at every control step: noise, and chances that something fails.

They are keyed by (seed, name, world, episode, step), so they need no saved state. They are drawn for blocks of steps
at a time, because one vectorised draw costs the same for one step as for many; on a device, where worlds are many and
all draw at once, for the present step alone.

Legend: N worlds, n of them, k numbers of a channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..keyed import Stream, normals, uniforms
from .rows import restored, zeros

if TYPE_CHECKING:
    import torch

_BLOCK = 32  # control steps drawn at a time


class White:
    """The channels of N worlds."""

    def __init__(self, num_envs: int, device: torch.device | None = None):
        self._num_envs, self._device = num_envs, device
        self._channels: list[Channel] = []

    def __bool__(self) -> bool:
        return bool(self._channels)

    def normal(self, name: str, size: int) -> Channel:
        """Standard normal numbers for one named purpose."""
        return self._channel(name, True, size)

    def uniform(self, name: str, size: int) -> Channel:
        """Numbers in (0, 1) for one named purpose."""
        return self._channel(name, False, size)

    def _channel(self, name: str, is_normal: bool, size: int) -> Channel:
        self._channels.append(Channel(name, is_normal, self._num_envs, size, self._device))
        return self._channels[-1]

    def seed(self, seed: int) -> None:
        """Take the numbers of another seed."""
        for channel in self._channels:
            channel.seed(seed)

    def prepare(self, rows: Any, worlds: Any, episodes: Any, steps: Any) -> None:
        """Draw the blocks that hold `steps` (n,), for rows (n,) playing the given worlds and episodes.

        On a device those are of all N, the rows that are not meant included, and all are drawn.
        """
        if not isinstance(rows, np.ndarray):
            self.follow(worlds, episodes, steps)
            return
        if not len(rows):
            return
        first = steps - steps % _BLOCK
        when = (first[:, None] + np.arange(_BLOCK)).ravel()  # (n * block,)
        worlds, episodes = np.repeat(worlds, _BLOCK), np.repeat(episodes, _BLOCK)
        drawn = uniforms([(c.stream, worlds, episodes, c.count, when) for c in self._channels])
        for channel, u in zip(self._channels, drawn, strict=True):
            channel.fill(rows, u)

    def follow(self, worlds: Any, episodes: Any, steps: Any) -> None:
        """The same for those of all N that begin a new block."""
        if self._device is not None:
            drawn = uniforms([(c.stream, worlds, episodes, c.count, steps) for c in self._channels])
            for channel, u in zip(self._channels, drawn, strict=True):
                channel.take(u)
            return
        due = np.flatnonzero(steps % _BLOCK == 0)
        self.prepare(due, worlds[due], episodes[due], steps[due])

    def state_dict(self) -> dict[str, Any]:
        """On a device the numbers of the present step; those of the CPU are drawn again."""
        return {} if self._device is None else {c.name: c.buffer for c in self._channels}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for channel in self._channels if self._device is not None else ():
            channel.buffer = restored(state[channel.name], channel.buffer)


class Channel:
    """The numbers of one purpose."""

    def __init__(self, name: str, is_normal: bool, num_envs: int, size: int, device: torch.device | None):
        self.name, self._normal = name, is_normal
        self.buffer = zeros((num_envs, _BLOCK if device is None else 1, size), device)  # (N, block, k)
        self._rows = np.arange(num_envs)
        self.seed(0)

    def seed(self, seed: int) -> None:
        self.stream = Stream(seed, self.name)

    @property
    def count(self) -> int:
        """How many uniform numbers a step takes."""
        size = self.buffer.shape[-1]
        return size + size % 2 if self._normal else size

    def fill(self, rows: np.ndarray, u: np.ndarray) -> None:
        """Take a block for each of rows (n,), from uniform numbers (n * block, count)."""
        self.buffer[rows] = self._shaped(u).reshape(len(rows), _BLOCK, -1)

    def take(self, u: Any) -> None:
        """Take the present step of all worlds, from uniform numbers (N, count)."""
        self.buffer = self._shaped(u)[:, None]

    def _shaped(self, u: Any) -> Any:
        return normals(u)[:, : self.buffer.shape[-1]] if self._normal else u

    def at(self, steps: Any, rows: Any = None) -> Any:
        """Numbers (n, k) of the given worlds (all by default) at their control steps (n,).

        On a device those of the step that was drawn last, of all N.
        """
        if not isinstance(self.buffer, np.ndarray):
            return self.buffer[:, 0]
        return self.buffer[self._rows if rows is None else rows, steps % _BLOCK]
