"""Forward kinematics of a serial arm from its RobotSpec, without a physics engine. Array-agnostic.

Shapes: q (..., n) joint angles [rad]; position (..., 3) [m]; rotation (..., 3, 3), tool into base.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from .arrays import constant
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
    if not isinstance(q, np.ndarray) and _kernels_serve(q):
        from .kinematics_warp import tool_poses

        offsets, turns = _frames(robot)
        return tool_poses(q[..., : robot.num_joints], constant(offsets, q), constant(turns, q))
    xp = array_namespace(q)
    cos, sin = xp.cos(q), xp.sin(q)
    position, rotation = None, None
    for i, (t, r) in enumerate(_constants(robot)):
        if not isinstance(q, np.ndarray):
            t, r = constant(t, q), constant(r, q)
        if position is None:
            position, rotation = t + 0.0 * q[..., :1], r + 0.0 * q[..., :1, None]
        else:
            position = position + _product(rotation, t[:, None])[..., 0]
            rotation = _product(rotation, r)
        if i < robot.num_joints:
            c, s = cos[..., i, None], sin[..., i, None]
            x, y, z = rotation[..., 0], rotation[..., 1], rotation[..., 2]
            rotation = xp.stack([c * x + s * y, c * y - s * x, z], axis=-1)  # R Rz(q_i)
    return position, rotation


def _kernels_serve(q: Any) -> bool:
    """Whether one launch may do it: for tensors of numbers that nobody wants a derivative of."""
    from .kernels import serve

    return serve(q.device, q.dtype) and not q.requires_grad


def _product(a: Any, b: Any) -> Any:
    """The matrix product of (..., 3, 3) and (3, k), exact to the dtype on a device too.

    Learners may let matrix products of float32 be rounded to TF32, which would move a tool by half a millimetre.
    """
    return a @ b if isinstance(a, np.ndarray) else (a[..., None] * b).sum(-2)


def tool_jacobian(robot: RobotSpec, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) [m] of the tool centre point at one pose (n,), and its derivative (3, n) [m/rad].

    Column i is z_i x (p - o_i), with axis z_i and origin o_i of joint i (Siciliano et al. 2009, section 3.1.3). In
    plain numbers, since a control loop asks for one pose at a time: 20 us, where arrays take 100.
    """
    px = py = pz = 0.0
    xx, xy, xz, yx, yy, yz, zx, zy, zz = 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0  # columns x, y, z of the rotation
    axes: list[tuple[float, ...]] = []
    angles: list[float] = q.tolist()
    for i, ((tx, ty, tz), r) in enumerate(_plain_constants(robot)):
        px, py, pz = (
            px + xx * tx + yx * ty + zx * tz,
            py + xy * tx + yy * ty + zy * tz,
            pz + xz * tx + yz * ty + zz * tz,
        )
        if i == len(angles):  # the tool's own rotation moves nothing
            break
        a, b, c, d, e, f, g, h, k = r  # rows
        xx, xy, xz, yx, yy, yz, zx, zy, zz = (
            xx * a + yx * d + zx * g, xy * a + yy * d + zy * g, xz * a + yz * d + zz * g,
            xx * b + yx * e + zx * h, xy * b + yy * e + zy * h, xz * b + yz * e + zz * h,
            xx * c + yx * f + zx * k, xy * c + yy * f + zy * k, xz * c + yz * f + zz * k,
        )  # fmt: skip
        cos, sin = math.cos(angles[i]), math.sin(angles[i])
        xx, xy, xz, yx, yy, yz = (xx * cos + yx * sin, xy * cos + yy * sin, xz * cos + yz * sin,
                                  yx * cos - xx * sin, yy * cos - xy * sin, yz * cos - xz * sin)  # fmt: skip
        axes.append((zx, zy, zz, px, py, pz))
    columns = [
        (zy * (pz - oz) - zz * (py - oy), zz * (px - ox) - zx * (pz - oz), zx * (py - oy) - zy * (px - ox))
        for zx, zy, zz, ox, oy, oz in axes
    ]
    return np.array((px, py, pz)), np.array(columns).T


def joint_frames(robot: RobotSpec, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Origins (n + 1, 3) [m] and rotations (n + 1, 3, 3) of every joint's frame and the tool's, at one pose (n,)."""
    origin, rotation, origins, rotations = np.zeros(3), np.eye(3), [], []
    for i, (t, r) in enumerate(_constants(robot)):
        origin, rotation = origin + rotation @ t, rotation @ r
        if i < len(q):
            c, s = np.cos(q[i]), np.sin(q[i])
            rotation = rotation @ np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
        origins.append(origin)
        rotations.append(rotation)
    return np.array(origins), np.array(rotations)


def jacobian(robot: RobotSpec, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tool position (3,), rotation (3, 3) and their derivative (6, n) at one pose (n,), in the base frame.

    Column i of joint i's axis z_i and origin o_i is (z_i x (p - o_i), z_i): velocity [m/rad] above angular velocity
    (Siciliano et al. 2009, "Robotics", section 3.1.3).
    """
    origins, rotations = joint_frames(robot, q)
    axes, position = rotations[:-1, :, 2], origins[-1]
    return position, rotations[-1], np.concatenate([np.cross(axes, position - origins[:-1]), axes], axis=1).T


def inverse_kinematics(robot: RobotSpec, position: Any, rotation: Any, start: Any, iterations: int = 200) -> np.ndarray:
    """Joint angles (n,) within limits with the tool at `position` (3,) and `rotation` (3, 3), searched from `start`.

    Damped least squares (Wampler 1986): dq = J^T (J J^T + k I)^-1 e, steps of 0.1 rad at most; where the whole pose
    cannot be had, as on an arm of five joints, it is the one of least error. Once, at a task's construction.
    """
    q, low, high = np.array(start, np.float64), np.array(robot.position_low), np.array(robot.position_high)
    for _ in range(iterations):
        moved = np.vstack([q, q + 1e-6 * np.eye(len(q))])  # one row a finite difference
        p, r = forward_kinematics(robot, moved)
        jacobian = np.concatenate([(p[1:] - p[0]) / 1e-6, rotation_vector((r[1:] - r[0]) / 1e-6 @ r[0].T)], axis=1).T
        error = np.concatenate([position - p[0], rotation_vector(np.asarray(rotation) @ r[0].T)])
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-4 * np.eye(6), error)
        q = np.clip(q + step * min(1.0, 0.1 / max(np.abs(step).max(), 1e-12)), low, high)
    return q


def rotation_vector(matrix: Any) -> Any:
    """The vector (..., 3) of a matrix' antisymmetric part: of a small rotation axis times angle [rad]."""
    m = matrix
    return 0.5 * np.stack([m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1)


@cache  # for ever, as those made from them
def _constants(robot: RobotSpec) -> list[tuple[np.ndarray, np.ndarray]]:
    frames: tuple[Frame, ...] = (*robot.chain, robot.tool)
    return [(np.array(f.pos), rotation_matrix(f.quat_wxyz)) for f in frames]


@cache
def _frames(robot: RobotSpec) -> tuple[np.ndarray, np.ndarray]:
    """The same as two arrays: positions (n + 1, 3) and rotations (n + 1, 3, 3)."""
    positions, rotations = zip(*_constants(robot), strict=True)
    return np.array(positions), np.array(rotations)


@lru_cache(maxsize=16)
def _plain_constants(robot: RobotSpec) -> list[tuple[list[float], list[float]]]:
    return [(t.tolist(), r.ravel().tolist()) for t, r in _constants(robot)]
