"""Poise's native tasks as Gymnasium environments, for anybody's learner.

    import gymnasium, poise.envs
    env = gymnasium.make("poise/reach-fr3-v0", randomize="default")     one world
    envs = gymnasium.make_vec("poise/reach-fr3-v0", num_envs=64)        N worlds, stepped together

A task TASK/ROBOT is registered as `poise/TASK-ROBOT-v0`, one that ends in a version keeps it:
`poise/HalfCheetah-v5`. Arguments are `randomize`, `threads`, `render_mode="rgb_array"`, and the options of the task.

What a policy may see is the observation: the array itself where there is one group, else a Dict of groups.
Groups that only a simulator can fill (`privileged`) are in the info, beside `is_success`.

Importing this file loads neither torch nor MuJoCo.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ..address import with_option
from ..errors import UsageError
from ..spec import NEVER_IN_POLICY_FILE, Spec
from .make import TASKS, load_task, randomization_of

if TYPE_CHECKING:
    from .task_env import TaskEnv

# Environments that are Gymnasium's to begin with: (where they are, time limit [steps])
OWN = {
    "poise/Catch-v0": ("poise.sim.tasks.catch:Catch", None),
    "poise/CartPoleHidden-v0": ("poise.sim.tasks.cartpole_hidden:CartPoleHidden", 500),
}


def gymnasium_id(task: str) -> str:
    """The id of a native task: `reach/fr3` -> `poise/reach-fr3-v0`, `HalfCheetah-v5` -> `poise/HalfCheetah-v5`."""
    name = task.replace("/", "-")
    return f"poise/{name}" if re.search(r"-v\d+$", name) else f"poise/{name}-v0"


def register() -> None:
    """Have Gymnasium know every environment of Poise; once is enough, again does no harm."""
    for id, (entry_point, limit) in OWN.items():
        if id not in gymnasium.registry:
            gymnasium.register(id, entry_point, max_episode_steps=limit)
    for task in TASKS:
        if (id := gymnasium_id(task)) not in gymnasium.registry:
            gymnasium.register(id, "poise.sim.gymnasium_envs:PoiseEnv", kwargs={"task": task},
                               vector_entry_point="poise.sim.gymnasium_envs:PoiseVectorEnv")  # fmt: skip


class PoiseEnv(gymnasium.Env):
    """One world of a native task. `reset(seed)` plays episode 0 of that seed, `reset()` the next one."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (as Gymnasium has it)

    def __init__(self, task: str, render_mode: str | None = None, randomize: Any = "none", threads: int = 1,
                 **options: Any):  # fmt: skip
        self._worlds, self._name = _make(task, 1, randomize, threads, options), task
        if self._worlds.adr is not None:
            raise UsageError("ranges adapt over many episodes, and every reset of one world begins anew: use make_vec")
        spec = self._worlds.spec
        self.metadata = {**self.metadata, "render_fps": round(1.0 / spec.control_dt)}
        self.render_mode = _checked_mode(render_mode)
        self.observation_space, self.action_space = observation_space(spec), _action_space(spec)
        self._seed: int | None = None
        self._episode, self._over = 0, True
        self._renderer: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if seed is not None or self._seed is None:
            self._seed = int(seed if seed is not None else self.np_random.integers(2**31))
            self._episode = -1
        self._episode += 1
        obs = self._worlds.reset(self._seed, 0, self._episode)
        self._over = False
        return _row(self._worlds.spec, obs, 0), _hidden(self._worlds.spec, obs, 0)

    def step(self, action: np.ndarray):
        import torch

        if self._over:
            raise UsageError(f"{self._name}: the episode is over; call reset() before the next step")
        step = self._worlds.step(torch.as_tensor(np.asarray(action, np.float32)[None]))
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        self._over = terminated or truncated
        info = _hidden(self._worlds.spec, step.next_obs, 0)
        if step.success is not None:
            info["is_success"] = bool(step.success[0])
        return _row(self._worlds.spec, step.next_obs, 0), float(step.reward[0]), terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """The world as a frame (480, 640, 3) uint8."""
        if self.render_mode is None:
            return None
        if self._renderer is None:
            from .render import Renderer

            self._renderer = Renderer(self._worlds.task)
        return self._renderer.world(self._worlds.state, 0)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._worlds.close()


