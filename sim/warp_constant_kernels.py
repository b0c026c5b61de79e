"""Kernels of sim/warp_constants.py: what MuJoCo derives from masses, of the worlds where a mask is.

Without `from __future__ import annotations`: Warp reads the types of a kernel's arguments when it is defined.

Legend: X = L^-1, where M = L L^T is the mass matrix, so that v^T M^-1 v = |X v|^2; arrays (nv, nv, N), whose last index
neighbouring threads share memory lines by.
"""

# pyright: reportInvalidTypeForm=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportAssignmentType=false, reportGeneralTypeIssues=false, reportArgumentType=false, reportCallIssue=false
# ruff: noqa: UP018  a number that changes in a loop must not be a literal to Warp

import warp as wp

FREE = 0  # mjtJoint
BALL = 1
LIKE_NOTHING = 1e-10  # [m^2] what rounding leaves of a lever that is zero


@wp.kernel(enable_backward=False)
def sum_masses(
    mask: wp.array(dtype=bool),
    parent: wp.array(dtype=int),
    mass: wp.array2d(dtype=float),
    subtree: wp.array2d(dtype=float),
):
    """Mass of every body and all that hangs on it; children come after their parents."""
    world = wp.tid()
    if not mask[world]:
        return
    bodies = subtree.shape[1]
    for body in range(bodies):
        subtree[world, body] = mass[world % mass.shape[0], body]
    for i in range(bodies - 1):
        body = bodies - 1 - i
        subtree[world, parent[body]] = subtree[world, parent[body]] + subtree[world, body]


@wp.kernel(enable_backward=False)
def factor(
    mask: wp.array(dtype=bool),
    rownnz: wp.array(dtype=int),
    rowadr: wp.array(dtype=int),
    colind: wp.array(dtype=int),
    mass_matrix: wp.array2d(dtype=float),
    x: wp.array3d(dtype=float),
    meaninertia: wp.array(dtype=float),
):
    """X and the mean of M's diagonal: Cholesky's factor, then its inverse, column by column in place."""
    world = wp.tid()
    if not mask[world]:
        return
    nv = x.shape[0]
    trace = float(0.0)
    for i in range(nv):
        for j in range(i):
            x[i, j, world] = 0.0
        for k in range(rownnz[i]):
            x[i, colind[rowadr[i] + k], world] = mass_matrix[world, rowadr[i] + k]
        trace += x[i, i, world]
    meaninertia[world] = trace / float(nv)
    for j in range(nv):
        left = x[j, j, world]
        for k in range(j):
            left -= x[j, k, world] * x[j, k, world]
        pivot = wp.sqrt(left)
        x[j, j, world] = pivot
        for i in range(j + 1, nv):
            rest = x[i, j, world]
            for k in range(j):
                rest -= x[i, k, world] * x[j, k, world]
            x[i, j, world] = rest / pivot
    for j in range(nv):
        x[j, j, world] = 1.0 / x[j, j, world]
        for i in range(j + 1, nv):
            total = float(0.0)
            for k in range(j, i):
                total += x[i, k, world] * x[k, j, world]
            x[i, j, world] = -total / x[i, i, world]


@wp.func
def inverse_diagonal(x: wp.array3d(dtype=float), dof: int, world: int) -> float:
    """Entry of M^-1's diagonal: the square of a column of X."""
    total = float(0.0)
    for k in range(dof, x.shape[0]):
        total += x[k, dof, world] * x[k, dof, world]
    return total


