"""Jogging: what a person wants of the tool or of the joints, as joint targets inside the arm's limits.

A wish moves a reference pose of the tool; the joints follow it by damped least squares (Wampler 1986; Siciliano et al.
2009, "Robotics", section 3.5.1), a few iterations each period:

    e  = [p_ref - p(q), w log(R_ref R(q)^T)]          dq = J^T (J J^T + k^2 I)^-1 e

with the rotation's rows of J weighted by the length w too. An arm of fewer than six joints cannot have any rotation: it
gets a small w, so that the tool is where it is wanted and turned as well as it can be. Joints that meet their ends drop
out; what the arm cannot follow, the reference gives up.

Legend: n joints; twists and poses in the base frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..kinematics import forward_kinematics, jacobian, rotation_matrix
from ..robots import RobotSpec
from .route import outside
from .self_collision import SelfCollision
from .stopping import StoppingWay

ITERATIONS = 3
DAMPING = 0.02  # k [m]: the largest gain from error to joint is 1 / (2 k)
LENGTH, LENGTH_FEW = 0.3, 0.03  # w [m], and that of an arm with fewer than six joints
LAG = (0.02, 0.1)  # [m], [rad] that the reference may be ahead of what the joints can do
LEAD = 0.2  # [rad] that a target may be ahead of what was sent
CLEARANCE = 0.04  # [m] that the tool is kept from the walls of its box; the supervisor minds 0.02
APART = 0.02  # [m] that links are kept apart; the supervisor minds 0.01
MARGIN = 0.03  # [rad] that joints are kept from their ends


@dataclass(frozen=True)
class Speeds:
    """How fast a person may move an arm; the limits of the arm hold besides."""

    linear: float = 0.15  # [m/s] of the tool; 0.25 is what ISO 10218-1 calls reduced speed
    angular: float = 0.8  # [rad/s] of the tool
    joint: float = 0.3  # of each joint's largest speed
    gripper: float = 1.0  # of the gripper's range in a second
    largest_joint: float = 1.6  # [rad/s] of any joint


class Wish(NamedTuple):
    """What somebody wants while the dead-man's switch is held. All of it may be zero."""

    linear: np.ndarray  # (3,) [m/s]
    angular: np.ndarray  # (3,) [rad/s]
    joints: np.ndarray | None = None  # (n,) [rad/s]; in place of the tool's
    hand: tuple[np.ndarray, np.ndarray] | None = None  # position (3,) [m] and rotation (3, 3) of a controller held
    gripper: float = 0.0  # opening (1) or closing (-1)
    opening: float | None = None  # 0 closed to 1 open, where an axis says it


