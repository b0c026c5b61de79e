"""RobotSpec: the published facts of an arm, and the arms that Poise knows. SI units throughout.

FR3: Franka Robotics, "FCI documentation, robot limits and interface specifications" (limits) and the
DH parameters printed there (kinematic chain); hand and tool centre point of the Franka Hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import unknown_name

_H = math.sqrt(0.5)


@dataclass(frozen=True)
class Frame:
    """A fixed transform: translation [m] and rotation as a unit quaternion (w, x, y, z)."""

    pos: tuple[float, float, float]
    quat_wxyz: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Gripper:
    """What closes on things: one command moves all its fingers."""

    actuator: str  # its name in the arm's MJCF, which an action term of kind `control` names as its joint
    joints: tuple[str, ...]  # of the fingers
    closed: float  # the command at one end [unit]
    open: float  # and at the other
    unit: str  # m or rad
    width: float  # [m] between the fingers when open


@dataclass(frozen=True)
class RobotSpec:
    """Joint names, limits and geometry of one arm; every tuple has one entry a joint."""

    name: str
    joints: tuple[str, ...]
    position_low: tuple[float, ...]  # [rad]
    position_high: tuple[float, ...]  # [rad]
    velocity: tuple[float, ...]  # [rad/s]
    acceleration: tuple[float, ...]  # [rad/s^2]
    jerk: tuple[float, ...]  # [rad/s^3]
    effort: tuple[float, ...]  # [N m]
    home: tuple[float, ...]  # [rad]
    chain: tuple[Frame, ...]  # each joint's frame in its parent's at angle zero; the joint turns about its z
    tool: Frame  # tool centre point in the last joint's frame
    workspace_low: tuple[float, float, float]  # box that the tool may not leave [m, base frame]
    workspace_high: tuple[float, float, float]
    servo_dt: float  # seconds between commands to the device
    modes: tuple[str, ...] = ("joint_pos",)  # action kinds that a driver of this arm takes
    gripper: Gripper | None = None

    @property
    def num_joints(self) -> int:
        return len(self.joints)


FR3 = RobotSpec(
    name="fr3",
    joints=tuple(f"fr3_joint{i}" for i in range(1, 8)),
    position_low=(-2.7437, -1.7837, -2.9007, -3.0421, -2.8065, 0.5445, -3.0159),
    position_high=(2.7437, 1.7837, 2.9007, -0.1518, 2.8065, 4.5169, 3.0159),
    velocity=(2.62, 2.62, 2.62, 2.62, 5.26, 4.18, 5.26),
    acceleration=(10.0,) * 7,
    jerk=(5000.0,) * 7,
    effort=(87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0),
    home=(0.0, -math.pi / 4, 0.0, -3 * math.pi / 4, 0.0, math.pi / 2, math.pi / 4),
    chain=(
        Frame((0.0, 0.0, 0.333)),
        Frame((0.0, 0.0, 0.0), (_H, -_H, 0.0, 0.0)),
        Frame((0.0, -0.316, 0.0), (_H, _H, 0.0, 0.0)),
        Frame((0.0825, 0.0, 0.0), (_H, _H, 0.0, 0.0)),
        Frame((-0.0825, 0.384, 0.0), (_H, -_H, 0.0, 0.0)),
        Frame((0.0, 0.0, 0.0), (_H, _H, 0.0, 0.0)),
        Frame((0.088, 0.0, 0.0), (_H, _H, 0.0, 0.0)),
    ),
    # flange 0.107 m along z, hand turned by -45 degrees about it, tool centre point 0.1034 m further
    tool=Frame((0.0, 0.0, 0.107 + 0.1034), (math.cos(math.pi / 8), 0.0, 0.0, -math.sin(math.pi / 8))),
    workspace_low=(-0.9, -0.9, 0.02),
    workspace_high=(0.9, 0.9, 1.25),
    servo_dt=0.005,
    gripper=Gripper("gripper", ("finger_joint1", "finger_joint2"), closed=0.0, open=0.04, unit="m", width=0.08),
)

ROBOTS: dict[str, RobotSpec] = {"fr3": FR3}


def robot_spec(name: str) -> RobotSpec:
    """The arm of that name.

    Raises:
        UsageError: no such arm, with the ones there are.
    """
    if name not in ROBOTS:
        raise unknown_name("robot", name, ROBOTS)
    return ROBOTS[name]
