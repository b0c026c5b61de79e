"""Which engine simulates the worlds of a run, and why: what `engine=auto` decides.

MuJoCo Warp steps thousands of worlds on a GPU in the time of a few; below some hundreds, threads on the CPU are
faster. So auto takes it where the networks may live on a GPU that can be used, the extra is installed, the task and
its randomization need nothing that the CPU engine alone has, and there are FEWEST worlds or more.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from ..sim.make import ADAPTERS, load_task, randomization_of
from .devices import gpu_lack
from .run_settings import RunSettings

FEWEST = 256  # worlds that make a GPU worth it


@dataclass(frozen=True)
class Engine:
    """What steps the worlds, and why."""

    name: str  # cpu or warp
    why: str

    def __str__(self) -> str:
        return f"engine {self.name}: {self.why}"


def choose_engine(run: RunSettings, task: str, randomize: Any) -> Engine:
    """The engine of a new run. What was asked for is taken; `make` refuses it where it does not fit."""
    if run.engine != "auto":
        return Engine(run.engine, "asked for")
    if why := _against(run, task, randomize):
        return Engine("cpu", f"chosen by auto, since {why}")
    return Engine("warp", f"chosen by auto for {run.num_envs} worlds; engine=cpu simulates in threads")


def engine_device(run: RunSettings) -> str:
    """Where Warp steps worlds: with the networks."""
    return "cpu" if run.device == "cpu" else "cuda"


def _against(run: RunSettings, task: str, randomize: Any) -> str:
    """What speaks for the CPU; "" for nothing."""
    if run.device == "cpu":
        return "device is cpu"
    if run.collect == "async":
        return "collect=async steps them in processes"
    if run.num_envs < FEWEST:
        return f"there are fewer than {FEWEST} worlds"
    if lack := gpu_lack():
        return lack
    if importlib.util.find_spec("mujoco_warp") is None:
        return "MuJoCo Warp is not installed (pip install 'poise[gpu]')"
    if task.partition(":")[0] in ADAPTERS:
        return f"{task} has its own simulator"
    from ..sim.device_env import lack_of

    made = load_task(task)
    return lack_of(made, randomization_of(randomize, made))
