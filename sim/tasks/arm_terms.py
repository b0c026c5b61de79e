"""What policies of an arm see of it and do to it, whatever the task: the terms that its tasks share."""

from __future__ import annotations

from ...robots import RobotSpec
from ...spec import ActionTerm, ObsTerm

_MARGIN = 0.02  # [rad] between the action's bounds and the joint limits
_SHARE = 0.9  # of the arm's limits of velocity and acceleration, which the supervisor then has nothing to clip of


TOOL_ROT = ObsTerm("tool_rot", (6,), "kinematics", "1", frame="base")  # two columns of the rotation


def arm_obs(robot: RobotSpec) -> list[ObsTerm]:
    """What an arm's encoders tell, and where its tool is by forward kinematics."""
    n = robot.num_joints
    return [
        ObsTerm("joint_pos", (n,), "robot", "rad"),
        ObsTerm("joint_vel", (n,), "robot", "rad/s"),
        ObsTerm("target_error", (n,), "robot", "rad"),  # last joint target minus measured position
        ObsTerm("tool_pos", (3,), "kinematics", "m", frame="base"),
    ]


def arm_action(robot: RobotSpec, step: float, lead: float) -> ActionTerm:
    """Steps of the joint targets.

    step: of a control period, at the action's ends [rad]; lead: how far a target may be from the measured angle [rad].
    """
    n = robot.num_joints
    return ActionTerm(
        name="arm",
        kind="joint_pos",
        joints=robot.joints,
        low=tuple(x + _MARGIN for x in robot.position_low),
        high=tuple(x - _MARGIN for x in robot.position_high),
        scale=(step,) * n,
        reference="last_target",
        home=robot.home,
        lead=(lead,) * n,
        max_velocity=tuple(_SHARE * v for v in robot.velocity),
        max_acceleration=tuple(_SHARE * a for a in robot.acceleration),
        unit="rad",
    )