class PoiseVectorEnv(VectorEnv):
    """N worlds of a native task, in Gymnasium's auto-reset mode SAME_STEP: info["final_obs"] has the true ends."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 (as Gymnasium has it)

    def __init__(self, task: str, num_envs: int = 1, render_mode: str | None = None, randomize: Any = "none",
                 threads: int = 0, **options: Any):  # fmt: skip
        self._worlds = _make(task, num_envs, randomize, threads, options)
        self.num_envs, self.render_mode = num_envs, _checked_mode(render_mode)
        spec = self._worlds.spec
        self.metadata = {**self.metadata, "render_fps": round(1.0 / spec.control_dt)}
        self.single_observation_space, self.single_action_space = observation_space(spec), _action_space(spec)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if options:
            raise UsageError(f"these worlds take no options at reset, got {', '.join(options)}")
        obs = self._worlds.reset(int(seed if seed is not None else self.np_random.integers(2**31)))
        return _rows(self._worlds.spec, obs), _hidden(self._worlds.spec, obs)

    def step(self, actions: np.ndarray):
        import torch

        spec, step = self._worlds.spec, self._worlds.step(torch.as_tensor(np.asarray(actions, np.float32)))
        info: dict[str, Any] = _hidden(spec, step.obs)
        done = step.done.numpy()
        if step.success is not None:
            info["is_success"] = step.success.numpy()
        if done.any():
            final = np.empty(self.num_envs, object)
            for world in np.flatnonzero(done).tolist():
                final[world] = _row(spec, step.next_obs, world)
            info |= {"final_obs": final, "_final_obs": done}
            if step.success is not None:
                info["final_info"] = {"is_success": step.success.numpy(), "_is_success": done}
        return (_rows(spec, step.obs), step.reward.numpy().astype(np.float64), step.terminated.numpy(),
                step.truncated.numpy(), info)  # fmt: skip

    def close_extras(self, **kwargs: Any) -> None:
        self._worlds.close()


# ---- spaces and rows ---------------------------------------------------------------------------


def observation_space(spec: Spec) -> spaces.Space:
    """The space of what a policy may see: a Box for one group, a Dict of Boxes for several."""
    groups: dict[str, spaces.Space] = {
        group: _box(spec, group) for group in spec.observations if group not in NEVER_IN_POLICY_FILE
    }
    return next(iter(groups.values())) if len(groups) == 1 else spaces.Dict(groups)


def _box(spec: Spec, group: str) -> spaces.Box:
    if spec.is_image(group):
        return spaces.Box(0, 255, spec.obs_shape(group), np.uint8)
    low = np.concatenate([np.full(term.size, term.low) for term in spec.observations[group]])
    high = np.concatenate([np.full(term.size, term.high) for term in spec.observations[group]])
    return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)


def _action_space(spec: Spec) -> spaces.Box:
    return spaces.Box(-1.0, 1.0, (spec.action_dim,), np.float32)


def _rows(spec: Spec, obs: Mapping[str, Any]) -> Any:
    seen = {group: values.numpy() for group, values in obs.items() if group not in NEVER_IN_POLICY_FILE}
    return next(iter(seen.values())) if len(seen) == 1 else seen


def _row(spec: Spec, obs: Mapping[str, Any], world: int) -> Any:
    return _rows(spec, {group: values[world] for group, values in obs.items()})


def _hidden(spec: Spec, obs: Mapping[str, Any], world: int | slice = slice(None)) -> dict[str, Any]:
    return {group: obs[group][world].numpy() for group in obs if group in NEVER_IN_POLICY_FILE}


def _make(task: str, num_envs: int, randomize: Any, threads: int, options: Mapping[str, Any]) -> TaskEnv:
    from .task_env import TaskEnv

    for option, value in options.items():
        task = with_option(task, option, str(value))
    made = load_task(task)
    return TaskEnv(made, num_envs, randomization_of(randomize, made), 0, threads)


def _checked_mode(render_mode: str | None) -> str | None:
    if render_mode not in (None, "rgb_array"):
        raise UsageError(f"render_mode {render_mode!r}: expected 'rgb_array' or None; `poise view` shows tasks live")
    return render_mode
