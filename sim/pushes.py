"""Pushes: forces and torques on bodies at random times, for a while each.

A push term is drawn anew at times drawn from its `interval` [s]; its number is the size of a push [N or N m], whose
direction is uniform on the sphere and keyed like the draw. It lasts `duration` [s], in whole control steps, and acts at
the body's centre of mass (MjData.xfrc_applied).

Legend: N worlds, n of them, k bodies of a term.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from ..keyed import Stream
from .physics_terms import massive_bodies
from .randomization import Randomization, Term
from .task import Key


class Pushes:
    """The pushes of N worlds."""

    def __init__(self, model: mujoco.MjModel, randomization: Randomization, num_envs: int, control_dt: float):
        self._pushes = [_Push(t, massive_bodies(model, t), num_envs, control_dt) for t in randomization.terms
                        if t.what in ("push_force", "push_torque")]  # fmt: skip
        self._shape = (num_envs, model.nbody, 6)
        self.none = not self._pushes

    def begin(self, rows: np.ndarray) -> None:
        """Nothing pushes where an episode begins."""
        for push in self._pushes:
            push.until[rows] = 0

    def start(self, due: Mapping[str, np.ndarray], steps: np.ndarray, key: Key, draws: Mapping[str, np.ndarray],
              params: Mapping[str, np.ndarray]) -> None:  # fmt: skip
        """New pushes where a term was just drawn; everything else is of all N worlds."""
        for push in self._pushes:
            if (rows := due.get(push.name)) is not None:
                push.start(rows, steps[rows], key.some(rows), draws[push.name][rows], params[push.name][rows])

    def wrench(self, steps: np.ndarray) -> np.ndarray | None:
        """Force and torque (N, bodies, 6) in the world's frame during control step `steps` (N,), if anything pushes."""
        active = [(push, steps < push.until) for push in self._pushes]
        if not any(now.any() for _, now in active):
            return None
        result = np.zeros(self._shape)
        for push, now in active:
            result[:, push.bodies, push.columns] += np.where(now[:, None, None], push.vector, 0.0)
        return result

    def state_dict(self) -> dict[str, Any]:
        return {push.name: {"until": push.until.copy(), "vector": push.vector.copy()} for push in self._pushes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for push in self._pushes:
            push.until, push.vector = (np.array(state[push.name][k]) for k in ("until", "vector"))


class _Push:
    """One term's."""

    def __init__(self, term: Term, bodies: np.ndarray, num_envs: int, control_dt: float):
        assert term.duration is not None
        self.name, self.bodies = term.name, bodies
        self.columns = slice(0, 3) if term.what == "push_force" else slice(3, 6)
        self.until = np.zeros(num_envs, np.int64)  # the control step before which the push ends
        self.vector = np.zeros((num_envs, len(bodies), 3))
        self._steps = max(round(term.duration / control_dt), 1)

    def start(self, rows: np.ndarray, steps: np.ndarray, key: Key, draws: np.ndarray, size: np.ndarray) -> None:
        self.vector[rows] = size[:, :, None] * directions(self.name, key, draws, len(self.bodies))
        self.until[rows] = steps + self._steps


def directions(term: str, key: Key, draws: np.ndarray, count: int) -> np.ndarray:
    """Unit vectors (n, count, 3), uniform on the sphere, of a term's draw within each of n episodes."""
    stream = Stream(key.seed, f"randomization/{term}/direction")
    vector = stream.normal(key.worlds, key.episodes, 3 * count, step=draws).reshape(-1, count, 3)
    return vector / np.linalg.norm(vector, axis=-1, keepdims=True)
