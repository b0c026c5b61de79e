"""arm_file: the model of an arm, Poise's own or anybody's, as a MjSpec that drives and moves as its RobotSpec says.

    read_arm(UR5E)                       sim/assets/ur5e.xml
    read_arm(UR5E, "my_ur5e.xml")        a prettier one, checked

Another file may look as it likes, and have its own masses, gains and grippers. What it must share with the RobotSpec:
the joints' names, a position servo for each, the base at the origin, and every joint's axis to TOLERANCE. A servo of
another name gets its joint's; a site `tool` is added where there is none.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np

from ..errors import UsageError, unknown_name
from ..keyed import Stream
from ..kinematics import forward_kinematics, rotation_matrix
from ..robots import Frame, RobotSpec

ASSETS = Path(__file__).parent / "assets"
TOLERANCE = 0.002  # [m] between two models of one arm: of an axis at home, and of the tool anywhere
_TURN = 0.01  # [rad] between two directions of one axis
_POSES = 20  # random joint positions, besides home
_BASE = "the base must stand at the origin, turned as docs/arms.md says"


def read_arm(robot: RobotSpec, mjcf: str | None = None, gripper: bool = False) -> mujoco.MjSpec:
    """The arm's description, never compiled.

    mjcf: another file of the same arm. Floors and lights of its world are left out: scenes bring their own.
    gripper: whether its gripper must be the RobotSpec's too, as where a policy moves it.

    Raises:
        UsageError: MuJoCo cannot read or compile the file, or it is another arm, with what differs.
    """
    if not mjcf:
        return mujoco.MjSpec.from_file(str(ASSETS / f"{robot.name}.xml"))
    spec = _read(mjcf)
    for elements in (spec.worldbody.geoms, spec.worldbody.lights):
        for element in list(elements):
            spec.delete(element)
    _check_joints(mjcf, robot, spec)
    model = _compiled(mjcf, spec)
    if gripper:
        _check_gripper(mjcf, robot, model)
    _check_axes(mjcf, robot, model)
    if not any(site.name == "tool" for site in spec.sites):
        _add_tool(robot, spec, model)
        model = _compiled(mjcf, spec)
    _check_tool(mjcf, robot, model)
    return spec


def hold_gripper(robot: RobotSpec, arm: mujoco.MjSpec) -> None:
    """Make the hand rigid as the file draws it: all joints but the arm's go, and what drives and binds them."""
    for kind in (arm.keys, arm.equalities, arm.tendons, arm.sensors):  # they concern the fingers
        for element in list(kind):
            arm.delete(element)
    for driven in (arm.actuators, arm.joints):
        for element in [e for e in driven if e.name not in robot.joints]:
            arm.delete(element)


# ---- reading -----------------------------------------------------------------------------------


def _read(mjcf: str) -> mujoco.MjSpec:
    if not Path(mjcf).is_file():
        raise UsageError(f"there is no file {mjcf}")
    try:
        return mujoco.MjSpec.from_file(mjcf)
    except (ValueError, mujoco.FatalError) as error:
        raise UsageError(f"MuJoCo cannot read {mjcf}: {_one_line(error)}") from None