class Jog:
    """Turns wishes into joint targets, a period at a time. `begin` where the switch is pressed."""

    def __init__(self, robot: RobotSpec, speeds: Speeds | None = None):
        self.robot, self.speeds = robot, speeds or Speeds()
        self._low, self._high = np.array(robot.position_low) + MARGIN, np.array(robot.position_high) - MARGIN
        self._fastest = np.minimum(self.speeds.joint * np.array(robot.velocity), self.speeds.largest_joint)
        length = LENGTH if robot.num_joints >= 6 else LENGTH_FEW
        self._weight = np.array([1.0, 1.0, 1.0, length, length, length])
        self._collision = SelfCollision.of(robot)
        self.begin(np.array(robot.home), None)

    def begin(self, joint_pos: np.ndarray, gripper_pos: float | None) -> None:
        """Start from what was sent last (n,), with the gripper where it is."""
        self.q = np.array(joint_pos, np.float64)
        self.gripper = gripper_pos
        self._anchor()
        self._hand: tuple[np.ndarray, np.ndarray] | None = None

    def step(self, wish: Wish, sent: np.ndarray, dt: float) -> tuple[np.ndarray, float | None]:
        """Joint target (n,) and gripper's command, dt [s] further; `sent` (n,) is the last command to the arm."""
        before = np.minimum(np.maximum(self.q, sent - LEAD), sent + LEAD)
        if wish.joints is not None:
            q = before + np.clip(wish.joints, -self._fastest, self._fastest) * dt
        else:
            self._move_reference(wish, dt)
            q = self._solve(before, dt)
        self.q = self._inside(before, q)
        if wish.joints is not None:
            self._anchor()
        else:
            self._give_up()
        self._grip(wish, dt)
        return self.q, self.gripper

    # ---- the reference -----------------------------------------------------------------------

    def _anchor(self) -> None:
        self.position, self.rotation = forward_kinematics(self.robot, self.q)

    def _move_reference(self, wish: Wish, dt: float) -> None:
        if wish.hand is None:
            self._hand = None
            step, turn = wish.linear * dt, wish.angular * dt
        else:
            if self._hand is None:
                self._hand, self._held_at = wish.hand, (self.position, self.rotation)
            (p0, r0), (p, r), (tool_p, tool_r) = self._hand, wish.hand, self._held_at
            step = tool_p + p - p0 - self.position
            turn = rotation_log((r @ r0.T) @ tool_r @ self.rotation.T)
        step, turn = _at_most(step, self.speeds.linear * dt), _at_most(turn, self.speeds.angular * dt)
        self.position, self.rotation = self.position + step, rotation_exp(turn) @ self.rotation

    def _give_up(self) -> None:
        """Bring the reference back to within LAG of what the joints do."""
        position, rotation = forward_kinematics(self.robot, self.q)
        self.position = position + _at_most(self.position - position, LAG[0])
        self.rotation = rotation_exp(_at_most(rotation_log(self.rotation @ rotation.T), LAG[1])) @ rotation

    # ---- the joints --------------------------------------------------------------------------

    def _solve(self, start: np.ndarray, dt: float) -> np.ndarray:
        q, free = start, np.ones(len(start), bool)
        for _ in range(ITERATIONS):
            position, rotation, jac = jacobian(self.robot, q)
            jac = self._weight[:, None] * jac * free
            error = self._weight * np.concatenate([self.position - position, rotation_log(self.rotation @ rotation.T)])
            dq = jac.T @ np.linalg.solve(jac @ jac.T + DAMPING**2 * np.eye(6), error)
            free &= (q + dq >= self._low) & (q + dq <= self._high)
            q = np.clip(q + dq, np.minimum(self._low, start), np.maximum(self._high, start))
        way = q - start
        return start + way * min(1.0, float(dt / max(np.max(np.abs(way) / self._fastest), 1e-12)))

    def _inside(self, before: np.ndarray, q: np.ndarray) -> np.ndarray:
        """q within the joints' ends; `before` where the tool comes too near to a wall, or a link to another."""
        q = np.clip(q, np.minimum(self._low, before), np.maximum(self._high, before))  # back from beyond is a way
        then, now = outside(self.robot, np.stack([before, q]))
        if now > -CLEARANCE and now > then:
            return before
        near = self._collision is not None and self._collision.touching(before, q, StoppingWay.standing(len(q)), APART)
        return before if near else q

    def _grip(self, wish: Wish, dt: float) -> None:
        gripper = self.robot.gripper
        if gripper is None or self.gripper is None or not (wish.gripper or wish.opening is not None):
            return
        span, low = gripper.open - gripper.closed, min(gripper.open, gripper.closed)
        step = self.speeds.gripper * abs(span) * dt
        goal = gripper.closed + wish.opening * span if wish.opening is not None else (
            self.gripper + np.sign(span) * wish.gripper * step)  # fmt: skip
        moved = self.gripper + min(max(goal - self.gripper, -step), step)
        self.gripper = float(min(max(moved, low), low + abs(span)))


def rotation_exp(vector: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) about an axis by its length [rad] (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    half = 0.5 * angle
    return rotation_matrix((np.cos(half), *(np.sin(half) * vector / angle)))


def rotation_log(matrix: np.ndarray) -> np.ndarray:
    """The axis times the angle (3,) [rad] of a rotation; its inverse is `rotation_exp`."""
    w = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    sine, cosine = 0.5 * float(np.linalg.norm(w)), 0.5 * (float(np.trace(matrix)) - 1.0)
    angle = float(np.arctan2(sine, cosine))
    if sine > 1e-6:
        return w * (0.5 * angle / sine)
    if cosine > 0.0:
        return 0.5 * w
    axis = np.sqrt(np.maximum(0.5 * (np.diag(matrix) + 1.0), 0.0))  # half a turn: the signs from the largest column
    k = int(np.argmax(axis))
    return angle * np.where(matrix[k] + matrix[:, k] < 0.0, -axis, axis)


def _at_most(vector: np.ndarray, length: float) -> np.ndarray:
    norm = float(np.linalg.norm(vector))
    return vector if norm <= length else vector * (length / norm)
