"""Experts: what a scripted solution of a task is, and where to find it.

    chosen = expert("lift/fr3")            for its task, whose options are as everywhere
    action = chosen.act(env.state)         (N, A) in [-1, 1] from true states

An expert shows that its task can be solved, makes demonstrations, and is the score to compare a policy with
(`poise eval expert --task lift/fr3`). It reads the simulator's true state, which no policy may.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np

from ...errors import UsageError
from ..make import load_task
from ..task import State, Task


class Expert(Protocol):
    """A scripted solution."""

    def act(self, state: State) -> np.ndarray:
        """Actions (N, A) in [-1, 1] for N worlds; a world at time 0 begins anew."""
        ...


# what precedes the slash in a task's name -> file of this folder and class, which is called with the task
EXPERTS: dict[str, tuple[str, str]] = {
    "reach": ("reach", "ReachExpert"),
    "push": ("push", "PushExpert"),
    "lift": ("grasp", "LiftExpert"),
    "pick-place": ("grasp", "PickPlaceExpert"),
    "drawer": ("drawer", "DrawerExpert"),
    "peg": ("peg", "PegExpert"),
    "valve": ("valve", "ValveExpert"),
    "walk": ("walk", "WalkExpert"),
}


def expert(task: str | Task) -> Expert:
    """The expert of a task, or of the task of that name.

    Raises:
        UsageError: it has none, with the tasks that have one; or the package that experts need is missing.
    """
    made = load_task(task) if isinstance(task, str) else task
    kind = made.name.partition("/")[0]
    if kind not in EXPERTS or made.name.startswith("reach/planar"):
        have = ", ".join(f"{name}/…" for name in EXPERTS)
        raise UsageError(f"there is no scripted expert of {made.name}; there is one of {have}")
    module, name = EXPERTS[kind]
    chosen: Any = getattr(importlib.import_module(f".{module}", __package__), name)
    return chosen(made)
