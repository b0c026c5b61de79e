"""Worlds: N Gymnasium environments stepped one after another in this process, with as little as possible around them.

A VectorEnv in auto-reset mode DISABLED, as GymVecEnv wants it. Gymnasium's SyncVectorEnv does the same for three times
the overhead: it merges every entry of every info, and builds its arrays anew. Of the infos only what says whether an
episode succeeded is kept here. sim/worker_worlds.py steps such Worlds in processes of their own.

Legend: N worlds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from .world_arrays import WorldArrays

SUCCESS = ("is_success", "success")  # what environments call it in their info


@dataclass(frozen=True)
class EnvCall:
    """How an environment is made: a function by its name and plain arguments, so that any process can do it."""

    function: str  # "module:name"
    arguments: Mapping[str, Any]

    def __call__(self) -> gymnasium.Env:
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)(**self.arguments)


class Worlds(VectorEnv):
    """The arrays that `step` and `reset` return are overwritten by the next call."""

    lost_workers = 0  # nobody else works here

    def __init__(self, makers: Sequence[Callable[[], gymnasium.Env]], arrays: WorldArrays | None = None):
        """`arrays`: where to write what the worlds answer; by default memory of its own."""
        self.envs = [make() for make in makers]
        describe(self, self.envs[0], len(self.envs))
        self.render_mode = self.envs[0].render_mode
        self.arrays = arrays or WorldArrays(self.single_observation_space, self.single_action_space, self.num_envs)
        self._all = range(self.num_envs)
        self.at = 0  # the world at work

    def step(self, actions: np.ndarray):
        """Observations, rewards (N,), terminated (N,), truncated (N,), {"is_success": (N,) bool} where any says so."""
        return outcome(self.arrays, self.step_some(actions, self._all))

    def step_some(self, actions: np.ndarray, which: Iterable[int]) -> bool:
        """Step some of the worlds; what they answer stands in `arrays`. Whether any says if it succeeded."""
        arrays, said = self.arrays, False
        # a choice as an int, which Discrete checks faster than numpy's
        given = actions.tolist() if isinstance(self.single_action_space, spaces.Discrete) else actions
        for i in which:
            self.at = i
            obs, arrays.reward[i], arrays.terminated[i], arrays.truncated[i], info = self.envs[i].step(given[i])
            arrays.keep(i, obs)
            for name in SUCCESS:
                if name in info:
                    if not said:
                        arrays.success[:] = False
                        said = True
                    arrays.success[i] = bool(info[name])
                    break
        return said

    def reset(self, *, seed: Sequence[int] | int | None = None, options: dict[str, Any] | None = None):
        """Reset the worlds of options["reset_mask"] (N,) bool, or all, each with its own seed of a list."""
        which = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        self.reset_some(np.flatnonzero(which).tolist(), seeds_of(seed, self.num_envs))
        return self.arrays.obs, {}

    def reset_some(self, which: Iterable[int], seeds: Sequence[int | None]) -> None:
        """Reset some of the worlds; what they show stands in `arrays`."""
        for i in which:
            self.at = i
            self.arrays.keep(i, self.envs[i].reset(seed=seeds[i])[0])

    def render(self):
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        for env in self.envs:
            env.close()


def describe(worlds: VectorEnv, like: gymnasium.Env, num_envs: int) -> None:
    """Say of a VectorEnv that it is `num_envs` environments like this one, in auto-reset mode DISABLED."""
    worlds.num_envs, worlds.spec = num_envs, like.spec
    worlds.metadata = {**like.metadata, "autoreset_mode": AutoresetMode.DISABLED}
    worlds.single_observation_space, worlds.single_action_space = like.observation_space, like.action_space
    worlds.observation_space = batch_space(like.observation_space, num_envs)
    worlds.action_space = batch_space(like.action_space, num_envs)


def outcome(arrays: WorldArrays, said: bool):
    """What `step` of a VectorEnv returns."""
    info = {"is_success": arrays.success} if said else {}
    return arrays.obs, arrays.reward, arrays.terminated, arrays.truncated, info


def seeds_of(seed: Sequence[int] | int | None, num_envs: int) -> Sequence[Any]:
    """One seed for each world."""
    return [seed] * num_envs if seed is None or isinstance(seed, int) else seed
