"""Looks: how the first world of a TaskEnv looks, for a model of its task that is drawn apart from its cameras.

A film and a browser have models of their own. Colours, sizes, lights and cameras of the present episode are written
into them; what cameras of the task see stays the TaskEnv's business (sim/cameras.py).
"""

from __future__ import annotations

import mujoco
import numpy as np

from .appearance import Appearance, decorate, is_seen
from .task_env import TaskEnv


class Looks:
    """The looks of the world that a TaskEnv is playing first."""

    def __init__(self, env: TaskEnv):
        self._env, self._randomization = env, env.dynamics.randomization
        self._vary = any(is_seen(term) for term in self._randomization.terms)
        self._appearance: Appearance | None = None
        self._shown: tuple[int, int, int] | None = None

    def decorate(self, spec: mujoco.MjSpec) -> None:
        """Add to a description what may be seen, before it is compiled."""
        decorate(spec, self._randomization)

    def put(self, model: mujoco.MjModel) -> bool:
        """Make the one decorated model look like the episode that is played; whether it did not yet."""
        key, first = self._env.key, np.arange(1)
        episode = key.seed, int(key.worlds[0]), int(key.episodes[0])
        if not self._vary or episode == self._shown:
            return False
        if self._appearance is None:
            self._appearance = Appearance(model, self._randomization, 1)
        drawn = {name: values[:1] for name, values in self._env.params.items()}
        self._appearance.begin(first, key.some(first), drawn)
        self._appearance.put(model, 0)
        self._shown = episode
        return True
