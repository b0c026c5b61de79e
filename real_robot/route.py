"""How to get from here to a pose, the tool inside its box and links apart: straight if possible, else first back.

A straight line of joint space is no straight line of the tool: from a folded pose to another it may bulge through
the box's ceiling, or lead the hand past the shoulder. The poses that the arm has just been through are known to be
good, so the way back is one.

Legend: n joints, P points.
"""

from __future__ import annotations

import numpy as np

from ..errors import LimitViolatedError
from ..kinematics import forward_kinematics
from ..robots import RobotSpec
from .self_collision import APART, SelfCollision

SPACING = 0.02  # [rad] between points of a line that are looked at, and
CLEARANCE = 0.03  # [m] that they keep from the walls; where the arm stands nearer, they come nearer by at most, and
LEAST = 0.005  # [m] keep at least, this
BETWEEN = 5e-4  # [m] by which links may be nearer between two points of a line than at them
STRIDE = 0.05  # [rad] between the poses of a trail
LONGEST = 4000  # poses of a trail


class Trail:
    """The poses that the arm has been through since its last move."""

    def __init__(self, robot: RobotSpec, links: SelfCollision | None = None):
        self._robot, self._links = robot, links
        self._poses: list[np.ndarray] = []  # oldest first

    def begin(self, pose: np.ndarray) -> None:
        """Forget what was; start at (n,)."""
        self._poses = [pose]

    def passed(self, pose: np.ndarray) -> None:
        """The arm was sent to (n,); poses at a wall are no good to go back by."""
        if np.abs(pose - self._poses[-1]).max() >= STRIDE and outside(self._robot, pose[None])[0] <= -CLEARANCE:
            self._poses.append(pose)
            if len(self._poses) > LONGEST:
                del self._poses[1::2]

    def route(self, here: np.ndarray, goal: np.ndarray) -> list[np.ndarray]:
        """Poses (n,) to visit in straight lines, the goal last.

        Raises:
            LimitViolatedError: the goal lies outside the box, or no such way leads there.
        """
        if outside(self._robot, goal[None])[0] > 0.0:
            tool, _ = forward_kinematics(self._robot, goal)
            raise LimitViolatedError(f"that pose has the tool at {np.round(tool, 3).tolist()} m, outside the workspace "
                                     f"{self._robot.workspace_low} to {self._robot.workspace_high}")  # fmt: skip
        legs, poses = [], list(self._poses)
        while not is_clear(self._robot, here, goal, self._links):
            back = next((i for i, pose in enumerate(poses) if is_clear(self._robot, here, pose, self._links)), None)
            if back is None or back >= len(poses):
                raise LimitViolatedError("no straight way to that pose keeps the tool in the workspace and links "
                                         "apart, nor does one from where the arm has been; go by poses in "
                                         "between")  # fmt: skip
            here, poses = poses[back], poses[:back]
            legs.append(here)
        return [*legs, goal]


def is_clear(robot: RobotSpec, start: np.ndarray, end: np.ndarray, links: SelfCollision | None = None) -> bool:
    """Whether the tool stays in the box, and links apart, along the straight line between two poses (n,)."""
    points = 2 + int(np.abs(end - start).max() / SPACING)
    line = start + np.linspace(0.0, 1.0, points)[:, None] * (end - start)  # (P, n)
    beyond = outside(robot, line)
    in_box = bool((beyond <= max(-CLEARANCE, min(beyond[0] + LEAST, -LEAST))).all())
    return in_box and (links is None or _apart(line, links))


def _apart(line: np.ndarray, links: SelfCollision) -> bool:
    """Whether links keep apart at all poses (P, n), as the supervisor asks: those too near already come no nearer."""
    before = links.distance(line[0])[0]
    for pose in line[1:]:
        if (distance := links.distance(pose)[0]) < min(APART + BETWEEN, before):
            return False
        before = distance
    return True


def outside(robot: RobotSpec, poses: np.ndarray) -> np.ndarray:
    """How far the tool is outside its box at poses (P, n): (P,) [m], negative inside."""
    tool, _ = forward_kinematics(robot, poses)
    return np.maximum(robot.workspace_low - tool, tool - robot.workspace_high).max(axis=-1)
