"""Kicks: velocities that change at an instant, at random times: what a shove leaves behind, without its force.

Training of legged robots shoves them so (Rudin et al. 2021, arXiv 2109.11978): the size of a kick does not depend
on what the robot weighs. A term is drawn anew at times drawn from its `interval` [s]; with each draw but the first, at
the beginning of a control step, velocities change by

    kick_velocity   number [m/s] times a direction, uniform on the sphere and keyed like the draw, of a free body
    kick_spin       number [rad/s] times such an axis
    kick_joint      number [rad/s, m/s of a slide], with its sign, of a joint of one degree of freedom

Legend: N worlds, n of them, k targets of a term, nv columns of MjData.qvel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from ..errors import UsageError
from .physics_terms import names_of, single_joints
from .pushes import directions
from .randomization import Randomization, Term, match
from .rows import on_device, some, zeros
from .task import Key

if TYPE_CHECKING:
    import torch

KICKS = ("kick_velocity", "kick_spin", "kick_joint")


class Kicks:
    """The kicks of N worlds."""

    def __init__(self, model: mujoco.MjModel, randomization: Randomization, num_envs: int,
                 device: torch.device | None = None):  # fmt: skip
        self._kicks = [(t, on_device(kicked(model, t), device)) for t in randomization.terms if t.what in KICKS]
        self._shape, self._device = (num_envs, model.nv), device

    def change(self, due: Mapping[str, Any], key: Key, draws: Mapping[str, Any], params: Mapping[str, Any]) -> Any:
        """Change (N, nv) of velocities where a term was just drawn, if any was; everything else is of all N worlds."""
        kicks = [(term, columns, due[term.name]) for term, columns in self._kicks if term.name in due]
        if not kicks:
            return None
        result = zeros(self._shape, self._device)
        for term, columns, rows in kicks:
            change = some(params[term.name], rows)  # (n, k)
            if columns.ndim == 2:
                unit = directions(term.name, key.some(rows), some(draws[term.name], rows), len(columns))
                change = change[:, :, None] * unit  # (n, k, 3)
            apart = rows.reshape(-1, *[1] * columns.ndim)
            if self._device is None:
                result[(apart, columns)] += change
            else:
                result[:, columns] += change.masked_fill(~apart, 0.0)
        return result


def kicked(model: mujoco.MjModel, term: Term) -> np.ndarray:
    """Columns of qvel that a term changes: (k,) of joints, (k, 3) of free bodies.

    Raises:
        UsageError: no such joint, or a body that does not move freely.
    """
    if term.what == "kick_joint":
        return model.jnt_dofadr[single_joints(model, term)]
    bodies = names_of(model, "body")
    joint = model.body_jntadr
    free = [bool(joint[i] >= 0) and model.jnt_type[joint[i]] == mujoco.mjtJoint.mjJNT_FREE for i in range(len(bodies))]
    for name in term.target:
        if name in bodies and not free[bodies.index(name)]:
            raise UsageError(f"randomization term {term.name!r}: body {name!r} hangs on joints and has no velocity of "
                             "its own; kick_joint changes theirs, and push_force pushes it")  # fmt: skip
    rows = match(term, [name if free[i] else "" for i, name in enumerate(bodies)])
    first = model.jnt_dofadr[joint[rows]] + (3 if term.what == "kick_spin" else 0)
    return first[:, None] + np.arange(3)
