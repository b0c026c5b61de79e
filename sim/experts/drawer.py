"""The expert of drawer: over the gap behind the handle, down into it, and back with it.

It looks at the present state alone:

    hooked   the tool is in the gap and low: pull, until the drawer is open enough
    over it  the tool is above the gap: down
    else     to a place above the gap

Legend: N worlds.
"""

from __future__ import annotations

import numpy as np

from ..task import State
from ..tasks.drawer import BEHIND, BELOW, OPEN, Drawer
from ..tasks.station import turn
from ..tasks.tabletop import downward
from .tool_motion import ToolMotion, turned_down

SPEED, SLOW = 0.035, 0.016  # [m] in one control step, on the way and in the gap
_LEAD = 0.04  # [m] that the command is ahead of the handle
_OVER = 0.06  # [m] above the hooking point
_ASIDE = 0.008  # [m] from the gap's middle: down
_ENOUGH = OPEN + 0.02  # [m]


class DrawerExpert:
    """Actions (N, n) of the arm's joints."""

    def __init__(self, task: Drawer):
        self.task = task
        self._arm = task.spec.actions[0]
        self._motion = ToolMotion(task.robot, self._arm, task.start_pose, task.mjcf)
        self._down = downward(task.robot)

    def act(self, state: State) -> np.ndarray:
        """Actions (N, n)."""
        qpos = np.asarray(state.qpos)
        tool, hook, yaw, opened = self.task.tool(qpos)[0], self.task.hook(qpos), qpos[:, -2], qpos[:, -1]
        away = turn(tool - hook, -yaw)  # (N, 3), x into the cabinet, from the gap's middle
        low = away[:, 2] < 0.6 * BELOW
        hooked = low & (np.abs(away[:, 0]) < BEHIND) & (np.abs(away[:, 1]) < 0.04)
        above = np.linalg.norm(away[:, :2], axis=1) < np.where(away[:, 2] < 0.7 * _OVER, 0.02, _ASIDE)
        over = hook + np.array([0.0, 0.0, _OVER])
        back = turn(np.array([[-_LEAD, 0.0, 0.0]]).repeat(len(yaw), 0), yaw)
        pull = hook + np.where((opened < _ENOUGH)[:, None], back, 0.0)
        wanted = np.where(hooked[:, None], pull, np.where(above[:, None], hook, over))
        speed = np.where(above | hooked, SLOW, SPEED)
        return self._motion.actions(state.target[self._arm.name], wanted, turned_down(self._down, yaw), speed)
