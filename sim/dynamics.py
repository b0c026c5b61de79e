"""Dynamics: a randomization bound to one compiled model, on any engine or in anybody's simulator.

Every value is computed from the model's default, whole fields at a time, and terms on the same field apply
in the order of the list. Nothing is ever read back from a randomized model, so nothing can accumulate.

    dynamics = Dynamics(model, randomization)
    params = dynamics.draw(seed, worlds, episodes)     # term -> (n, k)
    Models(models).give(dynamics.fields(params))       # written into n models (sim/models.py)

Where the draws are tensors on a device, so are the fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np
from array_api_compat import is_torch_array

from ..errors import UsageError, unknown_name
from ..spec import Spec
from .actuation import servos
from .appearance import count
from .kicks import KICKS, kicked
from .physics_terms import Change, bind, default, massive_bodies, names_of, single_joints
from .randomization import Randomization, Term
from .readings import observed
from .rows import Fixed
from .task import Key
from .whats import WHATS

if TYPE_CHECKING:
    import torch

_JOINT_SENSING = frozenset(what for what in WHATS if WHATS[what].family == "sensing" and WHATS[what].target == "joint")
_NOT_NEGATIVE = ("body_mass", "dof_frictionloss", "dof_damping", "dof_armature", "jnt_stiffness", "geom_friction",
                 "actuator_gainprm")  # fmt: skip


class Dynamics:
    """What a randomization's terms draw and change in one model."""

    def __init__(self, model: mujoco.MjModel, randomization: Randomization, spec: Spec | None = None,
                 device: torch.device | None = None):  # fmt: skip
        """spec: a task's, where terms may name its observations.

        device: of mujoco_warp's worlds, whose model has none of the C compiler's flags.
        """
        self.randomization, self._has_flags = randomization, device is None
        self._changes = [(term, _bind(model, term, spec)) for term in randomization.terms]
        # an offset acts through the gain, so it comes after all that change the gain
        self._changes.sort(key=lambda pair: pair[0].what == "joint_offset")
        self.sizes = {term.name: change.size for term, change in self._changes}
        self.defaults = {f: default(model, f) for _, change in self._changes
                         for f in (*change.fields, *(change.flags if self._has_flags else ()))}  # fmt: skip
        self._fixed = {f: Fixed(values) for f, values in self.defaults.items()}
        self._require_valid_together()
        self.joint_sensing = [_sensed(model, t) for t in randomization.terms if t.what in _JOINT_SENSING]
        self.latency = [t for t in randomization.terms if t.what == "action_latency"]

    def draw(self, seed: int, worlds: Any, episodes: Any, draws: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What differs in the given episodes: term -> (n, k); draws: term -> (n,), which draw within the episode."""
        return self.randomization.draw(seed, worlds, episodes, self.sizes, draws)

    def draw_one(self, name: str, key: Key, draws: Any) -> Any:
        """One term's numbers (n, k) again, within the given episodes; draws (n,) as above."""
        term = next(t for t in self.randomization.terms if t.name == name)
        return term.draw(key.seed, key.worlds, key.episodes, self.sizes[name], draws)

    def fields(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Values (n, …) of every model field that some term touches, for the drawn parameters."""
        if not params:
            return {f: np.repeat(default[None], 0, axis=0) for f, default in self.defaults.items()}
        like = next(iter(params.values()))
        values = {f: _repeated(default.beside(like), len(like)) for f, default in self._fixed.items()}
        for term, change in self._changes:
            if change.apply is not None:
                change.apply(values, params[term.name])
            if change.mark is not None and self._has_flags:
                change.mark(values)
        return values

    def touched(self, terms: Iterable[str]) -> set[str]:
        """The fields that some of the named terms touch."""
        named = set(terms)
        return {field for term, change in self._changes if term.name in named
                for field in (*change.fields, *change.flags) if field in self.defaults}  # fmt: skip

    def _require_valid_together(self) -> None:
        """Refuse terms on one field that are valid each, and together can draw what is not.

        Changes of values that cannot be negative grow with what is drawn, so the lowest draws make the lowest values.
        """
        on = {f: [t.name for t, change in self._changes if f in change.fields] for f in _NOT_NEGATIVE}
        if not any(len(names) > 1 for names in on.values()):
            return
        lows = {t.name: low if np.isfinite(low := t.support[0]) else 0.0 for t, _ in self._changes}
        lowest = self.fields({name: np.full((1, self.sizes[name]), low) for name, low in lows.items()})
        for field, names in on.items():
            if len(names) > 1:
                wrong = lowest[field][0][(self.defaults[field] >= 0) & (lowest[field][0] < 0)]
                if len(wrong):
                    raise UsageError(f"randomization terms {', '.join(map(repr, names))} can draw a {field} of "
                                     f"{np.min(wrong):g} together, no valid value")  # fmt: skip

    def delay(self, params: Mapping[str, Any], dt: float) -> Any:
        """Action latency in whole physics steps of dt [s], all latency terms added: (n,)."""
        total: Any = sum(params[t.name][:, 0] for t in self.latency)
        if is_torch_array(total):  # float32 can round up what is longest
            return (total / dt).round().clip(max=self.longest_delay(dt)).long()
        return np.rint(np.asarray(total) / dt).astype(np.int64)

    def longest_delay(self, dt: float) -> int:
        """The longest delay that can be drawn, in physics steps of dt [s]."""
        return int(np.rint(sum(t.support[1] for t in self.latency) / dt))


def _repeated(default: Any, n: int) -> Any:
    if isinstance(default, np.ndarray):
        return np.repeat(default[None], n, axis=0)
    return default.expand(n, *default.shape).clone()


def writable(randomization: Randomization) -> tuple[list[str], list[str]]:
    """Names of the terms that somebody else's compiled model can take at each reset, and of those that it cannot.

    Sensing, delays, commands, disturbances and pictures are the VecEnv's business, so only Poise's own tasks have them.
    """
    fits = {t.name: (what := WHATS[t.what]).family == "physics" and what.compiled and t.when == "reset"
            for t in randomization.terms}  # fmt: skip
    return [name for name in fits if fits[name]], [name for name in fits if not fits[name]]


@dataclass(frozen=True)
class Sensed:
    """A term about what encoders report, with the columns of its joints in qpos and qvel."""

    term: Term
    qpos: np.ndarray
    qvel: np.ndarray


def _sensed(model: mujoco.MjModel, term: Term) -> Sensed:
    joints = single_joints(model, term)
    return Sensed(term, model.jnt_qposadr[joints], model.jnt_dofadr[joints])


def _bind(model: mujoco.MjModel, term: Term, spec: Spec | None) -> Change:
    what = WHATS[term.what]
    if what.family == "physics" or term.what == "joint_offset":
        return bind(model, term)
    if what.target == "observation":
        if spec is None:
            raise UsageError(f"randomization term {term.name!r}: {term.what} belongs to a task's observations, "
                             "and here is a model alone")  # fmt: skip
        sizes = observed(spec, term)
        return Change(1 if not what.numbers else sum(sizes.values()) if term.what == "obs_bias" else len(sizes))
    if what.family == "appearance":
        if spec is None or not any(spec.is_image(group) for group in spec.observations):
            raise UsageError(f"randomization term {term.name!r}: there is no camera that could see its {term.what}")
        return Change(count(model, term))  # sim/appearance.py has the rest
    if term.what in KICKS:
        size = len(kicked(model, term))
    elif what.family == "disturbance":
        size = len(massive_bodies(model, term))
    elif what.target == "joint":
        size = len(single_joints(model, term))
    else:
        size = len(servos(model, term)) if what.target == "actuator" else 1
    return Change(size if what.numbers else 1)


def joint_ids(model: mujoco.MjModel, names: tuple[str, ...]) -> np.ndarray:
    """Indices of named joints.

    Raises:
        UsageError: no such joint, with its nearest neighbours.
    """
    known = names_of(model, "joint")
    for name in names:
        if name not in known:
            raise unknown_name("joint", name, known)
    return np.array([known.index(name) for name in names])
