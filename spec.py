"""Spec: what a policy sees and does, as frozen data that travels in the policy file.

The same Spec is used by the task that trains the policy, by the file that stores it and by the arm's
control process that runs it. Two sides that differ are refused with the list of differences.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral
from typing import Any

from .errors import SpecError

UNKNOWN = "unknown"  # a Spec read from somebody's data may not know; deploying refuses it
SOURCES = ("robot", "kinematics", "camera", "goal", "external", UNKNOWN)
ACTION_KINDS = ("joint_pos", "control", "discrete", UNKNOWN)
REFERENCES = ("measured", "last_target", "home")
LENS = 0.03  # of the focal length, by which intrinsics may differ
NEVER_IN_POLICY_FILE = ("privileged", "achieved_goal")


@dataclass(frozen=True)
class ObsTerm:
    """One named quantity inside an observation group."""

    name: str
    shape: tuple[int, ...]
    source: str = UNKNOWN  # who provides it on the arm: robot, kinematics, camera, goal or external
    unit: str = UNKNOWN
    dtype: str = "float32"  # float32, or uint8 for a camera (height, width, channels)
    frame: str = ""  # the coordinate frame of a position or rotation
    low: float = -math.inf
    high: float = math.inf
    history: int = 1  # frames that the policy stacks, oldest first
    intrinsics: tuple[float, ...] = ()  # fx, fy, cx, cy of a camera [pixels of this shape]; empty where not known

    def __post_init__(self) -> None:
        _check_text(self, "observation", "name", "source", "unit", "dtype", "frame")
        object.__setattr__(self, "shape", tuple(_whole(f"observation {self.name!r}: shape", n, 0) for n in self.shape))
        object.__setattr__(self, "history", _whole(f"observation {self.name!r}: history", self.history, 1))
        object.__setattr__(self, "intrinsics", tuple(float(x) for x in self.intrinsics))
        if self.intrinsics and not (len(self.intrinsics) == 4 and all(0 < x < math.inf for x in self.intrinsics)):
            raise SpecError(f"observation {self.name!r}: intrinsics {self.intrinsics} are not fx, fy, cx, cy in pixels")
        if not (-math.inf <= self.low < math.inf and self.low <= self.high and self.high > -math.inf):
            raise SpecError(f"observation {self.name!r}: low {self.low} and high {self.high} are no bounds")
        if self.source not in SOURCES:
            raise SpecError(f"observation {self.name!r}: source {self.source!r} is not one of {', '.join(SOURCES)}")
        if self.dtype not in ("float32", "uint8"):
            raise SpecError(f"observation {self.name!r}: dtype {self.dtype!r} is not float32 or uint8")

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class ActionTerm:
    """How a slice of the policy's output in [-1, 1] becomes a command.

    joint_pos: target = reference + scale * action [rad, m], never further than `lead` from the measured
               position, inside [low, high], approached under max_velocity and max_acceleration.
    control:   command = low + (action + 1) / 2 * (high - low), in the simulator's own units.
    discrete:  the index of one of n choices.
    """

    name: str
    kind: str
    joints: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    reference: str = "last_target"  # measured | last_target | home
    home: tuple[float, ...] = ()
    lead: tuple[float, ...] = ()
    max_velocity: tuple[float, ...] = ()
    max_acceleration: tuple[float, ...] = ()
    unit: str = UNKNOWN
    n: int = 0

    def __post_init__(self) -> None:
        _check_text(self, "action", "name", "kind", "reference", "unit")
        if self.kind not in ACTION_KINDS:
            raise SpecError(f"action {self.name!r}: kind {self.kind!r} is not one of {', '.join(ACTION_KINDS)}")
        if self.reference not in REFERENCES:
            raise SpecError(f"action {self.name!r}: reference {self.reference!r} is not one of {', '.join(REFERENCES)}")
        for f in ("low", "high", "scale", "home", "lead", "max_velocity", "max_acceleration"):
            object.__setattr__(self, f, tuple(float(x) for x in getattr(self, f)))
            if not all(math.isfinite(x) for x in getattr(self, f)):
                raise SpecError(f"action {self.name!r}: {f} {getattr(self, f)} holds what is not a finite number")
        object.__setattr__(self, "joints", tuple(self.joints))
        if len(self.low) != len(self.high) or any(lo > hi for lo, hi in zip(self.low, self.high, strict=True)):
            raise SpecError(f"action {self.name!r}: low {self.low} and high {self.high} are no bounds")
        if self.kind == "joint_pos":
            for f in ("low", "high", "scale", "lead", "max_velocity", "max_acceleration"):
                if len(getattr(self, f)) != len(self.joints):
                    raise SpecError(f"action {self.name!r}: {f} has {len(getattr(self, f))} entries "
                                    f"for {len(self.joints)} joints")  # fmt: skip
            if self.reference == "home" and len(self.home) != len(self.joints):
                raise SpecError(f"action {self.name!r}: reference 'home' needs a home position for every joint")
        object.__setattr__(self, "n", _whole(f"action {self.name!r}: n", self.n, 2 if self.kind == "discrete" else 0))

    @property
    def size(self) -> int:
        """Numbers of the policy's output that belong to this term."""
        return 1 if self.kind == "discrete" else len(self.low)


