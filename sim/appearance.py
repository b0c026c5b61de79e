"""Appearance: how each world looks to its cameras: colours, patterns, lights, cameras, and things that lie about.

It is written into the renderer's own model, before each world is drawn, so that physics cannot notice. Values are
computed from the model's defaults, once an episode, and keyed by (seed, term, world, episode) like everything drawn.

A pattern is a grey texture that the geom's colour shines through; all of them are in the model from the beginning, so
that a world chooses one without anything being sent to the graphics card.

Legend: N worlds, n of them, k targets of a term; fields are (n, ...) each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import mujoco
import numpy as np

from ..errors import UsageError
from ..keyed import Stream
from .patterns import PATTERNS, add_pattern
from .physics_terms import default, names_of, operate
from .randomization import Randomization, Term, match
from .task import Key
from .whats import WHATS

_SHAPES = tuple(getattr(mujoco.mjtGeom, f"mjGEOM_{shape}") for shape in ("SPHERE", "CAPSULE", "CYLINDER", "BOX"))
_UNCOLOURED = np.array(
    [0.5, 0.5, 0.5, 1.0], np.float32
)  # MuJoCo's default rgba of a geom: its material's colour is shown instead
_HEADLIGHT = "vis.headlight.diffuse"  # of the light at every camera, which counts as a light named headlight
_FIXED = int(mujoco.mjtCamLight.mjCAMLIGHT_FIXED)
Values = dict[str, np.ndarray]
Change = Callable[[Values, np.ndarray, Key], None]  # writes a draw (n, numbers) into fields


def is_seen(term: Term) -> bool:
    """Whether cameras see what the term changes: appearances, and sizes, which physics has too."""
    return WHATS[term.what].family == "appearance" or term.what == "geom_size"


def count(model: mujoco.MjModel, term: Term) -> int:
    """How many numbers an appearance term draws."""
    if term.what == "distractor":
        assert term.count is not None
        return term.count
    return WHATS[term.what].numbers * len(_rows(model, term))


def decorate(spec: mujoco.MjSpec, randomization: Randomization) -> None:
    """Add to a renderer's description the patterns and the things that terms may show."""
    whats = {t.what for t in randomization.terms}
    for term in randomization.terms:
        for i in range((term.count or 0) if term.what == "distractor" else 0):
            # not at the world's origin, which MuJoCo would take as a promise that it never is elsewhere
            spec.worldbody.add_geom(name=f"distractor/{term.name}/{i}", type=_SHAPES[0], size=[0.01] * 3,
                                    pos=[0.0, 0.0, -9.0], quat=[0.8, 0.6, 0.0, 0.0], contype=0,
                                    conaffinity=0)  # fmt: skip
    if "geom_pattern" in whats:
        for name in PATTERNS[1:]:
            for kind in ("2d", "cube"):
                add_pattern(spec, name, kind)


class Appearance:
    """The looks of N worlds, for models of one decorated description."""

    def __init__(self, model: mujoco.MjModel, randomization: Randomization, num_envs: int):
        terms = [t for t in randomization.terms if is_seen(t)]
        changes = [(t.name, *_BINDERS[t.what](model, t)) for t in terms]
        self._changes: list[tuple[str, Change]] = [(name, change) for name, change, _ in changes]
        fields = {f for _, _, touched in changes for f in touched}
        self._defaults = {f: _default(model, f) for f in fields}
        self._looks = {f: np.repeat(value[None], num_envs, axis=0) for f, value in self._defaults.items()}

    def begin(self, rows: np.ndarray, key: Key, params: Mapping[str, np.ndarray]) -> None:
        """Episodes `key` begin in rows (n,), with what was drawn for them: term -> (n, numbers)."""
        values = {f: np.repeat(value[None], len(rows), axis=0) for f, value in self._defaults.items()}
        for name, change in self._changes:
            change(values, params[name], key)
        for field, value in values.items():
            self._looks[field][rows] = value

    def put(self, model: mujoco.MjModel, world: int) -> None:
        """Make the model look like one world."""
        for field, values in self._looks.items():
            reduce(getattr, field.split("."), model)[...] = values[world]


# ---- one function a kind of term: its change, and the fields that it touches ------------------------


def _colour(model: mujoco.MjModel, term: Term) -> tuple[Change, tuple[str, ...]]:
    rows = _rows(model, term)

    def apply(values: Values, drawn: np.ndarray, key: Key) -> None:
        shown = values["geom_rgba"][:, rows, :3]
        values["geom_rgba"][:, rows, :3] = np.clip(operate(term, shown, drawn.reshape(shown.shape)), 0.0, 1.0)

    return apply, ("geom_rgba",)


def _pattern(model: mujoco.MjModel, term: Term) -> tuple[Change, tuple[str, ...]]:
    rows = _rows(model, term)
    materials = names_of(model, "material")
    of = np.full((len(rows), len(PATTERNS)), -1)
    for i, geom in enumerate(rows):
        kind = "2d" if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE else "cube"
        of[i, 1:] = [materials.index(f"pattern/{name}/{kind}") for name in PATTERNS[1:]]

    def apply(values: Values, drawn: np.ndarray, key: Key) -> None:
        chosen = np.minimum(drawn.astype(np.int64), len(PATTERNS) - 1)
        values["geom_matid"][:, rows] = of[np.arange(len(rows)), chosen]

    return apply, ("geom_rgba", "geom_matid")  # a geom without its material keeps the colour of it