def _compiled(mjcf: str, spec: mujoco.MjSpec) -> mujoco.MjModel:
    try:
        return spec.copy().compile()
    except (ValueError, mujoco.FatalError) as error:
        raise UsageError(f"MuJoCo cannot compile {mjcf}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


# ---- what must be the same ---------------------------------------------------------------------


def _check_joints(mjcf: str, robot: RobotSpec, spec: mujoco.MjSpec) -> None:
    """Every joint is there and has a servo, which from here on bears its name."""
    joints = [joint.name for joint in spec.joints]
    for name in robot.joints:
        if name not in joints:
            raise unknown_name(f"joint of {robot.name} in {mjcf}:", name, joints)
    if not joints[: robot.num_joints] == list(robot.joints):
        raise UsageError(f"{mjcf}: the joints of {robot.name} must come first, in the order {', '.join(robot.joints)}; "
                         f"it has {', '.join(joints)}")  # fmt: skip
    for name in robot.joints:
        servos = [a for a in spec.actuators if a.trntype == mujoco.mjtTrn.mjTRN_JOINT and a.target == name]
        if len(servos) != 1:
            raise UsageError(f"{mjcf}: joint {name} needs one actuator, and {len(servos) or 'none'} drive it")
        servos[0].name = name
        if not (servos[0].gainprm[0] > 0 and np.isclose(servos[0].biasprm[1], -servos[0].gainprm[0])):
            raise UsageError(f"{mjcf}: the actuator of {name} is no position servo: Poise commands joint positions, "
                             "so use <position> (a <general> one with biasprm[1] = -gainprm[0])")  # fmt: skip


def _check_gripper(mjcf: str, robot: RobotSpec, model: mujoco.MjModel) -> None:
    """The gripper's actuator is there, and takes the commands that the RobotSpec names."""
    if (wanted := robot.gripper) is None:
        return
    names = [model.actuator(i).name for i in range(model.nu)]
    if wanted.actuator not in names:
        raise unknown_name(f"actuator of {robot.name}'s gripper in {mjcf}:", wanted.actuator, names)
    (low, high), ends = model.actuator(wanted.actuator).ctrlrange, sorted((wanted.closed, wanted.open))
    if not low - 1e-6 <= ends[0] < ends[1] <= high + 1e-6:
        raise UsageError(f"{mjcf}: the commands of {wanted.actuator} should run from {ends[0]:g} to {ends[1]:g} "
                         f"{wanted.unit}, and run from {low:g} to {high:g}")  # fmt: skip


def _check_axes(mjcf: str, robot: RobotSpec, model: mujoco.MjModel) -> None:
    """At home, every joint turns about the axis that the RobotSpec says."""
    data = _posed(robot, model, np.array(robot.home))
    for i, name in enumerate(robot.joints):
        joint = model.joint(name).id
        if model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_HINGE:
            raise UsageError(f"{mjcf}: joint {name} of {robot.name} is no hinge")
        upto = replace(robot, joints=robot.joints[: i + 1], chain=robot.chain[: i + 1], tool=Frame((0.0, 0.0, 0.0)))
        origin, rotation = forward_kinematics(upto, np.array(robot.home[: i + 1]))
        axis, away = rotation[:, 2], data.xanchor[joint] - origin
        angle = np.arccos(np.clip(axis @ data.xaxis[joint], -1.0, 1.0))
        distance = np.linalg.norm(away - (away @ axis) * axis)
        if angle > _TURN:
            raise UsageError(f"{mjcf} is not {robot.name} as Poise knows it: at home, the axis of {name} points "
                             f"{np.degrees(angle):.1f} degrees away from where it should ({_BASE})")  # fmt: skip
        if distance > TOLERANCE:
            raise UsageError(f"{mjcf} is not {robot.name} as Poise knows it: at home, the axis of {name} passes "
                             f"{1e3 * distance:.1f} mm from where it should ({_BASE})")  # fmt: skip


def _check_tool(mjcf: str, robot: RobotSpec, model: mujoco.MjModel) -> None:
    """The site `tool` is where forward kinematics says, at home and anywhere."""
    u = Stream(0, "arm_file").uniform(np.arange(_POSES), 0, robot.num_joints)
    low, high = np.array(robot.position_low), np.array(robot.position_high)
    for q in [np.array(robot.home), *(low + (high - low) * u)]:
        there = _posed(robot, model, q).site("tool").xpos
        wanted, _ = forward_kinematics(robot, q)
        if (distance := np.linalg.norm(there - wanted)) > TOLERANCE:
            raise UsageError(f"{mjcf} is not {robot.name} as Poise knows it: with the joints at {np.round(q, 3)} its "
                             f"tool is {1e3 * distance:.1f} mm from {np.round(wanted, 4)} m")  # fmt: skip


def _add_tool(robot: RobotSpec, spec: mujoco.MjSpec, model: mujoco.MjModel) -> None:
    """A site `tool` on the body that the last joint moves."""
    home = np.array(robot.home)
    body = model.joint(robot.joints[-1]).bodyid[0]
    data = _posed(robot, model, home)
    position, rotation = forward_kinematics(robot, home)
    frame = rotation_matrix(data.xquat[body])  # body into world
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, (frame.T @ rotation).ravel())
    spec.body(model.body(body).name).add_site(name="tool", pos=frame.T @ (position - data.xpos[body]), quat=quat)


def _posed(robot: RobotSpec, model: mujoco.MjModel, q: np.ndarray) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[: robot.num_joints] = q
    mujoco.mj_kinematics(model, data)
    return data
