"""What each physics term means in a MuJoCo model: names become indices, draws become field values.

Every function here binds one kind of term to a model: it finds the rows, refuses what can do nothing or can leave the
valid range, and returns how a draw changes default values. MuJoCo's compiler keeps flags that are true of the default
alone; a term that breaks one writes the flag too. mujoco_warp keeps no such flags, so they are apart.

Legend: n worlds, k targets of a term; fields are (n, ...) each, numpy's arrays or tensors, as the draws are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import mujoco
import numpy as np

from ..errors import UsageError
from .randomization import Term, match
from .rows import Fixed
from .whats import WHATS

PAYLOAD_RADIUS = 0.03  # [m] a payload is a solid ball of this size
_NO_MASS = 1e-9  # [kg]
Values = dict[str, Any]

_JOINT_FIELDS = {"joint_friction": "dof_frictionloss", "joint_damping": "dof_damping", "joint_armature": "dof_armature"}
_SINGLE = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
_SHAPES = ("sphere", "capsule", "ellipsoid", "cylinder", "box")
_PRIMITIVES = tuple(getattr(mujoco.mjtGeom, f"mjGEOM_{kind.upper()}") for kind in _SHAPES)
_FRAME = mujoco.mjtSameFrame
_NO_MIDPHASE = int(mujoco.mjtDisableBit.mjDSBL_MIDPHASE)


@dataclass(frozen=True)
class Change:
    """A term bound to a model."""

    size: int  # numbers to draw
    fields: tuple[str, ...] = ()  # of the model, "opt.x" for its options
    apply: Callable[[Values, Any], None] | None = None  # writes a draw (n, size) into fields
    flags: tuple[str, ...] = ()  # fields of MuJoCo in C alone that are no longer as the compiler found them
    mark: Callable[[Values], None] | None = None  # writes those


def prepare(spec: mujoco.MjSpec, randomization: Any) -> None:
    """Add to a description what some terms need before it is compiled.

    A payload is a small body of its own, welded to the place it names: MuJoCo composes mass, centre and inertia
    itself. A body whose centre of mass moves gets a child without mass, because MuJoCo takes a free body without
    children and with its mass at its origin for one whose mass matrix is diagonal, which would no longer be true.
    """
    bodies = {b.name: b for b in spec.bodies if b.name != "world"}
    for term in randomization.terms:
        if term.what == "body_com":
            names = list(bodies)
            for body in (bodies[names[i]] for i in match(term, names)):
                if body.parent.name == "world" or body.parent.parent.name == "world":
                    body.add_body(name=f"centre/{term.name}/{body.name}")
        if term.what == "payload":
            sites = {s.name: s for s in spec.sites}
            names = [*sites, *bodies]
            for place in (names[i] for i in match(term, names)):
                body = sites[place].parent if place in sites else bodies[place]
                pos = sites[place].pos if place in sites else body.ipos if body.explicitinertial else 0.0
                mass = 1.0  # overwritten at every reset; the compiler wants it positive
                body.add_body(name=_payload(term, place), pos=np.zeros(3) + pos, mass=mass, ipos=np.zeros(3),
                              inertia=np.full(3, _ball(mass)), explicitinertial=True)  # fmt: skip


def bind(model: mujoco.MjModel, term: Term) -> Change:
    """A physics term, or `joint_offset`, bound to the model.

    Raises:
        UsageError: the term names what does not exist or cannot be varied, or changes nothing.
    """
    if term.what in _JOINT_FIELDS:
        return _rows_of(model, term, _JOINT_FIELDS[term.what], model.jnt_dofadr[single_joints(model, term)])
    return _BINDERS[term.what](model, term)


# ---- bodies ------------------------------------------------------------------------------------


def _mass(model: mujoco.MjModel, term: Term) -> Change:
    """What carries the body's weight (gravcomp), as an arm's controller does, goes on carrying what it knew of."""
    rows = Fixed(massive_bodies(model, term))
    _check_defaults(term, model.body_mass[rows.array])
    carried = ("body_gravcomp",) if model.body_gravcomp[rows.array].any() else ()

    def apply(values: Values, drawn: Any) -> None:
        at = rows.beside(drawn)
        old = values["body_mass"][:, at]
        new = operate(term, old, drawn)
        values["body_mass"][:, at] = new
        values["body_inertia"][:, at] *= (new / old)[:, :, None]  # the same shape, made of another material
        for field in carried:
            values[field][:, at] *= old / new.clip(min=_NO_MASS)

    return Change(len(rows), ("body_mass", "body_inertia", *carried), apply)


def _centre_of_mass(model: mujoco.MjModel, term: Term) -> Change:
    """The inertia about the centre stays, so that it stays one that a body can have."""
    rows = massive_bodies(model, term)
    if simple := [i for i in rows if model.body_simple[i]]:
        raise UsageError(f"randomization term {term.name!r}: the centre of mass of {model.body(simple[0]).name!r} "
                         "cannot move in a compiled model, which holds its mass matrix for diagonal")  # fmt: skip
    body_frame = np.where(model.body_sameframe == _FRAME.mjSAMEFRAME_BODY, _FRAME.mjSAMEFRAME_BODYROT,
                          model.body_sameframe)  # fmt: skip
    frames: Values = {}
    for kind, owner in (("geom", model.geom_bodyid), ("site", model.site_bodyid)):
        frame = np.array(getattr(model, f"{kind}_sameframe"))
        moved = np.isin(owner, rows) & (frame == _FRAME.mjSAMEFRAME_INERTIA)
        frames[f"{kind}_sameframe"] = np.where(moved, _FRAME.mjSAMEFRAME_INERTIAROT, frame)

    fixed = Fixed(rows)

    def apply(values: Values, drawn: Any) -> None:
        values["body_ipos"][:, fixed.beside(drawn)] += drawn.reshape(len(drawn), len(rows), 3)

    def mark(values: Values) -> None:
        values["body_sameframe"][:, rows] = body_frame[rows]
        for field, frame in frames.items():
            values[field][:] = frame
        values["opt.disableflags"] |= _NO_MIDPHASE  # its boxes are fixed to the centre of mass

    return Change(3 * len(rows), ("body_ipos",), apply, ("body_sameframe", *frames, "opt.disableflags"), mark)


def _payload_ball(model: mujoco.MjModel, term: Term) -> Change:
    rows = np.array([i for i, name in enumerate(names_of(model, "body")) if name.startswith(_payload(term, ""))])
    if not len(rows):
        raise UsageError(f"randomization term {term.name!r}: a payload is added before a model is compiled")

    fixed = Fixed(rows)

    def apply(values: Values, drawn: Any) -> None:
        values["body_mass"][:, fixed.beside(drawn)] = drawn
        values["body_inertia"][:, fixed.beside(drawn)] = _ball(drawn)[:, :, None]

    return Change(len(rows), ("body_mass", "body_inertia"), apply)


# ---- joints ------------------------------------------------------------------------------------


def _stiffness(model: mujoco.MjModel, term: Term) -> Change:
    return _rows_of(model, term, "jnt_stiffness", single_joints(model, term))


def _limit(model: mujoco.MjModel, term: Term) -> Change:
    """add: each end moves outwards by its own number; scale: each moves away from the middle of the default range."""
    rows = single_joints(model, term)
    for joint in rows:
        name, width = model.joint(joint).name, float(np.ptp(model.jnt_range[joint]))
        if not model.jnt_limited[joint]:
            raise UsageError(f"randomization term {term.name!r}: joint {name!r} has no limits")
        if term.operation == "add" and width + 2 * term.support[0] <= 0:
            raise UsageError(f"randomization term {term.name!r}: moving both ends of {name!r} by {term.support[0]:g} "
                             f"leaves nothing of its {width:g} rad")  # fmt: skip

    fixed, outwards = Fixed(rows), Fixed([-1.0, 1.0])

    def apply(values: Values, drawn: Any) -> None:
        at = fixed.beside(drawn)
        ends = values["jnt_range"][:, at]  # (n, k, 2)
        by = drawn.reshape(ends.shape)
        if term.operation == "scale":
            middle = ends.mean(-1)[..., None]
            values["jnt_range"][:, at] = middle + (ends - middle) * by
        else:
            values["jnt_range"][:, at] = ends + outwards.beside(drawn) * by

    return Change(2 * len(rows), ("jnt_range",), apply)


def _offset(model: mujoco.MjModel, term: Term) -> Change:
    """A joint whose encoder reports (true - offset): a servo of it then drives the true angle to (command + offset).

    force = gain ctrl + bias0 + bias1 length + ..., so bias0 grows by gain gear offset, which leaves ctrl and its range
    in the encoder's terms. What is reported is shifted in sim/sensing.py.
    """
    joints = single_joints(model, term)
    pairs = [(i, list(joints).index(model.actuator_trnid[i, 0])) for i in range(model.nu)
             if model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT and model.actuator_trnid[i, 0] in joints
             and model.actuator_biasprm[i, 1] != 0]  # fmt: skip
    actuators, columns = (Fixed(np.array([p[i] for p in pairs], int)) for i in (0, 1))
    gear = Fixed(model.actuator_gear[actuators.array, 0])

    def apply(values: Values, drawn: Any) -> None:
        at = actuators.beside(drawn)
        gain = values["actuator_gainprm"][:, at, 0] * gear.beside(drawn)
        values["actuator_biasprm"][:, at, 0] += gain * drawn[:, columns.beside(drawn)]

    return Change(len(joints), ("actuator_gainprm", "actuator_biasprm"), apply)


# ---- geoms -------------------------------------------------------------------------------------


def _sliding_friction(model: mujoco.MjModel, term: Term) -> Change:
    return _rows_of(model, term, "geom_friction", np.array(match(term, names_of(model, "geom"))), 0)


def _size(model: mujoco.MjModel, term: Term) -> Change:
    """All sides by one number. The body keeps its mass, so its inertia grows with the square."""
    rows = np.array(match(term, names_of(model, "geom")))
    bodies = model.geom_bodyid[rows]
    for geom, body in zip(rows, bodies, strict=True):
        where = f"randomization term {term.name!r}: geom {model.geom(geom).name!r}"
        if model.geom_type[geom] not in _PRIMITIVES:
            kind = mujoco.mjtGeom(model.geom_type[geom]).name.removeprefix("mjGEOM_").lower()
            raise UsageError(f"{where} is a {kind}; what can change its size: {', '.join(_SHAPES)}")
        if model.body_weldid[body] and model.body_geomnum[body] > 1:
            raise UsageError(f"{where} is one of {model.body_geomnum[body]} of its moving body, whose inertia would "
                             "not follow; only a body of one geom changes its size")  # fmt: skip
    moving = np.flatnonzero(model.body_weldid[bodies])
    geoms, movers, moved = Fixed(rows), Fixed(moving), Fixed(bodies[moving])

    def apply(values: Values, drawn: Any) -> None:
        at, by = geoms.beside(drawn), drawn[:, :, None]
        values["geom_size"][:, at] *= by
        values["geom_rbound"][:, at] *= drawn
        values["geom_aabb"][:, at] *= by
        values["body_inertia"][:, moved.beside(drawn)] *= by[:, movers.beside(drawn)] ** 2

    def mark(values: Values) -> None:
        values["opt.disableflags"] |= _NO_MIDPHASE  # its boxes have the default's size

    fields = ("geom_size", "geom_rbound", "geom_aabb", "body_inertia")
    return Change(len(rows), fields, apply, ("opt.disableflags",), mark)


# ---- actuators ---------------------------------------------------------------------------------


def _gain(model: mujoco.MjModel, term: Term) -> Change:
    rows = np.array(match(term, names_of(model, "actuator")))
    _check_defaults(term, model.actuator_gainprm[rows, 0])
    if np.any(model.actuator_gainprm[rows, 0] == 0):
        raise UsageError(f"randomization term {term.name!r}: an actuator it names has no gain")
    fixed = Fixed(rows)

    def apply(values: Values, drawn: Any) -> None:
        at = fixed.beside(drawn)
        old = values["actuator_gainprm"][:, at, 0]
        new = operate(term, old, drawn)
        values["actuator_gainprm"][:, at, 0] = new
        values["actuator_biasprm"][:, at, 1] *= new / old  # -kp of a position servo, 0 of a motor

    return Change(len(rows), ("actuator_gainprm", "actuator_biasprm"), apply)


def _servo_damping(model: mujoco.MjModel, term: Term) -> Change:
    """force = gain ctrl + bias0 + bias1 length + bias2 velocity, with bias2 = -kv."""
    rows = Fixed(match(term, names_of(model, "actuator")))
    _check_defaults(term, -model.actuator_biasprm[rows.array, 2])

    def apply(values: Values, drawn: Any) -> None:
        bias, at = values["actuator_biasprm"], rows.beside(drawn)
        bias[:, at, 2] = -operate(term, -bias[:, at, 2], drawn)

    return Change(len(rows), ("actuator_biasprm",), apply)


def _strength(model: mujoco.MjModel, term: Term) -> Change:
    """Limits of the actuator's force and of what may act on its joint."""
    rows = np.array(match(term, names_of(model, "actuator")))
    of_force = model.actuator_forcelimited[rows].astype(bool)
    joint = np.where(model.actuator_trntype[rows] == mujoco.mjtTrn.mjTRN_JOINT, model.actuator_trnid[rows, 0], -1)
    on_joint = (joint >= 0) & model.jnt_actfrclimited[joint].astype(bool)
    for row in rows[~(of_force | on_joint)]:
        raise UsageError(f"randomization term {term.name!r}: actuator {model.actuator(row).name!r} has no force limit; "
                         "a motor's strength is its actuator_gain")  # fmt: skip

    limited = {"actuator_forcerange": (Fixed(rows[of_force]), Fixed(np.flatnonzero(of_force))),
               "jnt_actfrcrange": (Fixed(joint[on_joint]), Fixed(np.flatnonzero(on_joint)))}  # fmt: skip

    def apply(values: Values, drawn: Any) -> None:
        for field, (limits, numbers) in limited.items():
            values[field][:, limits.beside(drawn)] *= drawn[:, numbers.beside(drawn), None]

    return Change(len(rows), tuple(limited), apply)


