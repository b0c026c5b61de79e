"""The expert of push: to the far side of the cube as seen from the mark, down, and straight through it.

u is the direction from the cube to the mark. Behind the cube and low, the tool moves along u, and back onto the line
through the mark where it has strayed; a cube that has slipped aside is approached anew from above.

Legend: N worlds.
"""

from __future__ import annotations

import numpy as np

from ..task import State
from ..tasks.push import Push
from ..tasks.tabletop import downward
from .tool_motion import ToolMotion, turned_down

SPEED = 0.04  # [m] in one control step
_CLEAR = 0.025  # [m] from the cube's edge to where the fingers go down
_OVER = 0.03  # [m] between fingertips and cube on the way
_LOW = 0.010  # [m] between fingertips and table while pushing
_ENOUGH = 0.008  # [m] from the mark
_LINED_UP, _STRAYED = 0.008, 0.022  # [m] off the line: to begin with, and to begin anew
_ABOVE = 0.015  # [m] from the place to go down at
_LEAD = 0.04  # [m] that the command is ahead of the tool, which lags


class PushExpert:
    """Actions (N, n) of the arm's joints."""

    def __init__(self, task: Push):
        self.task = task
        self._arm = task.spec.actions[0]
        self._motion = ToolMotion(task.robot, self._arm, task.start_pose, task.mjcf)
        self._down = downward(task.robot)

    def act(self, state: State) -> np.ndarray:
        """Actions (N, n)."""
        task, qpos = self.task, np.asarray(state.qpos)
        half, tip = task.bench.half, task.bench.tip
        tool, cube = task.tool(qpos), task.cube(qpos)
        away = (state.memory["target_pos"] - cube)[:, :2]
        g = np.linalg.norm(away, axis=1, keepdims=True)
        u = away / np.maximum(g, 1e-9)
        from_cube = tool[:, :2] - cube[:, :2]
        along = (from_cube * u).sum(1, keepdims=True)
        aside = from_cube - along * u
        low, high = tip + _LOW, tip + 2.0 * half + _OVER
        behind = cube[:, :2] - u * (half * 1.3 + _CLEAR)
        far = np.linalg.norm(tool[:, :2] - behind, axis=1)
        off, gap = np.linalg.norm(aside, axis=1), -along[:, 0] - half
        down = tool[:, 2] < 0.5 * (low + 2.0 * half)
        back = down & (gap > -0.2 * half)  # on the side to push from
        push = back & (off < np.where(gap < _CLEAR, _STRAYED, _LINED_UP))
        onward = tool[:, :2] + u * np.minimum(g, _LEAD) - aside
        apart = gap > 0.3 * half + 0.4 * _CLEAR
        place = np.where(apart[:, None], behind, tool[:, :2] - 0.03 * u)  # off the cube first, then to its line
        place = np.where(push[:, None], onward, np.where(down[:, None], place, behind))
        height = np.where(back | (far < _ABOVE), low, high)
        yaw = np.arctan(u[:, 1] / np.where(np.abs(u[:, 0]) < 1e-3, 1e-3, u[:, 0]))  # the fingers' flat side onwards
        wanted = np.concatenate([place, height[:, None]], axis=1)
        action = self._motion.actions(state.target[self._arm.name], wanted, turned_down(self._down, yaw), SPEED)
        return np.where(g < _ENOUGH, 0.0, action)
