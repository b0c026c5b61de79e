"""RobotSpec: the published facts of an arm, and the arms that Poise knows. SI units throughout.

FR3: Franka Robotics, "FCI documentation, robot limits and interface specifications" (limits) and the
DH parameters printed there (kinematic chain); hand and tool centre point of the Franka Hand; limits of velocity near
the ends of a joint's range: <position_based_velocity_limits> of the URDF that the robot hands out (libfranka's
rate_limiting.h has the same numbers).
UR5e: Universal Robots' ur_description: joint_limits.yaml, default_kinematics.yaml.
xArm7: UFACTORY's xarm_description. ViperX 300 S: Interbotix' interbotix_xsarm_descriptions, vx300s.urdf.xacro.
SO-101: SO-ARM100's Simulation/SO101 (chain, ranges); Feetech's data sheet of the STS3215 at 12 V (effort, velocity).

Where a vendor publishes no limit of acceleration or jerk, 10 rad/s^2 and 1000 rad/s^3 stand here: what the FR3
allows, or less. What else is known of each arm's model stands in its MJCF, sim/assets/NAME.xml.
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
    velocity: float  # [unit/s] that its command may change by; the device may take longer


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
    tool_speed: float = 3.0  # [m/s] of the tool centre point
    gripper: Gripper | None = None
    # of each joint: the ends of its range [rad], c [rad/s] and d [rad/s^2] of real_robot/slowing.py; () no such limits
    slowing: tuple[tuple[float, float, float, float], ...] = ()
    feeds_forward: bool = False  # whether its controller damps against the command's velocity (sim/lead.py)

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
    gripper=Gripper("gripper", ("finger_joint1", "finger_joint2"), 0.0, 0.04, "m", width=0.08, velocity=0.4),
    slowing=((-2.7501, 2.7501, 0.30, 6.0), (-1.7918, 1.7918, 0.20, 2.585), (-2.9065, 2.9065, 0.20, 3.5),
             (-3.0481, -0.1458, 0.30, 4.0), (-2.8101, 2.8101, 0.35, 17.0), (0.54092, 4.5205, 0.35, 5.5),
             (-3.0196, 3.0196, 0.35, 17.0)),
    feeds_forward=True,
)  # fmt: skip

_TURN, _BACK = (_H, _H, 0.0, 0.0), (_H, -_H, 0.0, 0.0)  # by 90 and by -90 degrees about x
_PI = math.pi - 1e-5  # as the ViperX's description rounds it

UR5E = RobotSpec(
    name="ur5e",
    joints=("shoulder_pan_joint", "shoulder_lift_joint", "elbow_joint",
            "wrist_1_joint", "wrist_2_joint", "wrist_3_joint"),
    position_low=(-2 * math.pi, -2 * math.pi, -math.pi, -2 * math.pi, -2 * math.pi, -2 * math.pi),
    position_high=(2 * math.pi, 2 * math.pi, math.pi, 2 * math.pi, 2 * math.pi, 2 * math.pi),
    velocity=(math.pi,) * 6,
    acceleration=(10.0,) * 6,
    jerk=(1000.0,) * 6,
    effort=(150.0, 150.0, 150.0, 28.0, 28.0, 28.0),
    home=(-0.3007, -1.7159, 1.6589, -1.5137, -1.5708, -1.8715),
    chain=(
        Frame((0.0, 0.0, 0.1625), (0.0, 0.0, 0.0, 1.0)),  # ROS's base_link: x points to where the arm stretches at zero
        Frame((0.0, 0.0, 0.0), _TURN),
        Frame((-0.425, 0.0, 0.0)),
        Frame((-0.3922, 0.0, 0.1333)),
        Frame((0.0, -0.0997, 0.0), _TURN),
        Frame((0.0, 0.0996, 0.0), _BACK),
    ),
    tool=Frame((0.0, 0.0, 0.1558)),  # between the finger pads
    workspace_low=(-0.85, -0.85, 0.01),
    workspace_high=(0.85, 0.85, 1.1),
    servo_dt=0.002,
    gripper=Gripper("gripper", ("left_finger", "right_finger"), 0.0, 0.0425, "m", width=0.085, velocity=0.425),
)  # fmt: skip

SO101 = RobotSpec(
    name="so101",
    joints=("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"),
    position_low=(-1.9198621772, -1.7453292520, -1.69, -1.6580628495, -2.7438472970),
    position_high=(1.9198621772, 1.7453292520, 1.69, 1.6580627293, 2.8412063094),
    velocity=(4.7,) * 5,
    acceleration=(10.0,) * 5,
    jerk=(1000.0,) * 5,
    effort=(2.94,) * 5,
    home=(-0.0371, -0.2793, 0.3024, 1.5476, -1.5592),
    chain=(
        Frame((0.0388353, 0.0, 0.0624), (0.0, 0.0, 1.0, 0.0)),
        Frame((-0.0303992, -0.0182778, -0.0542), (0.5, -0.5, -0.5, -0.5)),
        Frame((-0.11257, -0.028, 0.0), (_H, 0.0, 0.0, _H)),
        Frame((-0.1349, 0.0052, 0.0), (_H, 0.0, 0.0, -_H)),
        Frame(
            (0.0, -0.0611, 0.0181), (0.01720910298063466, -0.01720910298063466, 0.7068973382143987, 0.7068973382143987)
        ),
    ),
    tool=Frame((0.0058, 0.0, -0.0935), (0.0, _H, _H, 0.0)),  # between the fingertips around an object of 27.5 mm
    workspace_low=(-0.4, -0.4, 0.005),
    workspace_high=(0.45, 0.4, 0.45),
    servo_dt=0.01,
    gripper=Gripper("gripper", ("gripper",), closed=-0.17, open=0.9, unit="rad", width=0.069, velocity=4.7),
)

XARM7 = RobotSpec(
    name="xarm7",
    joints=tuple(f"joint{i}" for i in range(1, 8)),
    position_low=(-2 * math.pi, -2.059, -2 * math.pi, -0.19198, -2 * math.pi, -1.69297, -2 * math.pi),
    position_high=(2 * math.pi, 2.0944, 2 * math.pi, 3.927, 2 * math.pi, math.pi, 2 * math.pi),
    velocity=(3.14,) * 7,
    acceleration=(10.0,) * 7,
    jerk=(1000.0,) * 7,
    effort=(50.0, 50.0, 30.0, 30.0, 30.0, 20.0, 20.0),
    home=(0.0, -0.4385, 0.0, 0.9509, 0.0, 1.3894, 0.0),
    chain=(
        Frame((0.0, 0.0, 0.267)),
        Frame((0.0, 0.0, 0.0), _BACK),
        Frame((0.0, -0.293, 0.0), _TURN),
        Frame((0.0525, 0.0, 0.0), _TURN),
        Frame((0.0775, -0.3425, 0.0), _TURN),
        Frame((0.0, 0.0, 0.0), _TURN),
        Frame((0.076, 0.097, 0.0), _BACK),
    ),
    tool=Frame((0.0, 0.0, 0.172)),
    workspace_low=(-0.7, -0.7, 0.01),
    workspace_high=(0.7, 0.7, 1.0),
    servo_dt=0.005,  # the controller takes up to 250 commands a second
    gripper=Gripper("gripper", ("left_finger", "right_finger"), 0.0, 0.0425, "m", width=0.085, velocity=0.425),
)

VX300S = RobotSpec(
    name="vx300s",
    joints=("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate"),
    position_low=(-_PI, math.radians(-106), math.radians(-101), -_PI, math.radians(-107), -_PI),
    position_high=(_PI, math.radians(72), math.radians(92), _PI, math.radians(128), _PI),
    velocity=(math.pi,) * 6,
    acceleration=(10.0,) * 6,
    jerk=(1000.0,) * 6,
    effort=(10.0, 20.0, 15.0, 2.0, 5.0, 1.0),
    home=(0.0, -0.1788, 0.3662, 0.0, 1.3833, 0.0),
    chain=(  # the vendor's links have x along the arm; here z is the joint's axis
        Frame((0.0, 0.0, 0.079)),
        Frame((0.0, 0.0, 0.04805), _BACK),
        Frame((0.05955, -0.3, 0.0)),
        Frame((0.2, 0.0, 0.0), (_H, 0.0, _H, 0.0)),
        Frame((0.0, 0.0, 0.1), (_H, 0.0, -_H, 0.0)),
        Frame((0.069744, 0.0, 0.0), (_H, 0.0, _H, 0.0)),
    ),
    tool=Frame((0.0, 0.0, 0.1072), (_H, 0.0, 0.0, -_H)),  # the vendor's ee_gripper_link
    workspace_low=(-0.65, -0.65, 0.01),
    workspace_high=(0.65, 0.65, 0.8),
    servo_dt=0.01,
    gripper=Gripper("gripper", ("left_finger", "right_finger"), 0.0, 0.036, "m", width=0.072, velocity=0.13),
)

ROBOTS: dict[str, RobotSpec] = {robot.name: robot for robot in (FR3, UR5E, XARM7, SO101, VX300S)}


def robot_spec(name: str) -> RobotSpec:
    """The arm of that name.

    Raises:
        UsageError: no such arm, with the ones there are.
    """
    if name not in ROBOTS:
        raise unknown_name("robot", name, ROBOTS)
    return ROBOTS[name]
