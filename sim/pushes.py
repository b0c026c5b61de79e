"""Pushes: forces and torques on bodies at random times, for a while each.

A push term is drawn anew at times drawn from its `interval` [s]; its number is the size of a push [N or N m], whose
direction is uniform on the sphere and keyed like the draw. It lasts `duration` [s], in whole control steps, and acts at
the body's centre of mass (MjData.xfrc_applied).

Legend: N worlds, n of them, k bodies of a term.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from ..keyed import Stream
from .physics_terms import massive_bodies
from .randomization import Randomization, Term
from .rows import copied, on_device, restored, some, space, written, zeros
from .task import Key

if TYPE_CHECKING:
    import torch


class Pushes:
    """The pushes of N worlds."""

    def __init__(self, model: mujoco.MjModel, randomization: Randomization, num_envs: int, control_dt: float,
                 device: torch.device | None = None):  # fmt: skip
        self._pushes = [_Push(t, massive_bodies(model, t), num_envs, control_dt, device) for t in randomization.terms
                        if t.what in ("push_force", "push_torque")]  # fmt: skip
        self._shape, self._device = (num_envs, model.nbody, 6), device
        self.none = not self._pushes

    def begin(self, rows: Any) -> None:
        """Nothing pushes where an episode begins."""
        for push in self._pushes:
            push.until = written(push.until, rows, 0)

    def start(self, due: Mapping[str, Any], steps: Any, key: Key, draws: Mapping[str, Any],
              params: Mapping[str, Any]) -> None:  # fmt: skip
        """New pushes where a term was just drawn; everything else is of all N worlds."""
        for push in self._pushes:
            if (rows := due.get(push.name)) is not None:
                push.start(rows, some(steps, rows), key.some(rows), some(draws[push.name], rows),
                           some(params[push.name], rows))  # fmt: skip

    def wrench(self, steps: Any) -> Any:
        """Force and torque (N, bodies, 6) in the world's frame during control step `steps` (N,).

        None where nothing pushes; on a device never, since that is not known to the host.
        """
        active = [(push, steps < push.until) for push in self._pushes]
        if self._device is None and not any(now.any() for _, now in active):
            return None
        result = zeros(self._shape, self._device)
        for push, now in active:
            result[:, push.bodies, push.columns] += space(now).where(now[:, None, None], push.vector, 0.0)
        return result

    def state_dict(self) -> dict[str, Any]:
        return {push.name: {"until": copied(push.until), "vector": copied(push.vector)} for push in self._pushes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for push in self._pushes:
            push.until = restored(state[push.name]["until"], push.until)
            push.vector = restored(state[push.name]["vector"], push.vector)


class _Push:
    """One term's."""

    def __init__(self, term: Term, bodies: np.ndarray, num_envs: int, control_dt: float, device: torch.device | None):
        assert term.duration is not None
        self.name, self.bodies = term.name, on_device(bodies, device)
        self.columns = slice(0, 3) if term.what == "push_force" else slice(3, 6)
        self.until = zeros((num_envs,), device, "int64")  # the control step before which the push ends
        self.vector = zeros((num_envs, len(bodies), 3), device)
        self._steps = max(round(term.duration / control_dt), 1)

    def start(self, rows: Any, steps: Any, key: Key, draws: Any, size: Any) -> None:
        vector = size[:, :, None] * directions(self.name, key, draws, len(self.bodies))
        self.vector = written(self.vector, rows, vector)
        self.until = written(self.until, rows, steps + self._steps)


def directions(term: str, key: Key, draws: Any, count: int) -> Any:
    """Unit vectors (n, count, 3), uniform on the sphere, of a term's draw within each of n episodes."""
    stream = Stream(key.seed, f"randomization/{term}/direction")
    vector = stream.normal(key.worlds, key.episodes, 3 * count, step=draws).reshape(-1, count, 3)
    return vector / space(vector).linalg.vector_norm(vector, axis=-1, keepdims=True)
