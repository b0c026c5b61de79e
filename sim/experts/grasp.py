"""The experts of lift and pick-place: over the cube, down, close, away with it.

They look at the present state alone, so that a cube that slips away is simply approached again:

    held      the fingers have closed onto the cube, and it is between them: on with it
    at it     the tool is at the grip point: close
    above it  the tool is over the cube: down to the grip point, open
    else      to a place over the cube, open

Legend: N worlds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from ..task import State
from ..tasks.lift import LIFT_HEIGHT
from ..tasks.tabletop import DOWNWARD, Tabletop
from .tool_motion import ToolExpert, cube_yaw, turned_down

# lengths of the bench's size
SPEED, SLOW = 0.03, 0.015  # in one control step, on the way and down to the cube
_OVER = 0.07  # above the grip point
_AT, _LOST = 0.008, 0.025  # from tool to grip point: close; no longer held
_CLOSED = 0.97  # of `closedness`


class Grasp(ToolExpert, ABC):
    """What both do until the cube is held."""

    task: Tabletop

    def __init__(self, task: Tabletop):
        super().__init__(task)
        gripper = task.robot.gripper
        assert gripper is not None
        self._open = 1.0 if gripper.open >= gripper.closed else -1.0  # of the action

    def act(self, state: State) -> np.ndarray:
        """Actions (N, A): the arm's joints, then the gripper."""
        task, qpos, size = self.task, np.asarray(state.qpos), self.task.bench.size
        tool, cube = task.tool(qpos), task.cube(qpos)
        grip = task.grip_point(cube)
        apart = np.linalg.norm(tool - grip, axis=1) / size
        aside = np.linalg.norm(tool[:, :2] - grip[:, :2], axis=1) / size
        closed = task.closedness(qpos)
        held = (closed > _CLOSED) & (apart < _LOST)
        at = (apart < _AT) | ((closed > 0.3) & (apart < _LOST))
        sinking = tool[:, 2] - grip[:, 2] < 0.8 * _OVER * size
        above = aside < np.where(sinking, _LOST, _AT)  # once on its way, it goes down
        over = grip + np.array([0.0, 0.0, _OVER * size])
        wanted = np.where((above | at)[:, None], grip, over)
        wanted = np.where(held[:, None], self.carry(state, grip, tool), wanted)
        rotation = turned_down(DOWNWARD, np.where(held, 0.0, 1.0) * cube_yaw(qpos[:, -4:]))
        speed = size * np.where(above & ~held, SLOW, SPEED)
        joints = self._motion.actions(state.target[self._arm.name], wanted, rotation, speed)
        close = (at | held)[:, None]
        return np.concatenate([joints, np.where(close, -self._open, self._open)], axis=1)

    @abstractmethod
    def carry(self, state: State, grip: np.ndarray, tool: np.ndarray) -> np.ndarray:
        """Where the tool (N, 3) goes with a cube that is held."""
        ...


class LiftExpert(Grasp):
    """Straight up."""

    def carry(self, state: State, grip: np.ndarray, tool: np.ndarray) -> np.ndarray:
        high = self.task.bench.half + self.task.bench.size * (LIFT_HEIGHT + 0.04)
        return np.stack([tool[:, 0], tool[:, 1], np.full(len(tool), high)], axis=1)


class PickPlaceExpert(Grasp):
    """To the goal, over the table on the way there."""

    def carry(self, state: State, grip: np.ndarray, tool: np.ndarray) -> np.ndarray:
        away = state.memory["target_pos"] - self.task.cube(np.asarray(state.qpos))
        wanted = tool + away
        size = self.task.bench.size
        far = np.linalg.norm(away[:, :2], axis=1) > 0.03 * size
        wanted[:, 2] = np.where(far, np.maximum(wanted[:, 2], self.task.bench.half + 0.03 * size), wanted[:, 2])
        return wanted
