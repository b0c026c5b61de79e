"""The expert of reach: the tool straight to the target, turned however the arm likes.

Legend: N worlds, n joints.
"""

from __future__ import annotations

import numpy as np

from ..task import State
from ..tasks.reach import Reach
from .tool_motion import ToolMotion

SPEED = 0.05  # [m] in one control step


class ReachExpert:
    """Actions (N, n) of the arm's joints."""

    def __init__(self, task: Reach):
        self._arm = task.spec.actions[0]
        self._motion = ToolMotion(task.robot, self._arm, np.array(task.robot.home), task.mjcf, turns=False)

    def act(self, state: State) -> np.ndarray:
        """Actions (N, n)."""
        target = np.asarray(state.memory["target_pos"])
        anyhow = np.broadcast_to(np.eye(3), (len(target), 3, 3))
        return self._motion.actions(state.target[self._arm.name], target, anyhow, SPEED)