# ---- the world ---------------------------------------------------------------------------------


def _option(model: mujoco.MjModel, term: Term) -> Change:
    """gravity: three numbers, along the world's axes; timestep: one."""
    field = f"opt.{term.what}"

    def apply(values: Values, drawn: Any) -> None:
        values[field] = operate(term, values[field], drawn.reshape(values[field].shape))

    return Change(WHATS[term.what].numbers, (field,), apply)


_BINDERS: Mapping[str, Callable[[mujoco.MjModel, Term], Change]] = {
    "link_mass": _mass, "body_com": _centre_of_mass, "payload": _payload_ball,
    "joint_stiffness": _stiffness, "joint_limit": _limit, "joint_offset": _offset,
    "geom_friction": _sliding_friction, "geom_size": _size,
    "actuator_gain": _gain, "actuator_damping": _servo_damping, "motor_strength": _strength,
    "gravity": _option, "timestep": _option,
}  # fmt: skip


# ---- helpers -----------------------------------------------------------------------------------


def default(model: mujoco.MjModel, field: str) -> np.ndarray:
    """A copy of a model's field, "opt.x" of its options."""
    return np.array(reduce(getattr, field.split("."), model))


def names_of(model: mujoco.MjModel, kind: str) -> list[str]:
    """Names in the model's order, "" where there is none; kind: joint | body | actuator | geom | site | …"""
    number = getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}")
    count = {"joint": "njnt", "actuator": "nu", "camera": "ncam", "material": "nmat"}.get(kind, f"n{kind}")
    return [mujoco.mj_id2name(model, number, i) or "" for i in range(getattr(model, count))]