@dataclass(frozen=True)
class Spec:
    """Observation groups, action terms and timing of a policy. Frozen; equality is by value."""

    observations: Mapping[str, tuple[ObsTerm, ...]]  # group name -> terms, flattened in this order
    actions: tuple[ActionTerm, ...]
    control_dt: float  # seconds between actions
    action_horizon: int = 1  # actions in one chunk
    robot: str = ""  # name of the arm, where there is one
    notes: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "observations", {g: tuple(t) for g, t in self.observations.items()})
        object.__setattr__(self, "actions", tuple(self.actions))
        for group, terms in self.observations.items():
            names = [t.name for t in terms]
            if len(set(names)) != len(names):
                raise SpecError(f"observation group {group!r} names a term twice: {', '.join(names)}")
        names = [t.name for t in self.actions]
        if len(set(names)) != len(names):
            raise SpecError(f"the actions name a term twice: {', '.join(names)}")
        if not 0 < self.control_dt < math.inf:
            raise SpecError(f"control_dt must be a positive time in seconds, not {self.control_dt}")
        object.__setattr__(self, "action_horizon", _whole("action_horizon", self.action_horizon, 1))

    # ---- sizes -------------------------------------------------------------------------------

    def obs_dim(self, group: str = "state") -> int:
        """Length of the flat vector of one observation group."""
        return sum(t.size for t in self.observations[group])

    def obs_shape(self, group: str) -> tuple[int, ...]:
        """Shape of one frame of a group: (dim,) of a flat vector, (height, width, channels) of an image."""
        terms = self.observations[group]
        return terms[0].shape if self.is_image(group) else (self.obs_dim(group),)

    def is_image(self, group: str) -> bool:
        """Whether a group is a camera: one term of uint8 with three axes."""
        terms = self.observations[group]
        return len(terms) == 1 and terms[0].dtype == "uint8" and len(terms[0].shape) == 3

    def history(self, group: str) -> int:
        """Frames of a group that the policy sees at once; worlds and drivers deliver the newest alone."""
        histories = {t.history for t in self.observations[group]}
        if len(histories) > 1:
            raise SpecError(f"observation group {group!r}: the terms of a stacked group have one history, found "
                            f"{', '.join(f'{t.name} {t.history}' for t in self.observations[group])}")  # fmt: skip
        return histories.pop()

    @property
    def vectors(self) -> tuple[str, ...]:
        """The flat groups that a policy may read, in order."""
        return tuple(g for g in self.observations if g not in NEVER_IN_POLICY_FILE and not self.is_image(g))

    @property
    def images(self) -> tuple[str, ...]:
        """The cameras that a policy may read, in order."""
        return tuple(g for g in self.observations if g not in NEVER_IN_POLICY_FILE and self.is_image(g))

    def slices(self, group: str = "state") -> dict[str, slice]:
        """Where each term lies in the group's flat vector."""
        result, start = {}, 0
        for t in self.observations[group]:
            result[t.name] = slice(start, start + t.size)
            start += t.size
        return result

    @property
    def action_dim(self) -> int:
        """Length of one action vector."""
        return sum(t.size for t in self.actions)

    @property
    def discrete(self) -> bool:
        return any(t.kind == "discrete" for t in self.actions)

    @property
    def choices(self) -> int:
        """How many actions a task with one discrete action term has; 0 for continuous actions."""
        return self.actions[0].n if len(self.actions) == 1 else 0

    # ---- checking ----------------------------------------------------------------------------

    def check(self, obs: Mapping[str, Any] | None = None, action: Any = None) -> None:
        """Raise SpecError where observations (leading batch axes allowed) or an action do not fit."""
        if obs is not None:
            for group in self.observations:
                if group not in obs:
                    raise SpecError(f"observation group {group!r} is missing; got {', '.join(obs) or 'nothing'}")
                shape = self.obs_shape(group)
                if tuple(obs[group].shape[-len(shape) :]) != shape:
                    raise SpecError(f"observation group {group!r} should end in {', '.join(map(str, shape))} numbers, "
                                    f"got shape {tuple(obs[group].shape)}")  # fmt: skip
        if action is not None and action.shape[-1] != self.action_dim:
            raise SpecError(f"an action should end in {self.action_dim} numbers, got shape {tuple(action.shape)}")

    def diff(self, other: Spec) -> list[str]:
        """Every difference that would make a policy of this Spec wrong under `other`, one line each."""
        lines: list[str] = []
        for name in ("control_dt", "action_horizon", "robot"):
            if getattr(self, name) != getattr(other, name):
                lines.append(f"{name}: expected {getattr(self, name)!r}, found {getattr(other, name)!r}")
        for group in sorted({*self.observations, *other.observations}):
            lines += _diff_terms(f"observation {group}", self.observations.get(group), other.observations.get(group))
        lines += _diff_terms("action", self.actions, other.actions)
        return lines

    def for_policy_file(self) -> Spec:
        """This Spec without the groups that only a simulator can fill."""
        return self.only([g for g in self.observations if g not in NEVER_IN_POLICY_FILE])

    def only(self, groups: Iterable[str]) -> Spec:
        """This Spec with no other observations than these groups."""
        kept = {g: self.observations[g] for g in groups}
        return Spec(kept, self.actions, self.control_dt, self.action_horizon, self.robot, self.notes)

    # ---- JSON --------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain data for the policy file; infinities are left out, since JSON has none."""
        return {
            "observations": {g: [_plain(t) for t in terms] for g, terms in self.observations.items()},
            "actions": [_plain(t) for t in self.actions],
            "control_dt": self.control_dt,
            "action_horizon": self.action_horizon,
            "robot": self.robot,
            "notes": dict(self.notes),
        }

    @staticmethod
    def from_json(data: Any) -> Spec:
        """The Spec of `to_json`'s data, or of its text.

        Raises:
            SpecError: naming the field that is missing, unknown or of the wrong form.
        """
        if isinstance(data, str):
            try:
                data = json.loads(data)
            except json.JSONDecodeError as error:
                raise SpecError(f"the spec is not JSON: {error}") from None
        try:
            return Spec(
                observations={g: tuple(_build(ObsTerm, t, f"observations.{g}") for t in terms)
                              for g, terms in data["observations"].items()},
                actions=tuple(_build(ActionTerm, t, "actions") for t in data["actions"]),
                control_dt=float(data["control_dt"]),
                action_horizon=data.get("action_horizon", 1),
                robot=str(data.get("robot", "")),
                notes=dict(data.get("notes", {})),
            )  # fmt: skip
        except KeyError as error:
            raise SpecError(f"the spec lacks {error.args[0]!r}") from None
        except (TypeError, ValueError, AttributeError) as error:
            raise SpecError(f"the spec has a field of the wrong form: {error}") from None


