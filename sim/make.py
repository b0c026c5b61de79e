"""make: a VecEnv from a task's name.

    reach/fr3               a native task, TASK/ROBOT; options follow it: reach/fr3?mjcf=my_fr3.xml
    HalfCheetah-v5          Gymnasium's task of that name, stepped by our own engine: sim/tasks/gymnasium_task.py
    gym:HalfCheetah-v5      any Gymnasium id, through sim/gymnasium_adapter.py
    gym:ALE/Pong-v5?…       an Atari game, with the options of sim/atari.py
    robosuite:Lift/Panda    a robosuite task, TASK/ROBOT, with the options of sim/robosuite_adapter.py
    dmc:cartpole-swingup    a task of dm_control's suite, through sim/dmc_adapter.py
    py:module:attribute     a task of your own: the attribute, called with the options, returns a Task

Importing this file loads neither torch nor mujoco.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from ..address import own_attribute, split_options, value_of
from ..errors import UsageError, unknown_name
from ..robots import ROBOTS
from .adr import AdaptiveRandomization, adaptive
from .randomization import Randomization
from .task import Task

if TYPE_CHECKING:
    from .vec_env import VecEnv


def _reach(robot: str) -> Callable[..., Task]:
    """The factory of a reach; mjcf=FILE is another model of the arm."""

    def factory(mjcf: str = "") -> Task:
        from .tasks.reach import Reach

        return Reach(robot, mjcf)

    return factory


def _planar(camera: bool) -> Task:
    from .tasks.planar import PlanarReach

    return PlanarReach(camera)


def _tabletop(module: str, cls: str, robot: str) -> Callable[..., Task]:
    """The factory of a task on a table.

    camera=front|side shows what stands there, reward=sparse is 1 at success alone, mjcf=FILE is another arm.
    """

    def factory(camera: str = "", mjcf: str = "", reward: str = "dense") -> Task:
        return getattr(importlib.import_module(f".tasks.{module}", __package__), cls)(robot, camera, mjcf, reward)

    return factory


def _station(module: str, cls: str, robot: str) -> Callable[..., Task]:
    """The factory of a task at a stand: camera=front|side shows where it is, mjcf=FILE is another arm."""

    def factory(camera: str = "", mjcf: str = "") -> Task:
        return getattr(importlib.import_module(f".tasks.{module}", __package__), cls)(robot, camera, mjcf)

    return factory


def _gymnasium(module: str, name: str) -> Callable[[], Task]:
    """The factory of one of Gymnasium's MuJoCo tasks in our own engine."""
    return lambda: getattr(importlib.import_module(f".tasks.{module}", __package__), name.removesuffix("-v5"))()


_GYMNASIUM = {
    "runners": ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Swimmer-v5"),
    "legged": ("Ant-v5", "Humanoid-v5"),
    "pointing": ("Reacher-v5", "Pusher-v5"),
    "pendulums": ("InvertedPendulum-v5", "InvertedDoublePendulum-v5"),
}  # file in sim/tasks -> tasks

_TABLETOP = (("push", "push", "Push"), ("lift", "lift", "Lift"), ("pick-place", "pick_place", "PickPlace"))
_STATIONS = (("drawer", "drawer", "Drawer"), ("peg", "peg", "Peg"))
_STATION_ARMS = ("fr3", "ur5e")


def _valve(camera: str = "") -> Task:
    from .tasks.valve import Valve

    return Valve(camera)


def _walk() -> Task:
    from .tasks.walk import Walk

    return Walk()


# name -> a function whose parameters are the options that may follow the name, each a text
TASKS: dict[str, Callable[..., Task]] = {
    **{f"reach/{robot}": _reach(robot) for robot in ROBOTS},
    "reach/planar": lambda: _planar(camera=True),
    "reach/planar-state": lambda: _planar(camera=False),
    **{f"{task}/{robot}": _tabletop(module, cls, robot) for task, module, cls in _TABLETOP for robot in ROBOTS},
    **{f"{task}/{robot}": _station(module, cls, robot) for task, module, cls in _STATIONS for robot in _STATION_ARMS},
    **{name: _gymnasium(module, name) for module, names in _GYMNASIUM.items() for name in names},
    "valve/claw": _valve,
    "walk/quad": _walk,
}


ENGINES = ("cpu", "warp")
Randomize = str | os.PathLike[str] | Mapping[str, Any] | Randomization


def _gym(name: str, num_envs: int, seed: int, randomize: Randomize, threads: int, training: bool) -> VecEnv:
    from .gymnasium_adapter import make_gym

    return make_gym(name.removeprefix("gym:"), num_envs, seed, training=training,
                    randomization=_standing_still(name, randomize))  # fmt: skip


