"""Gymnasium's observation spaces as observation groups: one flat vector, and one group for every camera.

    Box of uint8 with 2 or 3 axes       a camera, group "camera": uint8 (N, height, width, channels)
    any other Box, Discrete             a term of the flat group "state": float32 (N, dim); a choice is one-hot
    Dict of these, also nested          its vectors are terms of "state"; its cameras "camera", or "camera_KEY" each
                                        where there are several
    Dict of a goal environment          `observation` is "state", `desired_goal` "goal", `achieved_goal` a group of that
                                        name, which no policy sees: it is for relabelling

A camera may lie as (height, width), (height, width, channels) or (channels, height, width): the shortest axis is the
channels, the last one in doubt. Worlds deliver the newest frame; `metadata["history"]` says how many of them a policy
stacks. Legend: N worlds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from ..errors import UsageError
from ..spec import ActionTerm, ObsTerm
from .world_arrays import Path, leaves

GOALS = {"desired_goal": "goal", "achieved_goal": "achieved_goal"}  # key -> group
GOAL_ENV = {"observation", *GOALS}  # the keys by which a goal environment is known
Pack = Callable[[Any], np.ndarray]  # raw observations of N worlds -> a fresh array (N, ...)


class Groups:
    """How the raw observations of a space become groups, and the Spec's terms of them."""

    def __init__(self, space: spaces.Space, name: str, history: int = 1, hidden_place: bool = False):
        """history: frames of a camera that a policy stacks; hidden_place: whether only `achieved_goal` shows where
        the robot is, so that a policy must see it.

        Raises:
            UsageError: the space holds what is neither a vector nor a camera, with its name.
        """
        parts = dict(leaves(space))
        cameras = {path: part for path, part in parts.items() if is_camera(part)}
        goals = isinstance(space, spaces.Dict) and set(space.spaces) >= GOAL_ENV
        self.terms: dict[str, tuple[ObsTerm, ...]] = {}
        self._vectors: dict[str, list[tuple[Path, Pack]]] = {}
        for group in ("state", *(GOALS.values() if goals else ())):
            for path, part in parts.items():
                if path in cameras or not (_group(path, goals) == group or (
                        group == "state" and hidden_place and path[:1] == ("achieved_goal",))):  # fmt: skip
                    continue
                if not isinstance(part, spaces.Discrete | spaces.Box) or _is_stack(part):
                    raise UsageError(f"{name}: observation space {short(part)} is not supported; a Box or Discrete is, "
                                     "a camera (height, width, channels) of uint8, or a Dict of these")  # fmt: skip
                term = ObsTerm(
                    "/".join(path) or "observation", (_width(part),), "goal" if group == "goal" else "external"
                )
                self.terms[group] = (*self.terms.get(group, ()), term)
                self._vectors.setdefault(group, []).append((path, _vector(part)))
        self._cameras: list[tuple[str, Path, Pack]] = []
        for path, part in cameras.items():
            group = "camera" if len(cameras) == 1 else f"camera_{'_'.join(path)}"
            self.terms[group] = (ObsTerm(group, _frame_shape(part), "camera", dtype="uint8", history=history),)
            self._cameras.append((group, path, _camera(part)))

    def pack(self, raw: Any) -> dict[str, Tensor]:
        """Observation groups of N worlds, in memory of their own."""
        groups = {}
        for group, parts in self._vectors.items():
            columns = [pack(_at(raw, path)) for path, pack in parts]
            groups[group] = torch.from_numpy(columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1))
        for group, path, pack in self._cameras:
            groups[group] = torch.from_numpy(pack(_at(raw, path)))
        return groups

    def batch(self, rows: list[Any]) -> Any:
        """Raw observations of several worlds, from those of one each."""
        if isinstance(rows[0], Mapping):
            return {key: self.batch([row[key] for row in rows]) for key in rows[0]}
        return np.stack(rows)


def _group(path: Path, goals: bool) -> str:
    return GOALS.get(path[0], "state") if goals else "state"


def _at(raw: Any, path: Path) -> Any:
    for key in path:
        raw = raw[key]
    return raw


def action_term(space: spaces.Space, name: str) -> ActionTerm:
    if isinstance(space, spaces.Discrete):
        if space.n < 2:
            raise UsageError(f"{name}: action space {space} leaves no choice; a Discrete needs at least 2")
        return ActionTerm("choice", "discrete", n=int(space.n))
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not np.issubdtype(space.dtype, np.floating):
        raise UsageError(f"{name}: action space {short(space)} is not supported; a Box of floats of one dimension, "
                         "or a Discrete, is")  # fmt: skip
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise UsageError(f"{name}: action space {short(space)} is unbounded, so [-1, 1] cannot be mapped to it; "
                         "wrap the environment in gymnasium.wrappers.RescaleAction or give the Box bounds")  # fmt: skip
    return ActionTerm("control", "control", low=tuple(space.low.tolist()), high=tuple(space.high.tolist()))


def is_camera(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def short(space: spaces.Space) -> str:
    """The space in one line, also where its bounds are whole images."""
    text = " ".join(str(space).split())
    return text if len(text) < 120 else f"{type(space).__name__}(shape={space.shape}, dtype={space.dtype})"


def _is_stack(space: spaces.Space) -> bool:
    """Cameras with a fourth axis, which nothing says how to read."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) > 3


def _width(space: spaces.Space) -> int:
    return int(space.n) if isinstance(space, spaces.Discrete) else math.prod(space.shape or ())


def _vector(space: spaces.Space) -> Pack:
    if isinstance(space, spaces.Discrete):
        one_hot, start = np.eye(int(space.n), dtype=np.float32), space.start
        return lambda raw: one_hot[raw - start]
    return lambda raw: np.array(raw, np.float32).reshape(len(raw), -1)


def _channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[0] < min(shape[1:])


def _frame_shape(space: spaces.Space) -> tuple[int, ...]:
    shape = tuple(space.shape or ())
    if len(shape) == 2:
        return (*shape, 1)
    return (*shape[1:], shape[0]) if _channels_first(shape) else shape


def _camera(space: spaces.Space) -> Pack:
    shape = _frame_shape(space)
    if _channels_first(tuple(space.shape or ())):
        return lambda raw: np.array(np.moveaxis(np.asarray(raw), 1, -1), order="C")
    return lambda raw: np.array(raw).reshape(len(raw), *shape)
