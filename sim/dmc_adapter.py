"""dm_control's suite as a VecEnv: `dmc:cartpole-swingup`, `dmc:ball_in_cup-catch?time_limit=5&workers=4`.

DOMAIN-TASK as dm_control calls them, and options after the question mark:

    time_limit    length of an episode [s], by default the task's own
    workers       processes that step the worlds, by default none but this one

The environment is sim/dmc_env.py's; saving, replaying and checking is sim/gymnasium_adapter.py's. This file loads
dm_control only when a task is made.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, cast

from ..address import positive, split_options, without_workers
from ..errors import UsageError, unknown_name
from .gymnasium_adapter import GymVecEnv, require_worlds, worlds_of
from .randomization import Randomization
from .worlds import EnvCall

if TYPE_CHECKING:
    from .dmc_env import DmcEnv

OPTIONS = ("time_limit", "workers")


def make_dmc(name: str, num_envs: int, seed: int = 0, randomization: Randomization | None = None) -> GymVecEnv:
    """N worlds of DOMAIN-TASK?options.

    Raises:
        UsageError: an unknown task or option, dm_control is not installed, or a randomization does not fit the model.
    """
    require_worlds(num_envs, f"dmc:{name}")
    bare, workers = without_workers(name)
    plain, options = split_options(bare)
    if not importlib.util.find_spec("dm_control"):
        raise UsageError(f"dmc:{name} needs dm_control: pip install 'poise[dmc]'")
    from .dmc_env import suite

    tasks = {f"{domain}-{task}": (domain, task) for domain, task in suite().ALL_TASKS}
    if plain not in tasks:
        raise unknown_name("task of dm_control's suite", plain, tasks)
    for option in options:
        if option not in OPTIONS:
            raise unknown_name("option of a dm_control task", option, OPTIONS)
    domain, task = tasks[plain]
    arguments: dict[str, Any] = {"domain": domain, "task": task}
    if "time_limit" in options:
        arguments["time_limit"] = positive("time_limit", options["time_limit"], unit="seconds")
    if randomization:
        arguments["randomization"] = randomization.to_json()
    call = EnvCall("poise.sim.dmc_env:make_env", arguments)
    first = call()
    limit = cast("DmcEnv", first.unwrapped).max_episode_steps
    return worlds_of(first, call, num_envs, workers, bare, seed, "dmc", limit, randomization)
