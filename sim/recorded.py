"""Recorded episodes put back into the simulator they came from.

    Recorded            one world that a recorded episode is played in again
      begin(start)        placed where the episode began
      step(action)        onward by the recorded action, in the simulator's own physics
      follow(…)           onward to the recorded state, judged there by the task

How `follow` judges differs by what a simulator lets one ask:

    Poise's own tasks   the task's reward and success at the recorded state, after the recorded action
    robosuite           the same; the state after the last action is not in such files, so that one is not judged
    gym:                rewards are of transitions: one step of the recorded action from each recorded state

A state is time, qpos and qvel side by side, (1 + nq + nv,).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import mujoco
import numpy as np
import torch

from ..action import control_value
from ..errors import DatasetError, UsageError
from .gymnasium_adapter import GymVecEnv
from .gymnasium_spaces import Groups, action_term
from .render import Renderer
from .task_env import TaskEnv
from .worlds import SUCCESS

Start = np.ndarray | Mapping[str, np.ndarray]  # a state, or what an environment's own set_env_state takes


@dataclass(frozen=True)
class Moment:
    """What the world shows after a step."""

    obs: Mapping[str, np.ndarray]  # group -> (dim,)
    state: np.ndarray | None  # (1 + nq + nv,); None where the world has begun its next episode
    reward: float = np.nan
    success: bool | None = None
    ended: bool = False


class Recorded(Protocol):
    def begin(self, start: Start | None) -> Moment: ...

    def step(self, action: np.ndarray) -> Moment: ...

    def follow(self, state: np.ndarray, action: np.ndarray, after: np.ndarray | None) -> Moment | None:
        """The recorded step from `state` by `action` to `after`, which the last step may not have."""
        ...

    def frame(self) -> np.ndarray: ...


def recorded(env: Any, key: tuple[int, int] | None = None) -> Recorded:
    """For the one world of `env`; key: seed and number of the episode, where the file tells them.

    Raises:
        UsageError: such worlds cannot be put into a state.
    """
    if isinstance(env, TaskEnv):
        return _Native(env, key)
    if isinstance(env, GymVecEnv):
        if hasattr(env.first, "put_state"):
            return _Robosuite(env)
        if isinstance(getattr(env.first, "data", None), mujoco.MjData):
            return _Gymnasium(env)
    raise UsageError(
        "only MuJoCo worlds can be put into a recorded state: Poise's own tasks, Gymnasium's and robosuite's"
    )


class _Native:
    def __init__(self, env: TaskEnv, key: tuple[int, int] | None):
        self._env, self._key, self._renderer = env, key, None
        self._world = np.zeros(1, np.int64)

    def begin(self, start: Start | None) -> Moment:
        env = self._env
        seed, number = self._key or (0, 0)
        obs = env.reset(seed, np.array([number]))
        if self._key is not None:
            return Moment(_first(obs), self._state())
        if env.memory or start is None or isinstance(start, Mapping):
            raise DatasetError(f"{env.task.name} has goals or timers, which the file tells only by its seed and the "
                               "number of the episode, and it has none of these")  # fmt: skip
        self._put(start)
        return Moment(_first(env.observations()), self._state())

    def step(self, action: np.ndarray) -> Moment:
        env = self._env
        step = env.step(torch.from_numpy(action)[None])
        ended = bool(step.done[0])
        return Moment(_first(step.next_obs), None if ended else self._state(), float(step.reward[0]),
                      None if step.success is None else bool(step.success[0]), ended)  # fmt: skip

    def follow(self, state: np.ndarray, action: np.ndarray, after: np.ndarray | None) -> Moment | None:
        if after is None:
            self._put(state)
            return self.step(action)
        env, act = self._env, action.astype(np.float64)[None]
        env.commands.step(act, env.engine.qpos, np.zeros(1, np.int64))
        self._put(after)
        env.steps = env.steps + 1
        env.memory = env.task.advance(env.state, act)
        success = env.task.success(env.state)
        return Moment(_first(env.observations()), self._state(), float(env.task.reward(env.state, act)[0]),
                      None if success is None else bool(success[0]))  # fmt: skip

    def frame(self) -> np.ndarray:
        self._renderer = self._renderer or Renderer(self._env.task)
        return self._renderer.world(self._env.state, 0)

    def _put(self, state: np.ndarray) -> None:
        engine = self._env.engine
        _require(state, engine.model)
        nq = engine.model.nq
        engine.state = engine.state.copy()
        engine.set_state(self._world, state[None, 1 : 1 + nq], state[None, 1 + nq :])
        engine.state[0, 0] = state[0]

    def _state(self) -> np.ndarray:
        engine = self._env.engine
        return np.concatenate([[self._env.steps[0] * self._env.spec.control_dt], engine.qpos[0], engine.qvel[0]])


class _Robosuite:
    def __init__(self, env: GymVecEnv):
        self._world: Any = env.first
        self._groups = Groups(self._world.observation_space, "robosuite")

    def begin(self, start: Start | None) -> Moment:
        self._world.reset(seed=0)
        if start is None or isinstance(start, Mapping):
            raise DatasetError("a robosuite episode begins at its first state, and the file holds none")
        _require(start, self._world.model)
        return Moment(_packed(self._groups, self._world.put_state(start)), start)

    def step(self, action: np.ndarray) -> Moment:
        obs, reward, _, _, info = self._world.step(action.astype(np.float64))
        return Moment(_packed(self._groups, obs), _flat(self._world.data), reward, info["is_success"])

    def follow(self, state: np.ndarray, action: np.ndarray, after: np.ndarray | None) -> Moment | None:
        if after is None:
            return None
        obs = self._world.put_state(after)
        reward, success = self._world.judged(action)
        return Moment(_packed(self._groups, obs), after, reward, success)

    def frame(self) -> np.ndarray:
        return self._world.render()


class _Gymnasium:
    def __init__(self, env: GymVecEnv):
        self._world: Any = env.first
        self._groups = Groups(self._world.observation_space, "gym")
        self._term, self._space = action_term(self._world.action_space, "gym"), self._world.action_space

    def begin(self, start: Start | None) -> Moment:
        self._world.reset(seed=0)
        if start is None:
            raise DatasetError("an episode of a Gymnasium task begins at its first state, and the file holds none: "
                               "neither states nor initial_state")  # fmt: skip
        if isinstance(start, Mapping):
            self._begin_by_name(start)
        else:
            self._put(start)
        return Moment(self._seen(self._world._get_obs()), _flat(self._world.data))

    def step(self, action: np.ndarray) -> Moment:
        control = control_value(self._term, action.astype(self._space.dtype))
        obs, reward, terminated, _, info = self._world.step(np.clip(control, self._space.low, self._space.high))
        success = next((bool(info[name]) for name in SUCCESS if name in info), None)
        return Moment(self._seen(obs), _flat(self._world.data), float(reward), success, bool(terminated))

    def follow(self, state: np.ndarray, action: np.ndarray, after: np.ndarray | None) -> Moment | None:
        self._put(state)
        return self.step(action)

    def frame(self) -> np.ndarray:
        return np.asarray(self._world.render())

    def _seen(self, raw: Any) -> dict[str, np.ndarray]:
        return _packed(self._groups, np.asarray(raw) if not isinstance(raw, Mapping) else raw)

    def _begin_by_name(self, start: Mapping[str, np.ndarray]) -> None:
        """By the environment's own function, which places more than joints, such as Adroit's door."""
        world = self._world
        own = world.get_env_state() if hasattr(world, "get_env_state") else {"qpos": 0, "qvel": 0}
        if missing := [name for name in own if name not in start]:
            raise DatasetError(f"the task's state is {', '.join(own)}, and the file's initial_state lacks {missing[0]}")
        named = {name: np.asarray(start[name], np.float64) for name in own}
        _require(np.concatenate([[0.0], named["qpos"], named["qvel"]]), world.model)
        if hasattr(world, "set_env_state"):
            world.set_env_state(named)
        else:
            world.set_state(named["qpos"], named["qvel"])

    def _put(self, state: np.ndarray) -> None:
        _require(state, self._world.model)
        nq = self._world.model.nq
        self._world.set_state(state[1 : 1 + nq].copy(), state[1 + nq :].copy())
        self._world.data.time = state[0]


def _require(state: np.ndarray, model: mujoco.MjModel) -> None:
    if state.shape != (1 + model.nq + model.nv,) or not np.isfinite(state).all():
        raise DatasetError(f"a state of this task is {1 + model.nq + model.nv} finite numbers, time, {model.nq} "
                           f"positions and {model.nv} velocities; the file's has shape {state.shape}")  # fmt: skip


def _flat(data: mujoco.MjData) -> np.ndarray:
    return np.concatenate([[data.time], data.qpos, data.qvel])


def _packed(groups: Groups, raw: Any) -> dict[str, np.ndarray]:
    return _first(groups.pack(groups.batch([raw])))


def _first(obs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {group: x[0].numpy(force=True) for group, x in obs.items()}
