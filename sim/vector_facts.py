"""What a Gymnasium VectorEnv says of itself and of its steps: how it resets, how long a step is, what succeeded.

Legend: N worlds.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from ..errors import UsageError
from ..spec import Spec
from .worlds import SUCCESS


def success_of(info: dict[str, Any], done: np.ndarray) -> Tensor | None:
    """What the worlds report of the step as is_success or success: (N,) bool, None where none does."""
    reported = _reported(info)
    if isinstance(final := info.get("final_info"), dict):  # SAME_STEP: elsewhere info is the new episode's
        ended = _reported(final)
        if reported is not None or ended is not None:
            none = np.zeros(len(done), bool)
            reported = np.where(done, none if ended is None else ended, none if reported is None else reported)
    return None if reported is None else torch.from_numpy(reported)


def _reported(info: dict[str, Any]) -> np.ndarray | None:
    for key in SUCCESS:
        if key in info:
            said = np.array(info[key], bool)
            return said & np.asarray(info.get(f"_{key}", True), bool)
    return None


def autoreset_mode(env: VectorEnv, name: str) -> AutoresetMode:
    mode = env.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise UsageError(f"{name}: metadata['autoreset_mode'] should be one of {', '.join(map(str, AutoresetMode))}, "
                         f"found {mode!r}; the environment must say how it resets")  # fmt: skip
    return mode


def control_dt_of(env: gymnasium.Env | VectorEnv) -> float:
    """Seconds between actions: the simulator's `dt`, else one frame of its rendering, else 1."""
    dt = getattr(env.unwrapped, "dt", None)
    if isinstance(dt, (int, float)) and dt > 0:
        return float(dt)
    fps = env.metadata.get("render_fps")
    return 1.0 / fps if isinstance(fps, (int, float)) and fps > 0 else 1.0


def same_sizes(told: Spec, found: Spec, name: str) -> Spec:
    """The Spec that an environment tells of itself, if its parts are as large as its spaces."""
    sizes = [({g: s.obs_shape(g) for g in s.observations}, s.action_dim) for s in (told, found)]
    if sizes[0] != sizes[1]:
        raise UsageError(f"{name}: metadata['spec'] has observations and actions of {sizes[0]}, its spaces of "
                         f"{sizes[1]}; they must agree")  # fmt: skip
    return told
