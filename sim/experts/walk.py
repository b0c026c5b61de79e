"""The expert of walk/quad: a trot whose feet move over the ground as the command says.

Two legs that stand across from one another are on the ground while the other two swing forward:

    on the ground    the foot moves by -(v + w x r) a second, r from the trunk's middle to where it stands on average
    in the air       back to where it will touch down, lifted along half a sine

and joint angles follow from where the feet should be (Siciliano et al. 2009, "Robotics", section 2.12). Time alone sets
the phase, so the expert remembers nothing; a share of the velocity that is missing is asked for on top.
Legend: N worlds, L = 4 legs. Angles [rad], lengths [m] of sim/assets/quad.xml.
"""

from __future__ import annotations

import math

import numpy as np

from ..task import State
from ..tasks.walk import HIPS, LINK, OUT, Walk

PERIOD = 0.44  # [s] of a step of every leg
LIFT = 0.06  # [m] of a foot in the air
STAND = 0.245  # [m] from hips down to feet on the ground
BEHIND = 0.06  # [m] of where feet stand behind their hips: the knees bend backwards, and so lies the weight
FEEDBACK = 0.3  # of the velocity that is missing, on top of the command
_PHASE = np.array([0.0, 0.5, 0.5, 0.0])  # of the legs, in periods


class WalkExpert:
    """Actions (N, 12) in [-1, 1] from true states."""

    def __init__(self, task: Walk):
        self._task, term = task, task.spec.actions[0]
        self._home, self._scale = np.array(term.home), np.array(term.scale)

    def act(self, state: State) -> np.ndarray:
        command = state.memory["command"]
        have = np.concatenate([self._task.velocity(state)[:, :2], state.qvel[:, 5:6]], axis=1)
        moves = (np.abs(command) > 0.05).any(axis=1, keepdims=True)
        joints = joints_for(self.feet(state.time, moves * (command + FEEDBACK * (command - have))))
        return np.clip((joints - self._home) / self._scale, -1.0, 1.0)

    def feet(self, time: np.ndarray, command: np.ndarray) -> np.ndarray:
        """Where feet should be (N, L, 3), from where their thighs begin, for commands (N, 3)."""
        phase = (time[:, None] / PERIOD + _PHASE) % 1.0  # (N, L)
        swing = np.clip(2.0 * phase - 1.0, 0.0, 1.0)  # 0 on the ground
        along = np.where(phase < 0.5, 0.5 - 2.0 * phase, -0.5 + swing)  # of the way that a foot goes on the ground
        moves = (np.abs(command) > 0.05).any(axis=1, keepdims=True)
        r = np.array(HIPS)[:, :2] + np.stack([np.zeros(4), OUT], axis=1)  # (L, 2)
        speed = command[:, None, :2] + command[:, None, 2:] * np.stack([-r[:, 1], r[:, 0]], axis=1)  # (N, L, 2)
        ground = 0.5 * PERIOD * along[:, :, None] * speed
        height = LIFT * np.sin(math.pi * swing) * moves - STAND
        return np.concatenate([ground - np.array([BEHIND, 0.0]), height[:, :, None]], axis=2)


def joints_for(feet: np.ndarray) -> np.ndarray:
    """Joint positions (N, 12) with feet (N, L, 3) from where their thighs begin, knees bent backwards."""
    out, (x, y, z) = np.array(OUT), np.moveaxis(feet, -1, 0)
    side = out + y  # from the hip's axis
    depth = np.sqrt(np.maximum(side**2 + z**2 - out**2, 1e-6))  # in the plane that the thigh turns in
    hip = np.arctan2(side, -z) - np.arctan2(out, depth)
    knee = -np.arccos(np.clip((x**2 + depth**2) / (2.0 * LINK**2) - 1.0, -1.0, 1.0))
    thigh = np.arctan2(-x, depth) - 0.5 * knee
    return np.stack([hip, thigh, knee], axis=-1).reshape(len(feet), 12)
