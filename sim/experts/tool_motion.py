"""ToolMotion: actions that bring an arm's tool to a pose, by differential inverse kinematics (mink).

Every control step, and for every world, mink solves for the joint step dq a quadratic program (mink's FrameTask and
PostureTask; Nakamura and Hanafusa 1986 on damping):

    min  |J dq - e|^2 + w |dq - (q0 - q)|^2,   q + dq within the joints' limits

e is the pose's error, cut to what a control step may move; the weak pull to the posture q0 takes what freedom is left.
The joint step is then divided by the action's scale: the inverse of `joint_pos_target`. A servo without an integral
hangs below its target, by gravity's torque over its stiffness, as far as the arm's controller does not carry the weight
(gravcomp); q is where the last target lets the arm rest.

Legend: N worlds, n joints.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import mujoco
import numpy as np

from ...errors import UsageError
from ...kinematics import forward_kinematics
from ...robots import RobotSpec
from ...spec import ActionTerm
from ..scene import arm_scene, close_fingers

TURN = 0.2  # [rad] that the tool may turn in one control step


def require_mink() -> ModuleType:
    """mink, or one line that says how to get it."""
    try:
        import mink
    except ImportError:
        raise UsageError("scripted experts need mink: pip install 'poise[experts]'") from None
    return mink


class ToolMotion:
    """Steps of one arm's joints towards poses of its tool."""

    def __init__(self, robot: RobotSpec, term: ActionTerm, posture: np.ndarray, mjcf: str | None = None,
                 turns: bool = True):  # fmt: skip
        """term: the joint_pos action of the arm; posture: joint angles (n,) that it may like best; turns: whether the
        tool's rotation matters."""
        mink = require_mink()
        scene = arm_scene(robot, mjcf)
        close_fingers(scene, robot)
        self.model = scene.compile()
        self._robot, self._mink = robot, mink
        self._scale = np.array(term.scale)
        self._stiffness = np.array([self.model.actuator(joint).gainprm[0] for joint in term.joints])
        self._torque = np.zeros(len(term.joints))
        self._configuration = mink.Configuration(self.model)
        self._frame = mink.FrameTask("tool", "site", 1.0, orientation_cost=0.2 if turns else 0.0, lm_damping=1e-5)
        self._posture = mink.PostureTask(self.model, cost=3e-3)
        self._posture.set_target(np.asarray(posture))
        self._limits = [mink.ConfigurationLimit(self.model)]

    def actions(self, target: np.ndarray, position: np.ndarray, rotation: np.ndarray, speed: Any) -> np.ndarray:
        """Actions (N, n) in [-1, 1] from the last joint targets (N, n) towards poses (N, 3), (N, 3, 3).

        speed: [m] that the tool may move in one control step, one number or (N,).
        """
        resting = np.array([joints - self._sag(joints) for joints in target])
        here, turned = forward_kinematics(self._robot, resting)
        away = position - here
        length = np.linalg.norm(away, axis=1, keepdims=True)
        position = here + away * np.minimum(1.0, np.reshape(speed, (-1, 1)) / np.maximum(length, 1e-9))
        steps = np.array([self._solve(*row) for row in zip(resting, position, turned, rotation, strict=True)])
        action = steps / self._scale
        return action / np.maximum(1.0, np.abs(action).max(axis=1, keepdims=True))  # shorter, in the same direction

    def _sag(self, joints: np.ndarray) -> np.ndarray:
        """How far gravity pulls joints (n,) off the target that a position servo holds: its torque over kp [rad]."""
        self._configuration.update(joints)
        data = self._configuration.data
        mujoco.mj_rne(self.model, data, 0, self._torque)
        mujoco.mj_passive(self.model, data)
        return (self._torque - data.qfrc_gravcomp) / self._stiffness

    def _solve(self, joints: np.ndarray, position: np.ndarray, turned: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        mink = self._mink
        turn = mink.SO3.from_matrix(rotation @ turned.T).log()
        turn *= min(1.0, TURN / max(float(np.linalg.norm(turn)), 1e-9))
        rotation = mink.SO3.exp(turn) @ mink.SO3.from_matrix(turned)
        self._frame.set_target(mink.SE3.from_rotation_and_translation(rotation, position))
        self._configuration.update(joints)
        return mink.solve_ik(self._configuration, [self._frame, self._posture], 1.0, "daqp", limits=self._limits)


class ToolExpert:
    """An expert that moves the tool of an arm that begins pointing down."""

    def __init__(self, task: Any):
        """task: of an arm, with `start_pose`: what the joints like best."""
        self.task = task
        self._arm = task.spec.actions[0]
        self._motion = ToolMotion(task.robot, self._arm, task.start_pose, task.mjcf)


def turned_down(down: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Rotations (N, 3, 3) of a tool that points down, turned by yaw (N,) [rad] about the vertical."""
    c, s, o, one = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw), np.ones_like(yaw)
    return np.stack([np.stack([c, -s, o], -1), np.stack([s, c, o], -1), np.stack([o, o, one], -1)], axis=1) @ down


def cube_yaw(quat_wxyz: np.ndarray) -> np.ndarray:
    """The smallest turn (N,) [rad] about the vertical that squares up with a cube lying flat: within 45 degrees."""
    w, x, y, z = quat_wxyz.T
    yaw = np.arctan2(2.0 * (x * y + w * z), 1.0 - 2.0 * (y * y + z * z))
    return np.remainder(yaw + np.pi / 4, np.pi / 2) - np.pi / 4
