"""What randomization terms mean in a MuJoCo model: names become indices, draws become field values.

Every value is computed from the model's default, whole fields at a time, and terms on the same field apply
in the order of the list. Nothing is ever read back from a randomized model, so nothing can accumulate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from ..errors import UsageError, unknown_name
from .randomization import WHATS, Randomization, Term, match

PAYLOAD_RADIUS = 0.03  # [m] a payload is a solid ball of this size
_SENSING = ("joint_pos_noise", "joint_pos_bias", "joint_vel_noise")
_JOINT_FIELDS = {"joint_friction": "dof_frictionloss", "joint_damping": "dof_damping", "joint_armature": "dof_armature"}
_DERIVED = frozenset({"body_mass", "body_inertia", "dof_armature"})  # what MuJoCo's constants are computed from


def add_payloads(spec: mujoco.MjSpec, randomization: Randomization) -> None:
    """Give every payload term a small body of its own, welded to the place it names.

    MuJoCo then composes mass, centre and inertia itself, and a draw is one mass and one inertia to write,
    where editing the hand's own inertial frame would invalidate the flags that the compiler derived from it.
    """
    for term in (t for t in randomization.terms if t.what == "payload"):
        sites, bodies = {s.name: s for s in spec.sites}, {b.name: b for b in spec.bodies if b.name != "world"}
        for place in match_names(term, [*sites, *bodies]):
            parent = sites[place].parent if place in sites else bodies[place]
            pos = (
                sites[place].pos if place in sites else (bodies[place].ipos if bodies[place].explicitinertial else 0.0)
            )
            mass = 1.0  # overwritten at every reset; the compiler wants it positive
            parent.add_body(name=_payload(term, place), pos=np.zeros(3) + pos, mass=mass, ipos=np.zeros(3),
                            inertia=np.full(3, _ball(mass)), explicitinertial=True)  # fmt: skip


def match_names(term: Term, names: list[str]) -> list[str]:
    """Those of the names that the term chooses."""
    return [names[i] for i in match(term, names)]


@dataclass(frozen=True)
class _Bound:
    """A term with the indices it found in the model."""

    term: Term
    size: int  # numbers to draw
    apply: Callable[[dict[str, np.ndarray], np.ndarray], None] | None = None  # writes a draw (n, size) into fields
    fields: tuple[str, ...] = ()
    address: np.ndarray | None = None  # qpos or qvel columns of a sensing term


class Dynamics:
    """A randomization bound to one compiled model."""

    def __init__(self, model: mujoco.MjModel, randomization: Randomization):
        self.randomization = randomization
        self._bound = [_bind(model, term) for term in randomization.terms]
        self.sizes = {b.term.name: b.size for b in self._bound}
        self.defaults = {f: np.array(getattr(model, f)) for b in self._bound for f in b.fields}
        self.needs_constants = bool(_DERIVED & set(self.defaults))
        self.sensing = [(b.term, b.address) for b in self._bound if b.address is not None]
        self.latency = [b.term for b in self._bound if b.term.what == "action_latency"]

    def draw(self, seed: int, worlds: Any, episodes: Any) -> dict[str, np.ndarray]:
        """What differs in the given episodes: term -> (n, k)."""
        return self.randomization.draw(seed, worlds, episodes, self.sizes)

    def fields(self, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Values (n, …) of every model field that some term touches, for the drawn parameters."""
        n = len(next(iter(params.values()))) if params else 0
        values = {f: np.repeat(default[None], n, axis=0) for f, default in self.defaults.items()}
        for bound in self._bound:
            if bound.apply is not None:
                bound.apply(values, params[bound.term.name])
        return values

    def delay(self, params: Mapping[str, np.ndarray], dt: float) -> np.ndarray:
        """Action latency in whole physics steps of dt [s], all latency terms added: (n,)."""
        total = sum(params[t.name][:, 0] for t in self.latency)
        return np.rint(np.asarray(total) / dt).astype(np.int64)

    def longest_delay(self, dt: float) -> int:
        """The longest delay that can be drawn, in physics steps of dt [s]."""
        return int(np.rint(sum(t.support[1] for t in self.latency) / dt))


# ---- one function a kind of term ---------------------------------------------------------------


def _bind(model: mujoco.MjModel, term: Term) -> _Bound:
    if term.what == "action_latency":
        return _Bound(term, 1)
    if term.what in _SENSING:
        joints = _joints(model, term)
        address = model.jnt_qposadr[joints] if term.what != "joint_vel_noise" else model.jnt_dofadr[joints]
        return _Bound(term, len(joints), address=address)
    if term.what == "payload":
        return _payload_term(model, term)
    if term.what == "link_mass":
        return _mass_term(model, term)
    if term.what in ("actuator_gain", "actuator_damping"):
        return _actuator_term(model, term)
    if term.what == "geom_friction":
        geoms = np.array(match(term, _names(model, mujoco.mjtObj.mjOBJ_GEOM, model.ngeom)))
        return _column_term(model, term, "geom_friction", geoms, 0)
    return _column_term(model, term, _JOINT_FIELDS[term.what], model.jnt_dofadr[_joints(model, term)], None)


