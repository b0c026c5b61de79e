"""The few kernels of our own: containment of broken worlds, and copies for some of the worlds.

Without `from __future__ import annotations`: Warp reads the types of a kernel's arguments when it is defined.
"""

# pyright: reportInvalidTypeForm=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false

import warp as wp


@wp.kernel(enable_backward=False)
def contain(
    qpos_before: wp.array2d(dtype=float),
    qvel_before: wp.array2d(dtype=float),
    act_before: wp.array2d(dtype=float),
    largest: float,
    ctrl: wp.array2d(dtype=float),
    largest_ctrl: float,
    qpos: wp.array2d(dtype=float),
    qvel: wp.array2d(dtype=float),
    act: wp.array2d(dtype=float),
    warmstart: wp.array2d(dtype=float),
    broken: wp.array(dtype=bool),
):
    """Put a world back to its state from before where a number is not finite, or was not in this period.

    Commands are looked at too: Warp clamps one that is no number to a limit, where MuJoCo warns.
    """
    world = wp.tid()
    fine = not broken[world]
    for i in range(ctrl.shape[1]):
        fine = fine and wp.abs(ctrl[world, i]) < largest_ctrl
    for i in range(qpos.shape[1]):
        fine = fine and wp.abs(qpos[world, i]) < largest  # False for NaN too
    for i in range(qvel.shape[1]):
        fine = fine and wp.abs(qvel[world, i]) < largest
    for i in range(act.shape[1]):
        fine = fine and wp.abs(act[world, i]) < largest
    if fine:
        return
    broken[world] = True
    for i in range(qpos.shape[1]):
        qpos[world, i] = qpos_before[world, i]
    for i in range(qvel.shape[1]):
        qvel[world, i] = qvel_before[world, i]
        warmstart[world, i] = 0.0
    for i in range(act.shape[1]):
        act[world, i] = act_before[world, i]


@wp.kernel(enable_backward=False)
def pass_time(
    before: wp.array(dtype=float),
    timestep: wp.array(dtype=float),
    substeps: float,
    broken: wp.array(dtype=bool),
    time: wp.array(dtype=float),
):
    """One addition a period: those of every substep would add up their rounding to tens of milliseconds."""
    world = wp.tid()
    if broken[world]:
        time[world] = before[world]
    else:
        time[world] = before[world] + substeps * timestep[world % timestep.shape[0]]


@wp.kernel(enable_backward=False)
def copy_some(
    source: wp.array2d(dtype=float),
    which: wp.array(dtype=bool),
    wanted: bool,
    target: wp.array2d(dtype=float),
):
    """Copy rows of the worlds where `which` is as wanted."""
    world, i = wp.tid()
    if which[world] == wanted:
        target[world, i] = source[world, i]


@wp.kernel(enable_backward=False)
def place(
    mask: wp.array(dtype=bool),
    new_qpos: wp.array2d(dtype=float),
    new_qvel: wp.array2d(dtype=float),
    new_act: wp.array(dtype=float),
    qpos: wp.array2d(dtype=float),
    qvel: wp.array2d(dtype=float),
    act: wp.array2d(dtype=float),
    time: wp.array(dtype=float),
    overflow: wp.array(dtype=int),
):
    """Begin anew, where the mask is."""
    world = wp.tid()
    if not mask[world]:
        return
    time[world] = 0.0
    overflow[world] = 0
    for i in range(qpos.shape[1]):
        qpos[world, i] = new_qpos[world, i]
    for i in range(qvel.shape[1]):
        qvel[world, i] = new_qvel[world, i]
    for i in range(act.shape[1]):
        act[world, i] = new_act[i]
