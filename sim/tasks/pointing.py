"""Reacher-v5 and Pusher-v5: bring a tip, or an object, to a target; see gymnasium_task.py.

Reacher:  reward = −|tip − target| − |command|²
Pusher:   reward = −|object − goal| − |object − tip| / 2 − |command|² / 10
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from array_api_compat import array_namespace

from ...spec import ObsTerm
from ..task import Key, State
from .geometry import cos_sin, distance, uniform_in
from .gymnasium_task import GymnasiumTask, ranges

_CLEAR = 0.17  # [m] around the goal, where no object starts
_TRIES = 20  # places that are drawn for an object


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
        xp, u = array_namespace(qpos), key.uniform("target", 2)
        radius, angle = 0.2 * xp.sqrt(u[:, 0]), 2.0 * math.pi * u[:, 1]  # uniform in the disc
        target = radius[:, None] * cos_sin(angle)
        return xp.concat([qpos[:, :2], target], axis=1), xp.concat([qvel[:, :2], xp.zeros_like(target)], axis=1), {}

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
        xp, place = array_namespace(qpos), _object_place(key)
        zero = xp.zeros_like(place)
        qpos = xp.concat([qpos[:, :-4], place, zero], axis=1)
        return qpos, xp.concat([qvel[:, :-4], zero, zero], axis=1), {}

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


def _object_place(key: Key) -> Any:
    """Places (n, 2) [m], uniform in a rectangle but for a disc around the goal: the first of many that is outside it.

    A disc takes 38 % of the rectangle, so once in 200 million episodes there is none, and the first is taken anyway.
    """
    u = key.uniform("object", 2 * _TRIES)
    xp, tries = array_namespace(u), u.reshape((-1, 2))
    places = uniform_in(tries, (-0.3, -0.2), (0.0, 0.2)).reshape((-1, _TRIES, 2))
    outside = xp.sum(places**2, axis=2) > _CLEAR**2
    first = xp.argmax(xp.astype(outside, xp.int64), axis=1)  # of the largest, the first
    chosen = xp.arange(_TRIES, device=u.device)[None, :] == first[:, None]
    return xp.sum(places * xp.astype(chosen, u.dtype)[:, :, None], axis=1)