def same_lens(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two cameras' intrinsics differ by no more than calibrations do, or one of them is not known."""
    return not (one and other) or all(abs(a - b) <= LENS * max(one[0], one[1]) for a, b in zip(one, other, strict=True))


def _whole(what: str, value: Any, least: int) -> int:
    if not isinstance(value, Integral) or value < least:
        raise SpecError(f"{what} must be a whole number, at least {least}, not {value!r}")
    return int(value)


def _check_text(term: ObsTerm | ActionTerm, what: str, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(term, name), str):
            raise SpecError(f"{what} {term.name!r}: {name} should be text, got {getattr(term, name)!r}")


def _plain(term: ObsTerm | ActionTerm) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(term).items()
            if not (isinstance(v, float) and math.isinf(v)) and (k != "intrinsics" or v)}  # fmt: skip


def _build(cls: type, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise SpecError(f"{where}: expected an object for a term, got {type(data).__name__}")
    known = {f.name for f in fields(cls)}
    if unknown := sorted(set(data) - known):
        raise SpecError(f"{where}: unknown field {unknown[0]!r}; known: {', '.join(sorted(known))}")
    try:
        return cls(**data)
    except TypeError as error:
        raise SpecError(f"{where}: {error}") from None


def _diff_terms(where: str, mine: Any, theirs: Any) -> list[str]:
    if theirs is None:
        return [f"{where}: expected {', '.join(t.name for t in mine)}, found no such group"]
    if mine is None:
        return [f"{where}: expected no such group, found {', '.join(t.name for t in theirs)}"]
    mine_names, their_names = [t.name for t in mine], [t.name for t in theirs]
    lines = []
    if mine_names != their_names:
        lines.append(f"{where}: expected terms {', '.join(mine_names)}, found {', '.join(their_names)}")
    by_name = {t.name: t for t in theirs}
    for term in mine:
        if (other := by_name.get(term.name)) is None:
            continue
        for f in fields(term):
            a, b = getattr(term, f.name), getattr(other, f.name)
            if a != b and not (f.name == "intrinsics" and same_lens(a, b)):
                lines.append(f"{where} {term.name!r}: {f.name} expected {a!r}, found {b!r}")
    return lines
