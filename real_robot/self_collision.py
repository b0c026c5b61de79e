"""SelfCollision: how near the arm's links come to one another, here and on the way to standstill.

The links' shapes are those of the arm's MJCF, sim/assets/NAME.xml, and which of them may meet at all is written there
(contype, conaffinity); MuJoCo measures. Pairs that already overlap at home, and fingers of one hand, do not count.
A joint that turns by dq moves one link against another by at most its reach times |dq|, so from a pose with known
clearance most commands need no measuring. Legend: n joints, T servo periods.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..robots import RobotSpec
from .stopping import StoppingWay
from .tool_box import reach

ASSETS = Path(__file__).resolve().parents[1] / "sim" / "assets"
APART = 0.01  # [m] that links keep
SEEN = 0.06  # [m] within which distances are measured; farther is far
HAND = 0.12  # [m] that a hand's fingers reach beyond the tool centre point and beside it
STRIDE = 0.01  # [rad] between poses of a way that are looked at


class SelfCollision:
    """Distances between the links of one arm."""

    def __init__(self, robot: RobotSpec):
        import mujoco

        path = ASSETS / f"{robot.name}.xml"
        self._mujoco = mujoco
        self._model = mujoco.MjModel.from_xml_path(str(path))
        self._model.geom_margin[:] = SEEN
        self._data: Any = mujoco.MjData(self._model)
        n, first = robot.num_joints, int(self._model.joint(robot.joints[0]).qposadr[0])
        self._qpos = slice(first, first + n)
        self._reach = reach(robot) + HAND
        self._hand = self._beyond(int(self._model.joint(robot.joints[-1]).bodyid[0]))
        self._allowed: set[tuple[int, int]] = set()
        self._allowed = {pair for pair, distance in self._near(np.array(robot.home)) if distance < APART}
        self._anchor, self._clearance = np.array(robot.home), -1.0

    @classmethod
    def of(cls, robot: RobotSpec) -> SelfCollision | None:
        """For an arm that Poise has drawn; None for any other."""
        return cls(robot) if (ASSETS / f"{robot.name}.xml").exists() else None

    def touching(self, before: np.ndarray, position: np.ndarray, way: StoppingWay,
                 apart: float = APART) -> tuple[str, float, float] | None:  # fmt: skip
        """The nearest pair, its distance and the limit [m] where that is less, at `position` or on the way to stand.

        A way that leads no nearer than the arm stands already, at `before`, is let through, so that it can be led out.
        """
        if self._reach @ (np.abs(position - self._anchor) + way.distance) < self._clearance - apart:
            return None
        path = position + _thinned(way.path)
        found = [self.distance(pose) for pose in path]
        self._anchor, self._clearance = position.copy(), found[0][0]
        nearest, pair = min(found)
        if nearest >= apart or nearest >= self.distance(before)[0]:
            return None
        return pair, nearest, apart

    def distance(self, position: np.ndarray) -> tuple[float, str]:
        """Distance [m] and names of the two links that are nearest; SEEN and "" where all are farther apart."""
        near = self._near(position)
        if not near:
            return SEEN, ""
        (a, b), distance = min(near, key=lambda entry: entry[1])
        return distance, f"{self._model.body(a).name} and {self._model.body(b).name}"

    def _near(self, position: np.ndarray) -> list[tuple[tuple[int, int], float]]:
        """Pairs of links nearer than SEEN, and how near."""
        data, model = self._data, self._model
        data.qpos[self._qpos] = position
        self._mujoco.mj_kinematics(model, data)
        self._mujoco.mj_comPos(model, data)
        self._mujoco.mj_collision(model, data)
        contact = data.contact
        links = model.geom_bodyid[contact.geom[: data.ncon]]  # (C, 2)
        found = []
        for (a, b), distance in zip(links.tolist(), contact.dist[: data.ncon].tolist(), strict=True):
            pair = (min(a, b), max(a, b))
            if pair not in self._allowed and not (a in self._hand and b in self._hand):
                found.append((pair, distance))
        return found

    def _beyond(self, body: int) -> set[int]:
        """A link and all that hang on it."""
        links = {body}
        for other in range(body + 1, self._model.nbody):
            if int(self._model.body_parentid[other]) in links:
                links.add(other)
        return links


def _thinned(path: np.ndarray) -> np.ndarray:
    """Rows of (T, n) that lie about STRIDE apart, the first and the last among them."""
    travelled = np.abs(np.diff(path, axis=0)).max(axis=1, initial=0.0).cumsum()
    count = int(travelled[-1] / STRIDE) + 2 if len(travelled) else 1
    return path[np.unique(np.linspace(0, len(path) - 1, count).round().astype(int))]
