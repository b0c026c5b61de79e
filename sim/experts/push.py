"""The expert of push: to the far side of the cube as seen from the mark, down, and straight through it.

u is the direction from the cube to the mark. Behind the cube and low, the tool moves along u, and back onto the line
through the mark where it has strayed; a cube that has slipped aside is approached anew from above.

Legend: N worlds.
"""

from __future__ import annotations

import numpy as np

from ...kinematics import forward_kinematics
from ..task import State
from ..tasks.push import Push
from ..tasks.tabletop import DOWNWARD
from .tool_motion import ToolExpert, turned_down

_LOW = 0.010  # [m] between fingertips and table while pushing
# lengths of the bench's size
SPEED = 0.04  # in one control step
_CLEAR = 0.025  # from the cube's edge to where the fingers go down
_OVER = 0.03  # between fingertips and cube on the way
_ENOUGH = 0.008  # from the mark
_LINED_UP, _STRAYED = 0.008, 0.022  # off the line: to begin with, and to begin anew
_ABOVE = 0.015  # from the place to go down at
_LEAD = 0.02  # that the command is ahead of the tool: farther, and a prompt arm throws the cube past the mark


class PushExpert(ToolExpert):
    """Actions (N, n) of the arm's joints."""

    task: Push

    def act(self, state: State) -> np.ndarray:
        """Actions (N, n)."""
        task, qpos = self.task, np.asarray(state.qpos)
        position, rotation = forward_kinematics(task.robot, qpos[:, : task.robot.num_joints])
        fingers = position + task.bench.shift * rotation[:, :, 1]
        cube = task.cube(qpos)
        away = (state.memory["target_pos"] - cube)[:, :2]
        g = np.linalg.norm(away, axis=1, keepdims=True)
        u = away / np.maximum(g, 1e-9)
        yaw = np.remainder(np.arctan2(u[:, 1], u[:, 0]) + np.pi / 4, np.pi / 2) - np.pi / 4  # with a flat side ahead
        turned = turned_down(DOWNWARD, yaw)
        wanted = self._wanted(fingers, cube, u, g) - task.bench.shift * turned[:, :, 1]
        action = self._motion.actions(state.target[self._arm.name], wanted, turned, SPEED * task.bench.size)
        return np.where(g < _ENOUGH * task.bench.size, 0.0, action)

    def _wanted(self, fingers: np.ndarray, cube: np.ndarray, u: np.ndarray, g: np.ndarray) -> np.ndarray:
        """Where the closed fingers (N, 3) go; g (N, 1) [m] from the cube to the mark, u (N, 2) the way there."""
        half, tip, size = self.task.bench.half, self.task.bench.tip, self.task.bench.size
        at, from_cube = fingers[:, :2], fingers[:, :2] - cube[:, :2]
        along = (from_cube * u).sum(1, keepdims=True)
        aside, gap = from_cube - along * u, -along[:, 0] - half
        behind = cube[:, :2] - u * (half * 1.3 + _CLEAR * size)
        low, high = tip + _LOW, tip + 2.0 * half + _OVER * size
        down = fingers[:, 2] < low + 0.3 * (high - low)
        back = down & (gap > -0.2 * half)  # on the side to push from
        strayed = np.linalg.norm(aside, axis=1) > np.where(gap < _CLEAR * size, _STRAYED, _LINED_UP) * size
        apart = gap > 0.3 * half + 0.4 * _CLEAR * size
        place = np.where(apart[:, None], behind, at - 0.03 * size * u)  # off the cube first, then to its line
        place = np.where(down[:, None], place, behind)
        place = np.where((back & ~strayed)[:, None], at + u * np.minimum(g, _LEAD * size) - aside, place)
        sinking = fingers[:, 2] < low + 0.8 * (high - low)
        over = np.linalg.norm(at - behind, axis=1) < np.where(sinking, 2.5, 1.0) * _ABOVE * size
        return np.concatenate([place, np.where(back | over, low, high)[:, None]], axis=1)
