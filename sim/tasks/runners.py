"""HalfCheetah-v5, Hopper-v5, Walker2d-v5, Swimmer-v5: run forward in a plane; see gymnasium_task.py.

    reward = Δx / Δt − w |command|² + 1 while healthy, where the task says what healthy means

(Wawrzyński 2009 for the cheetah; Erez, Tassa and Todorov 2011 for the hopper; Coulom 2002 for the swimmer.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from array_api_compat import array_namespace

from ...spec import ObsTerm
from ..task import Key, State
from .gymnasium_task import GymnasiumTask, ranges


class Runner(GymnasiumTask):
    """Forward speed of the root, and a cost of effort."""

    hidden = 1  # positions in the plane that the policy does not see
    fastest = 0.0  # observed velocities are clipped to this, unless 0
    effort_weight: float

    def _terms(self) -> tuple[ObsTerm, ...]:
        position = ObsTerm("position", (len(self._start) - self.hidden,), "robot", "m, rad")
        return position, ObsTerm("velocity", (self._nv,), "robot", "m/s, rad/s")

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        qpos, qvel = self._noisy(key)
        return qpos, qvel, {"x": qpos[:, 0] + 0.0, "speed": 0.0 * qpos[:, 0]}

    def observe(self, state: State) -> dict[str, Any]:
        velocity = state.qvel
        if self.fastest:
            velocity = velocity.clip(-self.fastest, self.fastest)
        return {"position": state.qpos[:, self.hidden :], "velocity": velocity}

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """The root's place x [m], and its mean speed [m/s] over the control step."""
        x = state.qpos[:, 0] + 0.0  # a copy: the state's array is not ours
        return {"x": x, "speed": (x - state.memory["x"]) / self.spec.control_dt}

    def reward(self, state: State, action: Any) -> Any:
        return state.memory["speed"] - self.effort_weight * self.effort(action)


class HalfCheetah(Runner):
    name, file = "HalfCheetah-v5", "half_cheetah.xml"
    physics_dt, substeps = 0.01, 5
    effort_weight = 0.1
    normal_velocity = True
    randomization = ranges(joints=("b*", "f*"))


class Swimmer(Runner):
    name, file = "Swimmer-v5", "swimmer.xml"
    physics_dt, substeps = 0.01, 4
    effort_weight, hidden = 1e-4, 2
    randomization = ranges(geoms=())  # it touches nothing, and its joints have no damping


class Hopper(Runner):
    """Healthy while upright, off the ground, and nowhere near infinity."""

    name, file = "Hopper-v5", "hopper.xml"
    physics_dt, substeps = 0.002, 4
    effort_weight, fastest = 1e-3, 10.0
    position_noise = velocity_noise = 5e-3
    randomization = ranges(joints="*_joint")

    def healthy(self, state: State) -> Any:
        """(N,) bool"""
        xp, qpos, qvel = array_namespace(state.qpos), state.qpos, state.qvel
        small = xp.all(xp.abs(qpos[:, 2:]) < 100.0, axis=1) & xp.all(xp.abs(qvel) < 100.0, axis=1)
        return small & (qpos[:, 1] > 0.7) & (xp.abs(qpos[:, 2]) < 0.2)

    def reward(self, state: State, action: Any) -> Any:
        return super().reward(state, action) + self.healthy(state)

    def terminated(self, state: State) -> Any:
        return ~self.healthy(state)


class Walker2d(Hopper):
    """Healthy while upright at a walker's height."""

    name, file = "Walker2d-v5", "walker2d_v5.xml"

    def healthy(self, state: State) -> Any:
        height, angle = state.qpos[:, 1], state.qpos[:, 2]
        return (height > 0.8) & (height < 2.0) & (angle > -1.0) & (angle < 1.0)
