"""Forward kinematics of a serial arm from its RobotSpec, without a physics engine. Array-agnostic.

Shapes: q (..., n) joint angles [rad]; position (..., 3) [m]; rotation (..., 3, 3), tool into base.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .robots import Frame, RobotSpec


def rotation_matrix(quat_wxyz: Any) -> np.ndarray:
    """The rotation matrix (3, 3) of a unit quaternion."""
    w, x, y, z = quat_wxyz
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def forward_kinematics(robot: RobotSpec, q: Any) -> tuple[Any, Any]:
    """Pose of the tool centre point in the base frame: (position (..., 3), rotation (..., 3, 3)).

    T_base_tool = prod_i [ fixed_i Rz(q_i) ] tool (Siciliano et al. 2009, "Robotics", section 2.8).
    """
    xp = array_namespace(q)
    cos, sin = xp.cos(q), xp.sin(q)
    position, rotation = None, None
    for i, (t, r) in enumerate(_constants(robot)):
        if not isinstance(q, np.ndarray):
            t, r = xp.asarray(t, dtype=q.dtype, device=q.device), xp.asarray(r, dtype=q.dtype, device=q.device)
        if position is None:
            position, rotation = t + 0.0 * q[..., :1], r + 0.0 * q[..., :1, None]
        else:
            position = position + (rotation @ t[:, None])[..., 0]
            rotation = rotation @ r
        if i < robot.num_joints:
            c, s = cos[..., i, None], sin[..., i, None]
            x, y, z = rotation[..., 0], rotation[..., 1], rotation[..., 2]
            rotation = xp.stack([c * x + s * y, c * y - s * x, z], axis=-1)  # R Rz(q_i)
    return position, rotation


@lru_cache(maxsize=16)
def _constants(robot: RobotSpec) -> list[tuple[np.ndarray, np.ndarray]]:
    frames: tuple[Frame, ...] = (*robot.chain, robot.tool)
    return [(np.array(f.pos), rotation_matrix(f.quat_wxyz)) for f in frames]