@wp.kernel(enable_backward=False)
def weigh_dofs(
    mask: wp.array(dtype=bool),
    x: wp.array3d(dtype=float),
    joint: wp.array(dtype=int),
    kind: wp.array(dtype=int),
    first_dof: wp.array(dtype=int),
    invweight: wp.array2d(dtype=float),
):
    """A degree of freedom's inverse weight; the three of a ball, and of each half of a free joint, share their mean."""
    world, dof = wp.tid()
    if not mask[world]:
        return
    begin = dof
    number = 1
    if kind[joint[dof]] == FREE or kind[joint[dof]] == BALL:
        begin = first_dof[joint[dof]] + 3 * ((dof - first_dof[joint[dof]]) // 3)
        number = 3
    total = float(0.0)
    for i in range(number):
        total += inverse_diagonal(x, begin + i, world)
    invweight[world, dof] = total / float(number)


@wp.kernel(enable_backward=False)
def weigh_bodies(
    mask: wp.array(dtype=bool),
    x: wp.array3d(dtype=float),
    weld: wp.array(dtype=int),
    root: wp.array(dtype=int),
    moved_by: wp.array2d(dtype=int),
    centre: wp.array2d(dtype=wp.vec3),
    subtree_centre: wp.array2d(dtype=wp.vec3),
    axes: wp.array2d(dtype=wp.spatial_vector),
    invweight: wp.array2d(dtype=wp.vec2),
):
    """Means of the inverse weights of a body's centre along and about three axes; where one is nothing, the other."""
    world, body = wp.tid()
    if not mask[world]:
        return
    if weld[body] == 0:
        invweight[world, body] = wp.vec2(0.0, 0.0)
        return
    lever = centre[world, body] - subtree_centre[world, root[body]]
    along = float(0.0)
    about = float(0.0)
    for k in range(x.shape[0]):
        turn = wp.vec3(0.0, 0.0, 0.0)
        shift = wp.vec3(0.0, 0.0, 0.0)
        for i in range(k + 1):
            if moved_by[body, i] != 0:
                turn += x[k, i, world] * wp.spatial_top(axes[world, i])
                shift += x[k, i, world] * wp.spatial_bottom(axes[world, i])
        shift += wp.cross(turn, lever)
        along += wp.dot(shift, shift) / 3.0
        about += wp.dot(turn, turn) / 3.0
    if along < LIKE_NOTHING * about:
        along = about
    elif about < LIKE_NOTHING * along:
        about = along
    invweight[world, body] = wp.vec2(along, about)


@wp.kernel(enable_backward=False)
def weigh_tendons(
    mask: wp.array(dtype=bool),
    x: wp.array3d(dtype=float),
    rownnz: wp.array(dtype=int),
    rowadr: wp.array(dtype=int),
    colind: wp.array(dtype=int),
    jacobian: wp.array2d(dtype=float),
    invweight: wp.array2d(dtype=float),
):
    """A tendon's inverse weight, |X J|^2."""
    world, tendon = wp.tid()
    if not mask[world]:
        return
    total = float(0.0)
    for k in range(x.shape[0]):
        entry = float(0.0)
        for i in range(rownnz[tendon]):
            dof = colind[rowadr[tendon] + i]
            if dof <= k:
                entry += x[k, dof, world] * jacobian[world, rowadr[tendon] + i]
        total += entry * entry
    invweight[world, tendon] = total


@wp.kernel(enable_backward=False)
def accelerate(
    mask: wp.array(dtype=bool),
    x: wp.array3d(dtype=float),
    rownnz: wp.array2d(dtype=int),
    rowadr: wp.array2d(dtype=int),
    colind: wp.array2d(dtype=int),
    moment: wp.array2d(dtype=float),
    scratch: wp.array3d(dtype=float),
    acc0: wp.array2d(dtype=float),
):
    """Acceleration by a unit of an actuator's force, |X^T X m|."""
    world, actuator = wp.tid()
    if not mask[world]:
        return
    nv = x.shape[0]
    for k in range(nv):
        entry = float(0.0)
        for i in range(rownnz[world, actuator]):
            at = rowadr[world, actuator] + i
            dof = colind[world, at]
            if dof <= k:
                entry += x[k, dof, world] * moment[world, at]
        scratch[actuator, k, world] = entry
    total = float(0.0)
    for i in range(nv):
        entry = float(0.0)
        for k in range(i, nv):
            entry += x[k, i, world] * scratch[actuator, k, world]
        total += entry * entry
    acc0[world, actuator] = wp.sqrt(total)
