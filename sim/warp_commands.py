"""Commands on their way to a target, all substeps of a control period in one launch of a Warp kernel.

In torch `shape_command` is some thirty launches a substep. float32; the same equations in the same order.

Legend: N worlds, S substeps, J joints of a servo term, U actuators.

Without `from __future__ import annotations`: Warp reads the types of a kernel's arguments when it is defined.
"""

# pyright: reportInvalidTypeForm=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false

import warp as wp
from torch import Tensor

from ..kernels import launch

wp.set_module_options({"enable_backward": False})


@wp.kernel
def shape(
    target: wp.array2d(dtype=float),  # (N, J)
    max_velocity: wp.array(dtype=float),  # (J,)
    max_acceleration: wp.array(dtype=float),
    lead: wp.array(dtype=float),  # (J,) [s]
    actuators: wp.array(dtype=wp.int64),  # (J,) columns of commands
    dt: float,
    position: wp.array2d(dtype=float),  # (N, J) replaced by those at the period's end
    velocity: wp.array2d(dtype=float),
    commands: wp.array3d(dtype=float),  # (N, S, U)
):
    """`action.shape_command`, which has the derivation, and the servos' lead (lead.py)."""
    world, joint = wp.tid()
    p = position[world, joint]
    v = velocity[world, joint]
    step = max_acceleration[joint] * dt
    for substep in range(commands.shape[1]):
        error = target[world, joint] - p
        units = wp.abs(error) / (step * dt)
        whole = wp.floor(0.5 * (wp.sqrt(1.0 + 8.0 * units) - 1.0))
        speed = wp.min(step * (0.5 * whole + units / (whole + 1.0)), max_velocity[joint])
        wanted = speed
        if error < 0.0:
            wanted = -speed
        v = wp.min(wp.max(wanted, v - step), v + step)
        p += v * dt
        commands[world, substep, int(actuators[joint])] = p + lead[joint] * v
    position[world, joint] = p
    velocity[world, joint] = v


def shaped(position: Tensor, velocity: Tensor, target: Tensor, max_velocity: Tensor, max_acceleration: Tensor,
           lead: Tensor, dt: float, commands: Tensor, actuators: Tensor) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Position and velocity (N, J) at the end of the period; its commands are written into (N, S, U)."""
    position, velocity = position.clone(), velocity.clone()
    launch(shape, tuple(position.shape), [target, max_velocity, max_acceleration, lead, actuators, dt],
           [position, velocity, commands])  # fmt: skip
    return position, velocity
