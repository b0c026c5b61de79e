"""Worlds: N Gymnasium environments stepped one after another in this process, with as little as possible around them.

A VectorEnv in auto-reset mode DISABLED, as GymVecEnv wants it. Gymnasium's SyncVectorEnv does the same for three times
the overhead: it merges every entry of every info, and builds its arrays anew. Of the infos only what says whether an
episode succeeded is kept here.

Legend: N worlds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array

SUCCESS = ("is_success", "success")  # what environments call it in their info


class Worlds(VectorEnv):
    """The arrays that `step` and `reset` return are overwritten by the next call."""

    def __init__(self, makers: Sequence[Callable[[], gymnasium.Env]]):
        self.envs = [make() for make in makers]
        first = self.envs[0]
        self.num_envs = len(self.envs)
        self.spec, self.render_mode = first.spec, first.render_mode
        self.metadata = {**first.metadata, "autoreset_mode": AutoresetMode.DISABLED}
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        self.observation_space = batch_space(first.observation_space, self.num_envs)
        self.action_space = batch_space(first.action_space, self.num_envs)
        self._raw: Any = create_empty_array(first.observation_space, self.num_envs)
        self._rows = isinstance(first.observation_space, spaces.Box | spaces.Discrete)
        self._latest: list[Any] = [None] * self.num_envs
        self._reward = np.zeros(self.num_envs)
        self._terminated = np.zeros(self.num_envs, bool)
        self._truncated = np.zeros(self.num_envs, bool)

    def step(self, actions: np.ndarray):
        """Observations, rewards (N,), terminated (N,), truncated (N,), {"is_success": (N,) bool} where any says so."""
        success: np.ndarray | None = None
        # a choice as an int, which Discrete checks faster than numpy's
        given = actions.tolist() if isinstance(self.single_action_space, spaces.Discrete) else actions
        for i, env in enumerate(self.envs):
            obs, self._reward[i], self._terminated[i], self._truncated[i], info = env.step(given[i])
            self._keep(i, obs)
            for name in SUCCESS:
                if name in info:
                    success = np.zeros(self.num_envs, bool) if success is None else success
                    success[i] = bool(info[name])
                    break
        info = {} if success is None else {"is_success": success}
        return self._observations(), self._reward, self._terminated, self._truncated, info

    def reset(self, *, seed: Sequence[int] | int | None = None, options: dict[str, Any] | None = None):
        """Reset the worlds of options["reset_mask"] (N,) bool, or all, each with its own seed of a list."""
        which = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        seeds = [seed] * self.num_envs if seed is None or isinstance(seed, int) else seed
        for i in np.flatnonzero(which).tolist():
            self._keep(i, self.envs[i].reset(seed=seeds[i])[0])
        return self._observations(), {}

    def render(self):
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        for env in self.envs:
            env.close()

    def _keep(self, i: int, obs: Any) -> None:
        if self._rows:
            self._raw[i] = obs
        else:
            self._latest[i] = obs

    def _observations(self) -> Any:
        if not self._rows:
            self._raw = concatenate(self.single_observation_space, self._latest, self._raw)
        return self._raw