def _size(model: mujoco.MjModel, term: Term) -> tuple[Change, tuple[str, ...]]:
    rows = _rows(model, term)

    def apply(values: Values, drawn: np.ndarray, key: Key) -> None:
        values["geom_size"][:, rows] *= drawn[:, :, None]

    return apply, ("geom_size",)


def _diffuse(model: mujoco.MjModel, term: Term) -> tuple[Change, tuple[str, ...]]:
    rows, lamps = _rows(model, term), model.nlight

    def apply(values: Values, drawn: np.ndarray, key: Key) -> None:
        every = np.concatenate([values["light_diffuse"], values[_HEADLIGHT][:, None]], axis=1)  # (n, lights + 1, 3)
        old = every[:, rows]
        every[:, rows] = operate(term, old, drawn.reshape(old.shape))
        values["light_diffuse"][:], values[_HEADLIGHT][:] = every[:, :lamps], every[:, lamps]

    return apply, ("light_diffuse", _HEADLIGHT)


def _field(model: mujoco.MjModel, term: Term) -> tuple[Change, tuple[str, ...]]:
    """Positions and directions of lights; positions, directions and angles of cameras."""
    rows, field = _rows(model, term), _FIELDS[term.what]
    kind = WHATS[term.what].target
    modes = getattr(model, {"light": "light_mode", "camera": "cam_mode"}[kind])
    if term.what != "camera_fovy":
        for row in rows[modes[rows] != _FIXED]:
            raise UsageError(f"randomization term {term.name!r}: {kind} {_names(model, kind)[row]!r} follows something "
                             "(its mode is not fixed), so it cannot be placed")  # fmt: skip

    def apply(values: Values, drawn: np.ndarray, key: Key) -> None:
        old = values[field][:, rows]
        if term.what == "camera_rot":
            values[field][:, rows] = _turned(old, drawn.reshape(len(drawn), -1, 3))
            return
        new = operate(term, old, drawn.reshape(old.shape))
        if term.what == "light_dir":
            new = new / np.maximum(np.linalg.norm(new, axis=-1, keepdims=True), 1e-9)
        values[field][:, rows] = new

    return apply, (field,)


def _distractor(model: mujoco.MjModel, term: Term) -> tuple[Change, tuple[str, ...]]:
    """Shape, place, turn and colour are uniform; the term's own numbers are half the sizes [m]."""
    assert term.box is not None
    names = names_of(model, "geom")
    rows = np.array([names.index(f"distractor/{term.name}/{i}") for i in range(count(model, term))])
    low, high = np.asarray(term.box, float)

    def apply(values: Values, drawn: np.ndarray, key: Key) -> None:
        episodes = 0 if term.when == "start" else key.episodes
        u = Stream(key.seed, f"randomization/{term.name}/look").uniform(key.worlds, episodes, 11 * len(rows))
        u = u.reshape(len(u), len(rows), 11)
        values["geom_type"][:, rows] = np.array(_SHAPES, np.int32)[(u[..., 0] * len(_SHAPES)).astype(int)]
        values["geom_pos"][:, rows] = low + (high - low) * u[..., 1:4]
        values["geom_rgba"][:, rows, :3] = u[..., 4:7]
        values["geom_size"][:, rows] = drawn[..., None] * (0.5 + 0.5 * u[..., 7:10])  # of different proportions
        half = np.pi * u[..., 10]  # a turn about the vertical
        values["geom_quat"][:, rows] = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=-1)

    return apply, ("geom_type", "geom_pos", "geom_rgba", "geom_size", "geom_quat")


_FIELDS = {"light_pos": "light_pos", "light_dir": "light_dir",
           "camera_pos": "cam_pos", "camera_rot": "cam_quat", "camera_fovy": "cam_fovy"}  # fmt: skip
_BINDERS: Mapping[str, Callable[[mujoco.MjModel, Term], tuple[Change, tuple[str, ...]]]] = {
    "geom_color": _colour, "geom_pattern": _pattern, "geom_size": _size, "distractor": _distractor,
    "light_diffuse": _diffuse, **dict.fromkeys(_FIELDS, _field),
}  # fmt: skip


# ---- helpers -----------------------------------------------------------------------------------


def _rows(model: mujoco.MjModel, term: Term) -> np.ndarray:
    names = _names(model, WHATS[term.what].target)
    return np.array(match(term, [*names, "headlight"] if term.what == "light_diffuse" else names))


def _names(model: mujoco.MjModel, kind: str) -> list[str]:
    """As `names_of`; a light or camera without a name is called light0, light1, …; what was added has none."""
    names = names_of(model, kind)
    if kind == "geom":
        return ["" if name.startswith("distractor/") else name for name in names]
    return [name or f"{kind}{i}" for i, name in enumerate(names)]


def _default(model: mujoco.MjModel, field: str) -> np.ndarray:
    """A copy of the field; of geoms, the colour that is shown."""
    value = default(model, field)
    if field == "geom_rgba":
        of_material = (model.geom_matid >= 0) & (value == _UNCOLOURED).all(axis=1)
        value[of_material] = model.mat_rgba[model.geom_matid[of_material]]
    return value


def _turned(quat: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Quaternions (n, k, 4), each turned by a rotation vector (n, k, 3) [rad] in its own frame."""
    result, turn = np.array(quat), np.zeros(4)
    for i in np.ndindex(quat.shape[:2]):
        angle = float(np.linalg.norm(rotation[i]))
        mujoco.mju_axisAngle2Quat(turn, rotation[i] / max(angle, 1e-12), angle)
        mujoco.mju_mulQuat(result[i], quat[i], turn)
    return result
