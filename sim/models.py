"""Models: MuJoCo models that were compiled alike, given values of their fields: worlds, candidates, or somebody's one.

Legend: n of the models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np

# fields that MuJoCo derives constants from: mj_setConst must follow
DERIVED = frozenset({"body_mass", "body_inertia", "body_ipos", "dof_armature"})


class Models:
    """What writes into models, and remembers where their arrays are."""

    def __init__(self, models: Sequence[mujoco.MjModel]):
        self._models = models
        self._views: dict[str, list[np.ndarray]] = {}
        self._scratch: mujoco.MjData | None = None  # for derived constants only

    def give(self, fields: Mapping[str, np.ndarray], rows: np.ndarray | None = None,
             wanted: Collection[str] | None = None) -> None:  # fmt: skip
        """Write values (n, …) of fields, "opt.x" for options, and what MuJoCo derives from them.

        rows: which models (n,) they are for, all by default. wanted: the fields to write, all by default.
        """
        which = range(len(self._models)) if rows is None else rows.tolist()
        names = [field for field in fields if wanted is None or field in wanted]
        for field in names:
            self._write(field, fields[field], which)
        if not DERIVED.isdisjoint(names):
            if self._scratch is None:
                self._scratch = mujoco.MjData(self._models[0])
            for row in which:
                mujoco.mj_setConst(self._models[row], self._scratch)

    def _write(self, field: str, values: np.ndarray, which: Sequence[int]) -> None:
        if field.startswith("opt."):
            option = field.removeprefix("opt.")
            for row, value in zip(which, values, strict=True):
                setattr(self._models[row].opt, option, _plain(value))
            return
        if field not in self._views:
            self._views[field] = [getattr(model, field) for model in self._models]
        views = self._views[field]
        for row, value in zip(which, values, strict=True):
            views[row][...] = value


def _plain(value: Any) -> Any:
    """An option's value, a number where it is one."""
    return value if np.ndim(value) else np.asarray(value).item()
