"""Gymnasium ids: which package brings them, and the environment that one means, in this process or in a worker.

Ids of well-known packages are registered when they are asked for. A worker process has its own registry: it is told
what stands in ours. No torch is loaded here.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import io
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict
from types import ModuleType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, WrapperSpec

from ..errors import UsageError
from .gymnasium_envs import register
from .randomization import Randomization
from .worlds import EnvCall

_log = logging.getLogger("poise.sim")

# Ids of well-known packages by their beginning: (what pip installs, the module that registers them).
PACKAGES = {
    "ALE/": ("poise[atari]", "ale_py"),
    "dm_control/": ("shimmy[dm-control]", "shimmy"),
    "MiniGrid-": ("minigrid", "minigrid"),
    **dict.fromkeys(("Fetch", "Hand", "Adroit", "FrankaKitchen", "PointMaze", "AntMaze"),
                    ("poise[robotics]", "gymnasium_robotics")),
}  # fmt: skip


# Goal environments whose `observation` leaves out where the robot is: `achieved_goal` alone says it.
HIDE_PLACE = ("AntMaze",)


def hides_place(id: str) -> bool:
    return id.rpartition(":")[2].startswith(HIDE_PLACE)


def register_id(id: str) -> None:
    """Have an id registered: Poise's own, and those of well-known packages that are installed."""
    if id.startswith("poise/"):
        register()
    module = next((m for prefix, (_, m) in PACKAGES.items() if id.startswith(prefix)), None)
    if module and id not in gymnasium.registry and importlib.util.find_spec(module):
        gymnasium.register_envs(import_quietly(module))


def import_quietly(module: str) -> ModuleType:
    """The module, without the notices that it prints; they are logged for those who debug."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        imported = importlib.import_module(module)
    if said.getvalue():
        _log.debug("%s says: %s", module, said.getvalue().strip())
    return imported


def make_env(id: str, arguments: Mapping[str, Any], randomization: Mapping[str, Any] | None = None,
             spec: Mapping[str, Any] | None = None) -> gymnasium.Env:  # fmt: skip
    """The environment of an id.

    randomization: its data, for sim/randomized.py.
    spec: what the registry of another process holds of it, as `sendable` says it; by default ours is asked.
    """
    if spec is not None and (module := str(spec["entry_point"]).partition(":")[0].partition(".")[0]) not in sys.modules:
        import_quietly(module)
    # GymVecEnv checks every action itself
    env = gymnasium.make(id if spec is None else _spec(spec), disable_env_checker=True, **arguments)
    if not randomization or not randomization["terms"]:
        return env
    from .randomized import randomized  # which loads MuJoCo

    return randomized(env, randomization, f"gym:{id}")


def gymnasium_call(id: str, arguments: Mapping[str, Any], randomization: Randomization | None = None,
                   sendable: bool = False) -> EnvCall:  # fmt: skip
    """The call of `make_env` for an id; for a worker process if `sendable`.

    Raises:
        UsageError: the id, or what it is registered with, means nothing in another process.
    """
    known: dict[str, Any] = {"id": id, "arguments": dict(arguments)}
    if randomization:
        known["randomization"] = randomization.to_json()
    if sendable:
        known["spec"] = _sendable(gymnasium.spec(id))
    return EnvCall("poise.sim.gymnasium_ids:make_env", known)


def unknown_id(id: str, error: Exception) -> UsageError:
    near = difflib.get_close_matches(id, gymnasium.registry, n=3, cutoff=0.7)
    package, module = next((p for prefix, p in PACKAGES.items() if id.startswith(prefix)), ("", ""))
    if package and not importlib.util.find_spec(module):
        hint = f"such ids come with another package: pip install {package!r}"
    elif near:
        hint = f"did you mean {' or '.join(near)}?"
    elif "/" in id:
        hint = (f"install the package that provides {id.split('/')[0]}/ and name the module that registers it: "
                f"gym:MODULE:{id}")  # fmt: skip
    else:
        hint = "if a package of yours registers it, name its module: gym:MODULE:" + id
    return UsageError(f"unknown Gymnasium id {id!r} ({str(error).rstrip('.')}); {hint}")


# ---- an id's registration as plain data --------------------------------------------------------


def _sendable(spec: EnvSpec) -> dict[str, Any]:
    """A registration as plain data, its class by name."""
    entry = spec.entry_point
    if callable(entry):
        module, name = entry.__module__, getattr(entry, "__qualname__", "<unnamed>")
        if module == "__main__" or "<" in name:
            raise UsageError(f"gym:{spec.id} is registered with {name} of {module}, which a worker process cannot "
                             "import; move it to a module of its own, or leave workers out")  # fmt: skip
        entry = f"{module}:{name}"
    data = asdict(spec)
    for derived in ("namespace", "name", "version", "vector_entry_point"):
        del data[derived]
    return {**data, "entry_point": entry}


def _spec(data: Mapping[str, Any]) -> EnvSpec:
    wrappers = tuple(WrapperSpec(**wrapper) for wrapper in data["additional_wrappers"])
    return EnvSpec(**{**data, "additional_wrappers": wrappers})
