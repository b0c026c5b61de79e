"""DmcEnv: a task of dm_control's suite as a Gymnasium environment (Tassa et al. 2018, arXiv 1801.00690).

    dm_control                                  here
    the task's own random state                 drawn anew by every reset(seed), so that an episode is a function of it
    the last step has discount 0                terminated
    the last step has discount 1: time is up    truncated
    an actuator without limits                  takes commands in [-1, 1]
    the simulation diverges (PhysicsError)      a reward that is NaN: GymVecEnv contains the world

dm_control draws nothing here: frames come from Gymnasium's renderer. No torch is loaded.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from .randomized import randomized

UNLIMITED = mujoco.mjMAXVAL  # what dm_control says of an actuator without limits
FRAME = (480, 480)  # [pixels]


class DmcEnv(gymnasium.Env):
    """One world of a task; observations are a Dict of what dm_control calls them."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's own form)

    def __init__(self, domain: str, task: str, time_limit: float | None = None):
        """time_limit: of an episode [s], by default the task's own."""
        limit = {} if time_limit is None else {"time_limit": time_limit}
        # a model that is drawn at random (lqr's) is the same one in every world
        self._env = suite().load(domain, task, task_kwargs={"random": 0, **limit})
        self.physics = self._env.physics
        self.physics._make_rendering_contexts = lambda: None  # quadruped-escape would upload its terrain to a screen
        self.model, self.data = self.physics.model.ptr, self.physics.data.ptr
        self.dt = float(self._env.control_timestep())
        steps = self._env._step_limit
        self.max_episode_steps = math.ceil(steps) if math.isfinite(steps) else 0
        self.render_mode, self._renderer = "rgb_array", None
        shapes = {name: spec.shape for name, spec in self._env.observation_spec().items()}
        self.observation_space = spaces.Dict(
            [(n, spaces.Box(-np.inf, np.inf, s, np.float64)) for n, s in shapes.items()]
        )
        asked = self._env.action_spec()
        free = (np.abs(asked.minimum) >= UNLIMITED) | (np.abs(asked.maximum) >= UNLIMITED)
        self.action_space = spaces.Box(np.where(free, -1.0, asked.minimum), np.where(free, 1.0, asked.maximum),
                                       dtype=np.float64)  # fmt: skip

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._env.task._random = np.random.RandomState(seed)
        if self.model.nhfield:  # a terrain is drawn anew
            self._close_renderer()
        return self._env.reset().observation, {}

    def step(self, action: np.ndarray):
        from dm_control.rl.control import PhysicsError

        try:
            step = self._env.step(action)
        except PhysicsError:
            return self._env.task.get_observation(self.physics), math.nan, False, True, {}
        return step.observation, step.reward, step.last() and step.discount == 0.0, \
            step.last() and step.discount != 0.0, {}  # fmt: skip

    def render(self) -> Any:
        """A frame (height, width, 3) uint8 of the task's first camera."""
        if self._renderer is None:
            from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

            from .render import choose_backend

            choose_backend()
            self.model.vis.quality.shadowsize = self.model.vis.quality.offsamples = 0  # a quarter of the time on a CPU
            camera = 0 if self.model.ncam else None
            self._renderer = MujocoRenderer(self.model, self.data, width=FRAME[1], height=FRAME[0], camera_id=camera)
        return self._renderer.render(self.render_mode)

    def close(self) -> None:
        self._close_renderer()
        self._env.close()

    def _close_renderer(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def make_env(domain: str, task: str, time_limit: float | None = None,
             randomization: Mapping[str, Any] | None = None) -> gymnasium.Env:  # fmt: skip
    """One world, with a randomization's data where there is one."""
    return randomized(DmcEnv(domain, task, time_limit), randomization, f"dmc:{domain}-{task}")


def suite() -> Any:
    """dm_control's suite of tasks.

    Raises:
        ImportError: dm_control is not installed.
    """
    with _no_drawing():
        from dm_control import suite
        from dm_control.mujoco.wrapper.mjbindings import sizes
    # dm_control 1.0.41 indexes every field of MuJoCo 3.8, and needs none of those that later ones left out
    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    fields = sizes.array_sizes["mjmodel"]
    for gone in [f for f in fields if not hasattr(model, f)]:
        del fields[gone]
    return suite


@contextlib.contextmanager
def _no_drawing() -> Iterator[None]:
    """Without a screen dm_control's import would look for one, and warn."""
    before = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disable"
    try:
        yield
    finally:
        os.environ.pop("MUJOCO_GL") if before is None else os.environ.update(MUJOCO_GL=before)
