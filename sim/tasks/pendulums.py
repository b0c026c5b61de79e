"""InvertedPendulum-v5 and InvertedDoublePendulum-v5: keep poles on a cart upright; see gymnasium_task.py.

one pole:    reward = 1 while |angle| ≤ 0.2
two poles:   reward = 10 while the tip is above 1 m − .01 x² − (y − 2)² − .001 ω₁² − .005 ω₂²
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from ...spec import ObsTerm
from ..task import State
from .gymnasium_task import GymnasiumTask, ranges


class InvertedPendulum(GymnasiumTask):
    name, file = "InvertedPendulum-v5", "inverted_pendulum.xml"
    physics_dt, substeps = 0.02, 2
    command = 3.0
    position_noise = velocity_noise = 0.01
    randomization = ranges(geoms=(), joints="*")  # it touches nothing

    def _terms(self) -> tuple[ObsTerm, ...]:
        return ObsTerm("position", (2,), "robot", "m, rad"), ObsTerm("velocity", (2,), "robot", "m/s, rad/s")

    def observe(self, state: State) -> dict[str, Any]:
        return {"position": state.qpos, "velocity": state.qvel}

    def reward(self, state: State, action: Any) -> Any:
        return array_namespace(state.qpos).astype(abs(state.qpos[:, 1]) <= 0.2, state.qpos.dtype)

    def terminated(self, state: State) -> Any:
        return abs(state.qpos[:, 1]) > 0.2


class InvertedDoublePendulum(GymnasiumTask):
    name, file = "InvertedDoublePendulum-v5", "inverted_double_pendulum.xml"
    physics_dt, substeps = 0.01, 5
    reads = ("site_xpos", "qfrc_constraint")
    normal_velocity = True
    randomization = ranges(geoms=(), joints="*")  # it touches nothing

    def _terms(self) -> tuple[ObsTerm, ...]:
        return (
            ObsTerm("cart_pos", (1,), "robot", "m"),
            ObsTerm("sin", (2,), "robot", "1"),
            ObsTerm("cos", (2,), "robot", "1"),
            ObsTerm("velocity", (3,), "robot", "m/s, rad/s", low=-10.0, high=10.0),
            ObsTerm("stop_force", (1,), "external", "N", low=-10.0, high=10.0),
        )

    def observe(self, state: State) -> dict[str, Any]:
        xp = array_namespace(state.qpos)
        return {
            "cart_pos": state.qpos[:, :1],
            "sin": xp.sin(state.qpos[:, 1:]),
            "cos": xp.cos(state.qpos[:, 1:]),
            "velocity": state.qvel.clip(-10.0, 10.0),
            "stop_force": state.extra["qfrc_constraint"][:, :1].clip(-10.0, 10.0),
        }

    def reward(self, state: State, action: Any) -> Any:
        tip = state.extra["site_xpos"][:, 0]
        away = 0.01 * tip[:, 0] ** 2 + (tip[:, 2] - 2.0) ** 2
        fast = 1e-3 * state.qvel[:, 1] ** 2 + 5e-3 * state.qvel[:, 2] ** 2
        return 10.0 * (tip[:, 2] > 1.0) - away - fast

    def terminated(self, state: State) -> Any:
        return state.extra["site_xpos"][:, 0, 2] <= 1.0