def _robosuite(name: str, num_envs: int, seed: int, randomize: Randomize, threads: int, training: bool) -> VecEnv:
    from .robosuite_adapter import make_robosuite

    return make_robosuite(name.removeprefix("robosuite:"), num_envs, seed, _standing_still(name, randomize))


def _dmc(name: str, num_envs: int, seed: int, randomize: Randomize, threads: int, training: bool) -> VecEnv:
    from .dmc_adapter import make_dmc

    return make_dmc(name.removeprefix("dmc:"), num_envs, seed, _standing_still(name, randomize))


def _standing_still(name: str, randomize: Randomize) -> Randomization:
    """The randomization of another simulator's worlds, whose ranges cannot adapt."""
    if isinstance(randomization := randomization_of(randomize), AdaptiveRandomization):
        raise UsageError(f"{name}: ranges adapt in Poise's own tasks, not in another simulator's")
    return randomization


# what precedes the colon -> a function of make's arguments
ADAPTERS: dict[str, Callable[[str, int, int, Randomize, int, bool], VecEnv]] = {
    "gym": _gym, "robosuite": _robosuite, "dmc": _dmc,
}  # fmt: skip


def make(task: str, num_envs: int = 1, seed: int = 0, randomize: Randomize = "none", threads: int = 0,
         training: bool = False, engine: str = "cpu", device: str = "cuda") -> VecEnv:  # fmt: skip
    """N worlds of a task; call reset(seed) on them before the first step.

    randomize: "none", "default" (the task's own, where it has one), "adr" (the same, with ranges that adapt:
        sim/adr.py; its settings may follow, "adr?t_high=0.6"), the path of a JSON file, its data, a Randomization, or
        py:module:attribute for one of yours.
    threads: for native tasks on the CPU; 0 takes every core this process may use.
    training: whether worlds are for learning from, not for scoring: what a task's name asks of training then holds.
    engine: of native tasks: "cpu", MuJoCo in threads, or "warp", MuJoCo Warp on `device` ("cuda", or "cpu", which
        serves tests alone), with tensors that live there.

    Raises:
        UsageError: an unknown task, with the nearest names; a randomization that does not fit the task; an engine that
            is not here, or that lacks what the task needs.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    prefix, colon, _ = task.partition(":")
    if colon and prefix in ADAPTERS:
        if engine != "cpu":
            raise UsageError(f"{task} is stepped by its own simulator on the CPU; engine={engine} is for Poise's tasks")
        return ADAPTERS[prefix](task, num_envs, seed, randomize, threads, training)
    made = load_task(task)
    randomization = randomization_of(randomize, made)
    if isinstance(randomization, AdaptiveRandomization) and not training:
        raise UsageError("ranges that adapt follow a learner (training=True), so a score on them measures nothing; "
                         "score on default, or on the adr.json of the run's folder")  # fmt: skip
    if engine == "warp":
        from .device_env import DeviceEnv

        return DeviceEnv(made, num_envs, randomization, seed, device)
    from .task_env import TaskEnv

    return TaskEnv(made, num_envs, randomization, seed, threads)


def load_task(name: str) -> Task:
    """The native task of that name, or the user's own under "py:module:attribute"."""
    plain, options = split_options(name)
    if plain.startswith("py:"):
        factory = _imported(plain)
    elif plain in TASKS:
        factory = TASKS[plain]
    else:
        raise unknown_name("task", plain, [*TASKS, *(f"{prefix}:ID" for prefix in ADAPTERS), "py:module:attribute"])
    known = inspect.signature(factory).parameters if options else {}
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {plain}", option, known)
    return factory(**options)


def randomization_of(randomize: Randomize, task: Task | None = None) -> Randomization:
    """What `make`'s argument of that name means for a task; a simulator of others has no default."""
    if isinstance(randomize, Randomization):
        return randomize
    if isinstance(randomize, Mapping):
        return Randomization.from_json(randomize)
    if randomize == "none":
        return Randomization()
    if isinstance(randomize, str) and randomize.startswith("py:"):
        if isinstance(own := own_attribute(randomize), Randomization):
            return own
        raise UsageError(f"{randomize} should be a Randomization, not {own!r}")
    if isinstance(randomize, str) and randomize.partition("?")[0] == "adr":
        if task is None:
            raise UsageError("ranges adapt in Poise's own tasks, not in another simulator's")
        return adaptive(
            task.randomization, {name: value_of(text) for name, text in split_options(randomize)[1].items()}
        )
    if randomize == "default":
        return task.randomization if task else Randomization()
    return Randomization.load(os.fspath(randomize))


def _imported(name: str) -> Callable[..., Task]:
    factory = own_attribute(name)
    if not callable(factory):
        raise UsageError(f"{name} should be something to call that returns a task, not {factory!r}")
    return cast("Callable[..., Task]", factory)
