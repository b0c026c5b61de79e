"""The expert of drawer: over the gap behind the handle, down into it, and back with it.

It looks at the present state alone:

    hooked   the tool is in the gap and low: pull, until the drawer is open enough
    over it  the tool is above the gap: down into it
    else     to a place above the gap

Legend: N worlds.
"""

from __future__ import annotations

import numpy as np

from ..task import State
from ..tasks.drawer import BEHIND, OPEN, Drawer
from ..tasks.station import turn
from ..tasks.tabletop import DOWNWARD
from .tool_motion import ToolExpert, turned_down

SPEED, SLOW, PULL = 0.035, 0.016, 0.012  # [m] in one control step: on the way, down into the gap, with the drawer
_OVER = 0.06  # [m] above the hooking point
_ASIDE = 0.008  # [m] from the gap's middle: down
_LOW = 0.017  # [m] above the hooking point: the fingers are still behind the bar
_ENOUGH = OPEN + 0.02  # [m]
_LEAD = 0.03  # [m] beyond, where the command ends: a place, since to chase a late tool is to swing


class DrawerExpert(ToolExpert):
    """Actions (N, n) of the arm's joints."""

    task: Drawer

    def act(self, state: State) -> np.ndarray:
        """Actions (N, n)."""
        qpos = np.asarray(state.qpos)
        tool, hook, yaw, opened = self.task.tool(qpos)[0], self.task.hook(qpos), qpos[:, -2], qpos[:, -1]
        away = turn(tool - hook, -yaw)  # (N, 3), x into the cabinet, from the gap's middle
        low = away[:, 2] < _LOW
        hooked = low & (np.abs(away[:, 0]) < BEHIND) & (np.abs(away[:, 1]) < 0.04)
        above = np.linalg.norm(away[:, :2], axis=1) < np.where(away[:, 2] < 0.7 * _OVER, 0.02, _ASIDE)
        over = hook + np.array([0.0, 0.0, _OVER])
        pull = self.task.hook(np.concatenate([qpos[:, :-1], np.full((len(yaw), 1), _ENOUGH + _LEAD)], axis=1))
        wanted = np.where(hooked[:, None], pull, np.where(above[:, None], hook, over))
        speed = np.where(hooked, PULL, np.where(above, SLOW, SPEED))
        action = self._motion.actions(state.target[self._arm.name], wanted, turned_down(DOWNWARD, yaw), speed)
        return np.where((opened < _ENOUGH)[:, None], action, 0.0)
