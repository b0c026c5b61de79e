"""Sensors: what the encoders report of the true joint state, with bias and white noise.

Noise is keyed by (seed, term, world, episode, step), so it needs no saved state. It is drawn for blocks of
steps at a time, because one vectorised draw costs the same for one step as for many.

Legend: N worlds, n of them, k joints of a term.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..keyed import Stream
from .dynamics import Dynamics

_BLOCK = 32  # control steps drawn at a time


class Sensors:
    """Measured positions and velocities of N worlds."""

    def __init__(self, dynamics: Dynamics, num_envs: int):
        self._rows = np.arange(num_envs)
        sign = {"joint_pos_bias": 1.0, "joint_offset": -1.0}
        self._bias = [(t, at, sign[t.what]) for t, at in dynamics.sensing if t.what in sign]
        self._noise = [(t, at, np.zeros((num_envs, _BLOCK, len(at)))) for t, at in dynamics.sensing
                       if t.what in ("joint_pos_noise", "joint_vel_noise")]  # fmt: skip
        self._streams: list[Stream] = []
        self.perfect = not dynamics.sensing
        self.noisy = bool(self._noise)  # then `prepare` what is `due` before measuring

    def seed(self, seed: int) -> None:
        """Take the noise of another seed."""
        self._streams = [Stream(seed, f"randomization/{term.name}/white") for term, _, _ in self._noise]

    def prepare(self, rows: np.ndarray, worlds: np.ndarray, episodes: np.ndarray, steps: np.ndarray,
                params: Mapping[str, np.ndarray]) -> None:  # fmt: skip
        """Draw the block of noise that holds `steps` (n,), for rows (n,) playing the given worlds and episodes.

        params are of all N.
        """
        if not len(rows):
            return
        first = steps - steps % _BLOCK
        when = (first[:, None] + np.arange(_BLOCK)).ravel()  # (n * block,)
        worlds_, episodes_ = np.repeat(worlds, _BLOCK), np.repeat(episodes, _BLOCK)
        for stream, (term, address, buffer) in zip(self._streams, self._noise, strict=True):
            white = stream.normal(worlds_, episodes_, len(address), step=when)  # pyright: ignore[reportArgumentType]
            buffer[rows] = white.reshape(len(rows), _BLOCK, -1) * params[term.name][rows, None]

    def due(self, steps: np.ndarray) -> np.ndarray:
        """Worlds whose step (N,) begins a new block."""
        return np.flatnonzero(steps % _BLOCK == 0)

    def measure(self, qpos: np.ndarray, qvel: np.ndarray, steps: np.ndarray, params: Mapping[str, np.ndarray],
                worlds: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Measured (qpos, qvel) of the given worlds (all of them by default) at control step `steps`."""
        if self.perfect:
            return qpos, qvel
        rows = self._rows if worlds is None else worlds
        qpos, qvel = qpos.copy(), qvel.copy()
        for term, address, sign in self._bias:
            qpos[:, address] += sign * (params[term.name] if worlds is None else params[term.name][rows])
        slot = steps % _BLOCK
        for term, address, buffer in self._noise:
            (qpos if term.what == "joint_pos_noise" else qvel)[:, address] += buffer[rows, slot]
        return qpos, qvel