def _column_term(model: mujoco.MjModel, term: Term, field: str, rows: np.ndarray, column: int | None) -> _Bound:
    where = (slice(None), rows) if column is None else (slice(None), rows, column)
    _check_defaults(term, getattr(model, field)[None][where][0])

    def apply(values: dict[str, np.ndarray], drawn: np.ndarray) -> None:
        values[field][where] = _operate(term, values[field][where], drawn)

    return _Bound(term, len(rows), apply, (field,))


def _mass_term(model: mujoco.MjModel, term: Term) -> _Bound:
    names = ["" if n.startswith("payload/") or model.body_mass[i] == 0 else n
             for i, n in enumerate(_names(model, mujoco.mjtObj.mjOBJ_BODY, model.nbody))]  # fmt: skip
    rows = np.array(match(term, names))
    _check_defaults(term, model.body_mass[rows])

    def apply(values: dict[str, np.ndarray], drawn: np.ndarray) -> None:
        old = values["body_mass"][:, rows]
        new = _operate(term, old, drawn)
        values["body_mass"][:, rows] = new
        values["body_inertia"][:, rows] *= (new / old)[:, :, None]  # the same shape, made of another material

    return _Bound(term, len(rows), apply, ("body_mass", "body_inertia"))


def _payload_term(model: mujoco.MjModel, term: Term) -> _Bound:
    names = _names(model, mujoco.mjtObj.mjOBJ_BODY, model.nbody)
    rows = np.array([i for i, name in enumerate(names) if name.startswith(_payload(term, ""))])

    def apply(values: dict[str, np.ndarray], drawn: np.ndarray) -> None:
        values["body_mass"][:, rows] = drawn
        values["body_inertia"][:, rows] = _ball(drawn)[:, :, None]

    return _Bound(term, len(rows), apply, ("body_mass", "body_inertia"))


def _actuator_term(model: mujoco.MjModel, term: Term) -> _Bound:
    rows = np.array(match(term, _names(model, mujoco.mjtObj.mjOBJ_ACTUATOR, model.nu)))
    if term.what == "actuator_damping":  # force = gain ctrl + bias0 + bias1 length + bias2 velocity, bias2 = -kv
        _check_defaults(term, -model.actuator_biasprm[rows, 2])

        def apply_kv(values: dict[str, np.ndarray], drawn: np.ndarray) -> None:
            bias = values["actuator_biasprm"]
            bias[:, rows, 2] = -_operate(term, -bias[:, rows, 2], drawn)

        return _Bound(term, len(rows), apply_kv, ("actuator_biasprm",))
    _check_defaults(term, model.actuator_gainprm[rows, 0])

    def apply(values: dict[str, np.ndarray], drawn: np.ndarray) -> None:
        old = values["actuator_gainprm"][:, rows, 0]
        new = _operate(term, old, drawn)
        values["actuator_gainprm"][:, rows, 0] = new
        values["actuator_biasprm"][:, rows, 1] *= new / old  # -kp of a position servo, 0 of a motor

    return _Bound(term, len(rows), apply, ("actuator_gainprm", "actuator_biasprm"))


# ---- helpers -----------------------------------------------------------------------------------


def _operate(term: Term, value: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    if term.operation == "scale":
        return value * drawn
    return value + drawn if term.operation == "add" else np.broadcast_to(drawn, value.shape)


def _check_defaults(term: Term, default: np.ndarray) -> None:
    """Refuse what can do nothing, and what can leave the valid range."""
    where, what = f"randomization term {term.name!r}", WHATS[term.what]
    if term.operation == "scale" and not np.any(default):
        raise UsageError(f"{where}: {term.what} is 0 by default, so scaling it does nothing; use add or set")
    lowest = float(np.min(default)) + term.support[0]
    if term.operation == "add" and (lowest < 0 or (what.positive and lowest == 0)):
        raise UsageError(f"{where}: adding {term.support[0]:g} to the smallest {term.what} "
                         f"{float(np.min(default)):g} gives {lowest:g} {what.unit}, no valid value")  # fmt: skip
    if term.what == "actuator_gain" and np.any(default == 0):
        raise UsageError(f"{where}: an actuator it names has no gain")


def _joints(model: mujoco.MjModel, term: Term) -> np.ndarray:
    """Indices of the joints that the term names; only joints with one degree of freedom can be named."""
    single = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
    names = _names(model, mujoco.mjtObj.mjOBJ_JOINT, model.njnt)
    return np.array(match(term, [n if model.jnt_type[i] in single else "" for i, n in enumerate(names)]))


def _names(model: mujoco.MjModel, kind: mujoco.mjtObj, count: int) -> list[str]:
    return [mujoco.mj_id2name(model, kind, i) or "" for i in range(count)]


def joint_ids(model: mujoco.MjModel, names: tuple[str, ...]) -> np.ndarray:
    """Indices of named joints.

    Raises:
        UsageError: no such joint, with its nearest neighbours.
    """
    known = _names(model, mujoco.mjtObj.mjOBJ_JOINT, model.njnt)
    for name in names:
        if name not in known:
            raise unknown_name("joint", name, known)
    return np.array([known.index(name) for name in names])


def _payload(term: Term, place: str) -> str:
    return f"payload/{term.name}/{place}"


def _ball(mass: Any) -> Any:
    return 0.4 * mass * PAYLOAD_RADIUS**2
