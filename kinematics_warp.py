"""Forward kinematics in one launch of a Warp kernel, a thread a pose, where torch takes a dozen launches a joint.

float32; the same equation as kinematics.forward_kinematics. Legend: M poses, n joints, F = n + 1 fixed frames.

Without `from __future__ import annotations`: Warp reads the types of a kernel's arguments when it is defined.
"""

# pyright: reportInvalidTypeForm=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false

import warp as wp
from torch import Tensor

from .kernels import launch

wp.set_module_options({"enable_backward": False})


@wp.kernel
def poses(
    q: wp.array2d(dtype=float),  # (M, n)
    offset: wp.array2d(dtype=float),  # (F, 3) of each frame in the one before
    turn: wp.array3d(dtype=float),  # (F, 3, 3)
    position: wp.array2d(dtype=float),  # (M, 3)
    rotation: wp.array3d(dtype=float),  # (M, 3, 3)
):
    """prod_i [ fixed_i Rz(q_i) ] tool."""
    row = wp.tid()
    p = wp.vec3(0.0, 0.0, 0.0)
    r = wp.identity(3, dtype=float)
    for i in range(offset.shape[0]):
        p += r @ wp.vec3(offset[i, 0], offset[i, 1], offset[i, 2])
        r = r @ wp.mat33(turn[i, 0, 0], turn[i, 0, 1], turn[i, 0, 2], turn[i, 1, 0], turn[i, 1, 1], turn[i, 1, 2],
                         turn[i, 2, 0], turn[i, 2, 1], turn[i, 2, 2])  # fmt: skip
        if i < q.shape[1]:
            c, s = wp.cos(q[row, i]), wp.sin(q[row, i])
            r = r @ wp.mat33(c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0)
    for j in range(3):
        position[row, j] = p[j]
        for k in range(3):
            rotation[row, j, k] = r[j, k]


def tool_poses(q: Tensor, offset: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
    """Position (..., 3) and rotation (..., 3, 3) of the tool for joint angles q (..., n)."""
    flat = q.reshape(-1, q.shape[-1])
    position, rotation = q.new_empty((len(flat), 3)), q.new_empty((len(flat), 3, 3))
    launch(poses, (len(flat),), [flat, offset, turn], [position, rotation])
    return position.reshape(*q.shape[:-1], 3), rotation.reshape(*q.shape[:-1], 3, 3)
