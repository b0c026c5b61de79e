"""The expert of peg: over the hole, in line with it, and down.

It looks at the present state alone, but for a correction: position servos and encoders are a little off, and two
millimetres count. So it adds up what the tip misses while it stands still, as an integrator does.

    in it    the tip is below the block's top, inside: on down
    over it  the tip is above the hole, to MISS, and turned as it is: down
    else     to a place above the hole

Legend: N worlds.
"""

from __future__ import annotations

import numpy as np

from ..task import State
from ..tasks.peg import DEPTH, HOLE, LENGTH, Peg
from ..tasks.station import turn
from ..tasks.tabletop import DOWNWARD
from .tool_motion import ToolExpert, turned_down

SPEED, SLOW = 0.03, 0.008  # [m] in one control step, on the way and down
_OVER, _DEEP = 0.012, DEPTH + 0.006  # [m] of the tip above and below the block's top
MISS = 0.0012  # [m] off the hole's middle: down
_NEAR = 0.01  # [m] from where it should be: the correction counts
_GAIN = 0.1  # of what is missed, in one control step


class PegExpert(ToolExpert):
    """Actions (N, n) of the arm's joints."""

    task: Peg

    def __init__(self, task: Peg):
        super().__init__(task)
        self._correction = np.zeros((0, 3))  # (N, 3) [m]

    def act(self, state: State) -> np.ndarray:
        """Actions (N, n)."""
        qpos = np.asarray(state.qpos)
        if len(self._correction) != len(qpos):
            self._correction = np.zeros((len(qpos), 3))
        self._correction[state.time == 0.0] = 0.0
        tip, yaw = self.task.from_hole(qpos), qpos[:, -1]
        inside = (tip[:, 2] < -0.002) & (np.abs(tip[:, :2]).max(axis=1) < HOLE)
        near = np.linalg.norm(tip[:, :2], axis=1) < np.where(tip[:, 2] < 0.8 * _OVER, 2.0 * MISS, MISS)
        down = inside | (near & (tip[:, 2] < 2.0 * _OVER))
        wanted = np.zeros_like(tip)
        beside = np.linalg.norm(tip[:, :2], axis=1) < _NEAR  # there it waits at the height that it has
        above = np.where(beside, np.clip(tip[:, 2], 0.25 * _OVER, _OVER), _OVER)
        wanted[:, 2] = np.where(down, -_DEEP, above)
        missed = wanted - tip
        close = np.linalg.norm(missed, axis=1) < _NEAR
        self._correction[close] += _GAIN * turn(missed, yaw)[close]
        rotation = turned_down(DOWNWARD, yaw)
        n = self.task.robot.num_joints
        held = np.concatenate([qpos[:, n : n + 2], np.full((len(qpos), 1), LENGTH)], axis=1)
        position = self.task.hole(qpos) + turn(wanted, yaw) + self._correction - (rotation @ held[:, :, None])[:, :, 0]
        speed = np.where(down, SLOW, SPEED)
        return self._motion.actions(state.target[self._arm.name], position, rotation, speed)
