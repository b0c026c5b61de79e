"""From a policy's output in [-1, 1] to joint targets, and from targets to commands an arm can follow.

The same two functions run inside the simulated worlds, with leading axis N, and in the arm's control
process, so a policy meets on the arm the very mapping that it was trained with. Array-agnostic.

    joint_pos_target   once per control period: where the policy wants the joints
    shape_command      once per servo period:   the next command on the way there
"""

from __future__ import annotations

from typing import Any

import array_api_compat.numpy  # noqa: F401  array_namespace imports it when first called: 60 ms, amid a motion
from array_api_compat import array_namespace

from .arrays import constant
from .spec import ActionTerm, Spec


def action_slices(spec: Spec) -> dict[str, slice]:
    """Where each action term lies in the policy's output."""
    result, start = {}, 0
    for term in spec.actions:
        result[term.name] = slice(start, start + term.size)
        start += term.size
    return result


def joint_pos_target(term: ActionTerm, action: Any, measured: Any, last_target: Any) -> Any:
    """The joint target [rad] that an action (..., n) asks for.

    The target leads the measured position by at most `term.lead`, so that a blocked arm does not wind
    up a distant target, and stays inside the term's bounds.
    """
    xp = array_namespace(action)
    reference = {"last_target": last_target, "measured": measured, "home": constant(term.home, measured)}[
        term.reference
    ]
    target = reference + constant(term.scale, measured) * action
    lead = constant(term.lead, measured)
    target = xp.minimum(xp.maximum(target, measured - lead), measured + lead)
    return xp.minimum(xp.maximum(target, constant(term.low, measured)), constant(term.high, measured))


def shape_command(position: Any, velocity: Any, target: Any, max_velocity: Any, max_acceleration: Any, dt: float):
    """The command one servo period `dt` [s] later: (position, velocity), each (..., n).

    Moves towards `target` as fast as the limits allow and without overshoot: of all speeds it takes the largest
    from which braking at full deceleration, in steps of dt, still stops at the target. With s = a dt, a speed of
    (m + r) s, m whole and 0 <= r < 1, is followed by (m - 1 + r) s, …, r s and covers s dt (m (m + 1) / 2 + r (m + 1)),
    which is solved for r here; then limited to what one period of acceleration can reach from the present velocity.
    """
    xp = array_namespace(position)
    error = target - position
    distance = xp.abs(error)
    step = max_acceleration * dt  # largest change of velocity in one period
    units = distance / (step * dt)
    whole = xp.floor(0.5 * (xp.sqrt(1.0 + 8.0 * units) - 1.0))  # m
    braking = step * (0.5 * whole + units / (whole + 1.0))
    speed = xp.minimum(braking, max_velocity + 0.0 * distance)
    wanted = xp.where(error < 0, -speed, speed)
    new_velocity = xp.minimum(xp.maximum(wanted, velocity - step), velocity + step)
    return position + new_velocity * dt, new_velocity


def control_value(term: ActionTerm, action: Any) -> Any:
    """The simulator's control for an action (..., n) of kind `control`."""
    low, high = constant(term.low, action), constant(term.high, action)
    return low + 0.5 * (action + 1.0) * (high - low)
