"""Videos of a policy at work in its task, drawn without a screen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..address import without_workers
from ..errors import UsageError
from ..keyed import Stream
from ..sim.looks import Looks
from ..sim.make import make, randomization_of
from ..sim.render import Renderer, choose_backend, write_video
from ..sim.task_env import TaskEnv
from .evaluate import Acts, require_same_spec
from .expert_policy import watch

PAUSE = 0.5  # [s] that the last picture of an episode stays


def film(
    policy: Acts,
    task: str,
    path: str | os.PathLike[str],
    episodes: int = 3,
    seed: int = 0,
    randomize: Any = "none",
) -> Path:
    """Write an mp4 of `episodes` episodes of `policy` in `task`; they are the first that `evaluate` would score.

    Colours, sizes, lights and cameras that are randomized are filmed as each episode has them.
    """
    if episodes < 1:
        raise UsageError(f"video episodes = {episodes}: expected at least 1")
    path, renderer = Path(path), None
    if task.startswith("gym:"):
        from ..sim.gymnasium_adapter import make_gym

        choose_backend()
        env = make_gym(task.removeprefix("gym:"), 1, render_mode="rgb_array",
                       randomization=randomization_of(randomize))  # fmt: skip
        draw = env.render
    else:
        env = make(without_workers(task)[0], 1, randomize=randomize, threads=1)
        if isinstance(env, TaskEnv):
            renderer, draw = _drawn(env)
        else:
            from ..sim.gymnasium_adapter import GymVecEnv

            assert isinstance(env, GymVecEnv)
            draw = env.render
    try:
        require_same_spec(policy.spec, env.spec, task)
        watch(policy, env)
        write_video(path, _frames(policy, env, draw, episodes, seed), fps=1.0 / env.spec.control_dt)
    finally:
        if renderer is not None:
            renderer.close()
        env.close()
    return path


def _drawn(env: TaskEnv) -> tuple[Renderer, Callable[[], np.ndarray]]:
    """What draws the world of a native task as its present episode looks."""
    looks = Looks(env)
    renderer = Renderer(env.task, decorate=looks.decorate)

    def draw() -> np.ndarray:
        looks.put(renderer.model)
        return renderer.world(env.state, 0)

    return renderer, draw


def _frames(policy: Acts, env: Any, draw: Any, episodes: int, seed: int) -> Iterator[np.ndarray]:
    for episode in range(episodes):
        obs = env.reset(int(Stream(seed, "evaluate").integer(episode, 0)[0]))
        state, done = policy.initial_state(1), False
        while not done:
            frame = draw()
            yield frame
            chunk, state = policy.act(obs, state)
            step = env.step(chunk[:, 0])
            obs, done = step.obs, bool(step.done[0])
        for _ in range(round(PAUSE / env.spec.control_dt)):
            yield frame
