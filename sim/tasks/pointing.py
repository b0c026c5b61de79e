"""Reacher-v5 and Pusher-v5: bring a tip, or an object, to a target; see gymnasium_task.py.

Reacher:  reward = −|tip − target| − |command|²
Pusher:   reward = −|object − goal| − |object − tip| / 2 − |command|² / 10
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ...spec import ObsTerm
from ..task import Key, State
from .geometry import distance
from .gymnasium_task import GymnasiumTask, ranges


class Reacher(GymnasiumTask):
    """A two-link arm on a table; the target lies anywhere within its reach."""

    name, file = "Reacher-v5", "reacher.xml"
    physics_dt, substeps = 0.01, 2
    max_episode_steps = 50
    reads = ("xpos",)
    position_noise, velocity_noise = 0.1, 0.005
    randomization = ranges(bodies="body?", geoms=(), joints="joint?")  # it touches nothing
    tip, target = 3, 4  # bodies

    def _terms(self) -> tuple[ObsTerm, ...]:
        return (
            ObsTerm("cos", (2,), "robot", "1"),
            ObsTerm("sin", (2,), "robot", "1"),
            ObsTerm("target_pos", (2,), "goal", "m"),
            ObsTerm("velocity", (2,), "robot", "rad/s"),
            ObsTerm("error", (2,), "kinematics", "m"),
        )

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        qpos, qvel = self._noisy(key)
        u = key.uniform("target", 2)
        radius, angle = 0.2 * np.sqrt(u[:, 0]), 2.0 * np.pi * u[:, 1]  # uniform in the disc
        qpos[:, 2], qpos[:, 3] = radius * np.cos(angle), radius * np.sin(angle)
        qvel[:, 2:] = 0.0
        return qpos, qvel, {}

    def observe(self, state: State) -> dict[str, Any]:
        xp, joint_pos, xpos = array_namespace(state.qpos), state.qpos[:, :2], state.extra["xpos"]
        return {
            "cos": xp.cos(joint_pos),
            "sin": xp.sin(joint_pos),
            "target_pos": state.qpos[:, 2:],
            "velocity": state.qvel[:, :2],
            "error": xpos[:, self.tip, :2] - xpos[:, self.target, :2],
        }

    def reward(self, state: State, action: Any) -> Any:
        xpos = state.extra["xpos"]
        return -distance(xpos[:, self.tip], xpos[:, self.target]) - self.effort(action)


class Pusher(GymnasiumTask):
    """A seven-joint arm pushes a cylinder over a table to the goal."""

    name, file = "Pusher-v5", "pusher_v5.xml"
    physics_dt, substeps = 0.01, 5
    max_episode_steps = 100
    command = 2.0
    reads = ("xpos",)
    position_noise, velocity_noise = 0.0, 0.005
    randomization = ranges(joints="r_*")
    tip, thing, goal = 10, 11, 12  # bodies

    def _terms(self) -> tuple[ObsTerm, ...]:
        return (
            ObsTerm("position", (7,), "robot", "rad"),
            ObsTerm("velocity", (7,), "robot", "rad/s"),
            ObsTerm("tip_pos", (3,), "kinematics", "m"),
            ObsTerm("object_pos", (3,), "external", "m"),
            ObsTerm("goal_pos", (3,), "goal", "m"),
        )

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        qpos, qvel = self._noisy(key)
        qpos[:, -4:-2], qpos[:, -2:] = _object_place(key), 0.0
        qvel[:, -4:] = 0.0
        return qpos, qvel, {}

    def observe(self, state: State) -> dict[str, Any]:
        xpos = state.extra["xpos"]
        return {
            "position": state.qpos[:, :7],
            "velocity": state.qvel[:, :7],
            "tip_pos": xpos[:, self.tip],
            "object_pos": xpos[:, self.thing],
            "goal_pos": xpos[:, self.goal],
        }

    def reward(self, state: State, action: Any) -> Any:
        xpos = state.extra["xpos"]
        thing = xpos[:, self.thing]
        near, far = distance(thing, xpos[:, self.tip]), distance(thing, xpos[:, self.goal])
        return -far - 0.5 * near - 0.1 * self.effort(action)


def _object_place(key: Key) -> np.ndarray:
    """Places (n, 2) [m], uniform in a rectangle but for a disc around the goal: drawn again until outside of it."""
    low, size = np.array([-0.3, -0.2]), np.array([0.3, 0.4])
    place = np.zeros((len(key.worlds), 2))
    for attempt in count():
        again = np.sqrt((place**2).sum(axis=1)) <= 0.17
        if not again.any():
            break
        place[again] = (low + size * key.uniform(f"object/{attempt}", 2))[again]
    return place