def single_joints(model: mujoco.MjModel, term: Term) -> np.ndarray:
    """Indices of the joints that the term names; only joints with one degree of freedom can be named."""
    names = names_of(model, "joint")
    return np.array(match(term, [n if model.jnt_type[i] in _SINGLE else "" for i, n in enumerate(names)]))


def massive_bodies(model: mujoco.MjModel, term: Term) -> np.ndarray:
    """Indices of the named bodies that have a mass by the task's own description."""
    names = names_of(model, "body")
    return np.array(match(term, ["" if n.startswith("payload/") or model.body_mass[i] == 0 else n
                                 for i, n in enumerate(names)]))  # fmt: skip


def _rows_of(model: mujoco.MjModel, term: Term, field: str, rows: np.ndarray, column: int | None = None) -> Change:
    fixed, rest = Fixed(rows), () if column is None else (column,)
    _check_defaults(term, getattr(model, field)[(rows, *rest)])

    def apply(values: Values, drawn: Any) -> None:
        where = (slice(None), fixed.beside(drawn), *rest)
        values[field][where] = operate(term, values[field][where], drawn)

    return Change(len(rows), (field,), apply)


def operate(term: Term, value: Any, drawn: Any) -> Any:
    """The default `value` as a term of its operation has it with the drawn numbers."""
    if term.operation == "scale":
        return value * drawn
    if term.operation == "add":
        return value + drawn
    return np.broadcast_to(drawn, value.shape) if isinstance(drawn, np.ndarray) else drawn.expand(value.shape)


def _check_defaults(term: Term, default: np.ndarray) -> None:
    """Refuse what can do nothing, and what can leave the valid range."""
    where, what = f"randomization term {term.name!r}", WHATS[term.what]
    if term.operation == "scale" and not np.any(default):
        raise UsageError(f"{where}: {term.what} is 0 by default, so scaling it does nothing; use add or set")
    lowest = float(np.min(default)) + term.support[0]
    if term.operation == "add" and (lowest < 0 or (what.positive and lowest == 0)):
        raise UsageError(f"{where}: adding {term.support[0]:g} to the smallest {term.what} "
                         f"{float(np.min(default)):g} gives {lowest:g} {what.unit}, no valid value")  # fmt: skip


def _payload(term: Term, place: str) -> str:
    return f"payload/{term.name}/{place}"


def _ball(mass: Any) -> Any:
    return 0.4 * mass * PAYLOAD_RADIUS**2
