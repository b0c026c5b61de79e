"""make: a VecEnv from a task's name.

    reach/fr3               a native task, TASK/ROBOT
    gym:HalfCheetah-v5      any Gymnasium id, through sim/gymnasium_adapter.py
    gym:ALE/Pong-v5?…       an Atari game, with the options of sim/atari.py
    py:module:attribute     a task of your own: the attribute, called, returns a Task

Importing this file loads neither torch nor mujoco.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..errors import UsageError, unknown_name
from .randomization import Randomization
from .task import Task

if TYPE_CHECKING:
    from .vec_env import VecEnv


def _reach() -> Task:
    from .tasks.reach import Reach

    return Reach()


def _planar(camera: bool) -> Task:
    from .tasks.planar import PlanarReach

    return PlanarReach(camera)


TASKS: dict[str, Callable[[], Task]] = {
    "reach/fr3": _reach,
    "reach/planar": lambda: _planar(camera=True),
    "reach/planar-state": lambda: _planar(camera=False),
}


Randomize = str | os.PathLike[str] | Mapping[str, Any] | Randomization


def make(task: str, num_envs: int = 1, seed: int = 0, randomize: Randomize = "none", threads: int = 0,
         training: bool = False) -> VecEnv:  # fmt: skip
    """N worlds of a task; call reset(seed) on them before the first step.

    randomize: "none", "default" (the task's own, where it has one), the path of a JSON file, its data, or a
        Randomization.
    threads: for native tasks; 0 takes every core this process may use.
    training: whether worlds are for learning from, not for scoring: what a task's name asks of training then holds.

    Raises:
        UsageError: an unknown task, with the nearest names; a randomization that does not fit the task.
    """
    if task.startswith("gym:"):
        if randomize not in ("none", "default"):
            raise UsageError(f"{task} cannot be randomized: its dynamics belong to Gymnasium; use randomize='none'")
        from .gymnasium_adapter import make_gym

        return make_gym(task.removeprefix("gym:"), num_envs, seed, training=training)
    from .task_env import TaskEnv

    made = load_task(task)
    return TaskEnv(made, num_envs, _randomization(randomize, made), seed, threads)


def load_task(name: str) -> Task:
    """The native task of that name, or the user's own under "py:module:attribute"."""
    if name.startswith("py:"):
        return _imported(name)
    if name not in TASKS:
        raise unknown_name("task", name, [*TASKS, "gym:ID", "py:module:attribute"])
    return TASKS[name]()


def _randomization(randomize: Randomize, task: Task) -> Randomization:
    if isinstance(randomize, Randomization):
        return randomize
    if isinstance(randomize, Mapping):
        return Randomization.from_json(randomize)
    if randomize == "none":
        return Randomization()
    return task.randomization if randomize == "default" else Randomization.load(os.fspath(randomize))


def _imported(name: str) -> Task:
    module_name, _, attribute = name.removeprefix("py:").partition(":")
    if not module_name or not attribute:
        raise UsageError(f"a task of your own is named py:module:attribute, not {name!r}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f"cannot import {module_name!r} for {name}: {error}; is its folder on PYTHONPATH?") from None
    if not callable(factory := getattr(module, attribute, None)):
        known = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise unknown_name(f"callable in module {module_name}", attribute, known)
    return cast("Task", factory())
