"""What policies of an arm see of it and do to it, whatever the task, and how arms differ: what its tasks share.

Legend: N worlds; an arm's joints come first in qpos and qvel.
"""

from __future__ import annotations

from typing import Any

from ...observe import add_kinematics
from ...robots import RobotSpec
from ...spec import ActionTerm, ObsTerm
from ..randomization import Term
from ..task import State

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


def arm_readings(robot: RobotSpec, state: State) -> dict[str, Any]:
    """Readings of an arm as its control process makes them, from the measured joints of a state."""
    joints = state.qpos[:, : robot.num_joints]
    readings = {
        "joint_pos": joints,
        "joint_vel": state.qvel[:, : robot.num_joints],
        "target_error": state.target["arm"] - joints,
    }
    return add_kinematics(readings, robot)


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


def arm_ranges(robot: RobotSpec, latency: float, bias: float) -> tuple[Term, ...]:
    """How arms at work on a table differ, masses first.

    latency: the longest of a command [s]; bias: deviation of the encoders' zero [rad].
    """
    arm = robot.joints
    return (
        Term("link_mass", "link_mass", "*", range=(0.8, 1.2)),
        Term("damping", "joint_damping", arm, range=(0.7, 1.3)),
        Term("armature", "joint_armature", arm, range=(0.7, 1.3)),
        Term("gain", "actuator_gain", "*", range=(0.8, 1.2)),
        Term("gain_damping", "actuator_damping", "*", range=(0.8, 1.2)),
        Term("latency", "action_latency", range=(0.0, latency), operation="set"),
        Term("joint_pos_noise", "joint_pos_noise", arm, range=(0.0002, 0.0008), operation="set"),
        Term("joint_pos_bias", "joint_pos_bias", arm, distribution="normal", mean=0.0, std=bias, operation="set"),
        Term("joint_vel_noise", "joint_vel_noise", arm, range=(0.005, 0.015), operation="set"),
    )  # fmt: skip
