"""Gymnasium's observation spaces as observation groups: one flat vector, and one group for every camera.

    Box of uint8 with 2 or 3 axes       a camera, group "camera": uint8 (N, height, width, channels)
    any other Box, Discrete             a term of the flat group "state": float32 (N, dim); a choice is one-hot
    Dict of these                       its vectors are terms of "state"; its cameras "camera", or "camera_KEY" each
                                        where there are several

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
from ..spec import ObsTerm

Pack = Callable[[Any], np.ndarray]  # raw observations of N worlds -> a fresh array (N, ...)


class Groups:
    """How the raw observations of a space become groups, and the Spec's terms of them."""

    def __init__(self, space: spaces.Space, name: str, history: int = 1):
        """history: frames of a camera that a policy stacks.

        Raises:
            UsageError: the space holds what is neither a vector nor a camera, with its name.
        """
        parts = space.spaces if isinstance(space, spaces.Dict) else {"observation": space}
        cameras = [key for key, part in parts.items() if is_camera(part)]
        vectors = [key for key in parts if key not in cameras]
        for key in vectors:
            if not isinstance(parts[key], spaces.Discrete | spaces.Box) or _is_stack(parts[key]):
                raise UsageError(f"{name}: observation space {short(parts[key])} is not supported; a Box or Discrete "
                                 "is, a camera (height, width, channels) of uint8, or a Dict of these")  # fmt: skip
        names = {key: "camera" if len(cameras) == 1 else f"camera_{key}" for key in cameras}
        self.terms: dict[str, tuple[ObsTerm, ...]] = {}
        if vectors:
            self.terms["state"] = tuple(ObsTerm(key, (_width(parts[key]),), "external") for key in vectors)
        for key, group in names.items():
            self.terms[group] = (ObsTerm(group, _frame_shape(parts[key]), "camera", dtype="uint8", history=history),)
        self._keys = list(parts) if isinstance(space, spaces.Dict) else []
        self._vectors: list[tuple[str, Pack]] = [(key, _vector(parts[key])) for key in vectors]
        self._cameras: list[tuple[str, str, Pack]] = [(g, key, _camera(parts[key])) for key, g in names.items()]

    def pack(self, raw: Any) -> dict[str, Tensor]:
        """Observation groups of N worlds, in memory of their own."""
        parts: Mapping[str, Any] = raw if self._keys else {"observation": raw}
        groups = {}
        if len(self._vectors) == 1:
            key, pack = self._vectors[0]
            groups["state"] = torch.from_numpy(pack(parts[key]))
        elif self._vectors:
            columns = [pack(parts[key]) for key, pack in self._vectors]
            groups["state"] = torch.from_numpy(np.concatenate(columns, axis=1))
        for group, key, pack in self._cameras:
            groups[group] = torch.from_numpy(pack(parts[key]))
        return groups

    def batch(self, rows: list[Any]) -> Any:
        """Raw observations of several worlds, from those of one each."""
        if self._keys:
            return {key: np.stack([row[key] for row in rows]) for key in self._keys}
        return np.stack(rows)


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
