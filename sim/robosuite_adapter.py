"""robosuite's single-arm tasks as a VecEnv: `robosuite:Lift/Panda`, `robosuite:Door/UR5e?controller=JOINT_POSITION`.

TASK/ROBOT, and options after the question mark:

    controller       OSC_POSE (default), OSC_POSITION, JOINT_POSITION or JOINT_VELOCITY
    control_freq     actions a second, 20; a divisor of the 500 physics steps
    horizon          time limit in steps, 500
    reward_shaping   true (default) for the dense reward, false for the sparse one
    reward_scale     the reward of a solved step, 1
    hard_reset       whether every episode builds the model anew; by default where the model is drawn (Lift)
    camera           names of cameras, comma between them: 84 x 84 pictures
    workers          processes that step the worlds; by default none but this one

Episodes are those of sim/robosuite_env.py; saving, replaying and checking is sim/gymnasium_adapter.py's. This file
loads robosuite only when a task is made.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import partial
from typing import Any

from ..address import positive, split_options, without_workers
from ..errors import UsageError, unknown_name
from .gymnasium_adapter import GymVecEnv, require_worlds, worlds_of
from .randomization import Randomization
from .randomized import require_writable
from .worlds import EnvCall

TASKS = ("Door", "Lift", "NutAssembly", "NutAssemblyRound", "NutAssemblySingle", "NutAssemblySquare", "PickPlace",
         "PickPlaceBread", "PickPlaceCan", "PickPlaceCereal", "PickPlaceMilk", "PickPlaceSingle", "Stack", "ToolHang",
         "Wipe")  # fmt: skip
ROBOTS = ("IIWA", "Jaco", "Kinova3", "Panda", "PandaDexLH", "PandaDexRH", "Sawyer", "UR5e", "XArm7")
CONTROLLERS = ("OSC_POSE", "OSC_POSITION", "JOINT_POSITION", "JOINT_VELOCITY")
HORIZON = 500  # [steps]
PHYSICS_FREQ = 500  # [1/s] robosuite's macros.SIMULATION_TIMESTEP
NEEDS = ("numba", "cv2", "PIL", "qpsolvers", "scipy", "termcolor")  # what robosuite imports


def make_robosuite(name: str, num_envs: int, seed: int = 0, randomization: Randomization | None = None) -> GymVecEnv:
    """N worlds of TASK/ROBOT?options.

    Raises:
        UsageError: an unknown task, robot or option, or robosuite is not installed.
    """
    require_worlds(num_envs, f"robosuite:{name}")
    bare, workers = without_workers(name)
    plain, options = split_options(bare)
    task, robot = _names(plain)
    given = _options(options)
    randomization = randomization or Randomization()
    require_writable(randomization, f"robosuite:{bare}")
    if not all(importlib.util.find_spec(module) for module in ("robosuite", *NEEDS)):
        raise UsageError("robosuite is not installed; it takes two commands: pip install 'poise[robosuite]'; "
                         "pip install --no-deps robosuite==1.5.2")  # fmt: skip
    arguments = {"task": task, "robot": robot, "options": given, "randomization": randomization.to_json()}
    call = EnvCall("poise.sim.robosuite_env:make_world", arguments)
    return worlds_of(
        call(), call, num_envs, workers, bare, seed, "robosuite", given.get("horizon", HORIZON), randomization
    )


def _names(plain: str) -> tuple[str, str]:
    task, slash, robot = plain.partition("/")
    if not slash:
        raise UsageError(f"robosuite:{plain}: a task is named TASK/ROBOT, such as robosuite:Lift/Panda")
    if task.startswith("TwoArm"):
        raise UsageError(
            f"robosuite:{plain}: tasks for two arms are not supported; those for one are {', '.join(TASKS)}"
        )
    if task not in TASKS:
        raise unknown_name("robosuite task", task, TASKS)
    if robot not in ROBOTS:
        raise UsageError(f"{unknown_name('robosuite robot', robot, ROBOTS)}; supported are arms on a fixed base: "
                         f"{', '.join(ROBOTS)}")  # fmt: skip
    return task, robot


def _options(texts: Mapping[str, str]) -> dict[str, Any]:
    """The options as values of RobosuiteOptions."""
    read = {
        "controller": partial(_one_of, CONTROLLERS),
        "control_freq": partial(positive, kind=int),
        "horizon": partial(positive, kind=int),
        "reward_shaping": _truth,
        "reward_scale": positive,
        "hard_reset": _truth,
        "camera": lambda name, text: text.split(","),
    }
    for name in texts:
        if name not in read:
            raise unknown_name("option of a robosuite task", name, read)
    given = {name: read[name](name, text) for name, text in texts.items()}
    if PHYSICS_FREQ % given.get("control_freq", 20):
        fitting = [str(n) for n in range(1, PHYSICS_FREQ + 1) if PHYSICS_FREQ % n == 0]
        raise UsageError(f"control_freq={given['control_freq']}: a control period has to be whole physics steps of "
                         f"2 ms; take one of {', '.join(fitting)}")  # fmt: skip
    return given


def _one_of(known: tuple[str, ...], name: str, text: str) -> str:
    if text not in known:
        raise unknown_name(name, text, known)
    return text


def _truth(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise UsageError(f"{name}={text}: expected true or false")
    return text.lower() == "true"
