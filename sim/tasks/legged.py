"""Ant-v5 and Humanoid-v5: run forward in space, feeling contacts; see gymnasium_task.py.

    reward = w_x Δx / Δt + h while healthy − w_a |command|² − (contact cost)

The contact cost weighs the squares of cfrc_ext, the spatial force [N m, N] on each body from outside.
(Schulman et al. 2016 for the ant; Tassa, Erez and Todorov 2012 for the humanoid.)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from ...spec import ObsTerm
from ..task import Key, State
from .gymnasium_task import GymnasiumTask, ranges


class Legged(GymnasiumTask):
    """Forward speed of the body or the centre of mass, health, effort and contacts."""

    reads: tuple[str, ...]
    speed_weight: float
    effort_weight: float
    health: float  # reward of every healthy step

    @abstractmethod
    def place(self, state: State) -> Any:
        """Where along x [m] the runner is: (N,)."""
        ...

    @abstractmethod
    def healthy(self, state: State) -> Any:
        """(N,) bool"""
        ...

    @abstractmethod
    def contact_cost(self, state: State) -> Any:
        """(N,)"""
        ...

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        qpos, qvel = self._noisy(key)
        return qpos, qvel, {"x": 0.0 * qpos[:, 0], "speed": 0.0 * qpos[:, 0]}

    def start(self, state: State) -> dict[str, Any]:
        return {"x": self.place(state) + 0.0, "speed": state.memory["speed"]}

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """The place x [m], and its mean speed [m/s] over the control step."""
        x = self.place(state) + 0.0  # a copy: the state's array is not ours
        return {"x": x, "speed": (x - state.memory["x"]) / self.spec.control_dt}

    def reward(self, state: State, action: Any) -> Any:
        earned = self.speed_weight * state.memory["speed"] + self.health * self.healthy(state)
        return earned - self.effort_weight * self.effort(action) - self.contact_cost(state)

    def terminated(self, state: State) -> Any:
        return ~self.healthy(state)


class Ant(Legged):
    name, file = "Ant-v5", "ant.xml"
    physics_dt, substeps = 0.01, 5
    reads = ("xpos", "cfrc_ext")
    speed_weight, effort_weight, health = 1.0, 0.5, 1.0
    normal_velocity = True
    randomization = ranges(joints=("hip_*", "ankle_*"))

    def _terms(self) -> tuple[ObsTerm, ...]:
        return (ObsTerm("position", (13,), "robot", "m, rad"), ObsTerm("velocity", (14,), "robot", "m/s, rad/s"),
                ObsTerm("contact_force", (78,), "external", "N m, N", low=-1.0, high=1.0))  # fmt: skip

    def observe(self, state: State) -> dict[str, Any]:
        return {
            "position": state.qpos[:, 2:],
            "velocity": state.qvel,
            "contact_force": self._contact_force(state)[:, 6:],  # without the world's
        }

    def place(self, state: State) -> Any:
        return state.extra["xpos"][:, 1, 0]  # of the torso

    def healthy(self, state: State) -> Any:
        height = state.qpos[:, 2]
        return (height >= 0.2) & (height <= 1.0)

    def contact_cost(self, state: State) -> Any:
        force = self._contact_force(state)
        return 5e-4 * (force * force).sum(1)

    def _contact_force(self, state: State) -> Any:
        return _rows(state.extra["cfrc_ext"]).clip(-1.0, 1.0)  # (N, bodies * 6)


class Humanoid(Legged):
    name, file = "Humanoid-v5", "humanoid.xml"
    physics_dt, substeps = 0.003, 5
    reads = ("subtree_com", "cinert", "cvel", "qfrc_actuator", "cfrc_ext")
    command = 0.4
    speed_weight, effort_weight, health = 1.25, 0.1, 5.0
    position_noise = velocity_noise = 1e-2
    randomization = ranges(joints=("abdomen_*", "*_hip_*", "*_knee", "*_shoulder?", "*_elbow"))

    def _terms(self) -> tuple[ObsTerm, ...]:
        return (
            ObsTerm("position", (22,), "robot", "m, rad"),
            ObsTerm("velocity", (23,), "robot", "m/s, rad/s"),
            ObsTerm("inertia", (130,), "external", "kg m^2, kg m, kg"),
            ObsTerm("body_velocity", (78,), "external", "rad/s, m/s"),
            ObsTerm("actuator_force", (17,), "robot", "N m"),
            ObsTerm("contact_force", (78,), "external", "N m, N"),
        )

    def observe(self, state: State) -> dict[str, Any]:
        inertia, velocity, force = (_rows(state.extra[name]) for name in ("cinert", "cvel", "cfrc_ext"))
        return {
            "position": state.qpos[:, 2:],
            "velocity": state.qvel,
            "inertia": inertia[:, 10:],  # without the world's
            "body_velocity": velocity[:, 6:],
            "actuator_force": state.extra["qfrc_actuator"][:, 6:],
            "contact_force": force[:, 6:],
        }

    def place(self, state: State) -> Any:
        return state.extra["subtree_com"][:, 0, 0]  # of everything: the centre of mass of this world's own masses

    def healthy(self, state: State) -> Any:
        height = state.qpos[:, 2]
        return (height > 1.0) & (height < 2.0)

    def contact_cost(self, state: State) -> Any:
        force = _rows(state.extra["cfrc_ext"])
        return (5e-7 * (force * force).sum(1)).clip(None, 10.0)


def _rows(field: Any) -> Any:
    """A field of all bodies as one row a world: a view, where cutting the world's body off first would copy."""
    return field.reshape((field.shape[0], -1))
