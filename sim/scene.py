"""Scenes: an arm on a table, in primitive shapes without shadows, composed with MjSpec.

    scene = arm_scene(robot)            the arm of sim/assets/<robot>.xml, the table (the plane z = 0), light, cameras
    close_fingers(scene, robot)         where nothing is gripped: the fingers become rigid, since joints cost time
    add_cube(scene, half=0.02, …)       a free body `object` at the end of qpos

Whatever else a task needs, it adds to the MjSpec that it gets. qpos is the arm's joints, the fingers' joints, then
free bodies. Pictures of such a scene cost a fraction of a millisecond on a CPU (sim/cameras.py).
"""

from __future__ import annotations

import mujoco
import numpy as np

from ..robots import RobotSpec
from .arm_file import read_arm

_SETTLE = 1.0  # [s] until closing fingers stand still


def arm_scene(robot: RobotSpec, mjcf: str | None = None) -> mujoco.MjSpec:
    """The arm at the origin of a table, never compiled.

    mjcf: another model file of the same arm, see sim/arm_file.py.
    """
    scene = read_arm(robot, mjcf, gripper=True)
    for key in list(scene.keys):  # their qpos would not fit once objects are added
        scene.delete(key)
    scene.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    scene.stat.center, scene.stat.extent = (0.4, 0.0, 0.3), 1.0
    visual = scene.visual
    visual.global_.offwidth, visual.global_.offheight = 640, 480
    visual.quality.shadowsize, visual.quality.offsamples = 0, 0
    visual.map.znear, visual.map.zfar = 0.05, 10.0
    visual.headlight.ambient, visual.headlight.diffuse = (0.45, 0.45, 0.45), (0.35, 0.35, 0.35)
    visual.headlight.specular = (0.1, 0.1, 0.1)
    scene.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
                      rgb1=(0.80, 0.86, 0.92), rgb2=(0.97, 0.98, 0.99), width=64, height=384)  # fmt: skip
    world = scene.worldbody
    world.add_geom(name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1.5, 1.5, 0.1), rgba=(0.62, 0.66, 0.70, 1.0))
    world.add_light(name="key", type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, pos=(1.0, -1.0, 3.0),
                    dir=(-0.4, 0.5, -1.0), diffuse=(0.4, 0.4, 0.4), castshadow=False)  # fmt: skip
    return scene


def add_camera(scene: mujoco.MjSpec, name: str, position: tuple[float, float, float],
               target: tuple[float, float, float], fovy: float = 45.0) -> None:  # fmt: skip
    """A camera at `position` [m] looking at `target` [m], upright; fovy: its vertical angle of view [degrees]."""
    back = np.subtract(position, target)
    back = back / np.linalg.norm(back)
    right = np.cross((0.0, 0.0, 1.0), back)
    right = right / np.linalg.norm(right)
    rotation, quat = np.stack([right, np.cross(back, right), back], axis=1), np.empty(4)
    mujoco.mju_mat2Quat(quat, rotation.ravel())
    scene.worldbody.add_camera(name=name, pos=position, quat=quat, fovy=fovy)


def add_cube(scene: mujoco.MjSpec, half: float, mass: float, friction: float) -> None:
    """A free cube named `object`, of half edge `half` [m]; its friction decides at all its contacts (priority 1)."""
    body = scene.worldbody.add_body(name="object", pos=(0.5, 0.0, half))
    body.add_freejoint(name="object")
    body.add_geom(name="object", type=mujoco.mjtGeom.mjGEOM_BOX, size=(half,) * 3, mass=mass, priority=1,
                  friction=(friction, 0.005, 0.0001), rgba=(0.90, 0.30, 0.15, 1.0))  # fmt: skip


def add_target(scene: mujoco.MjSpec, radius: float, flat: bool) -> None:
    """The site `target`, which the renderer moves to the goal and physics never reads: a disc or a ball."""
    kind = mujoco.mjtGeom.mjGEOM_CYLINDER if flat else mujoco.mjtGeom.mjGEOM_SPHERE
    scene.worldbody.add_site(name="target", type=kind, size=(radius, 0.001, 0.001), pos=(0.6, 0.0, 0.001),
                             rgba=(0.10, 0.65, 0.25, 0.7))  # fmt: skip


def close_fingers(scene: mujoco.MjSpec, robot: RobotSpec, width: float = 0.0) -> None:
    """Make the gripper rigid, as it stands when its command has closed it, or left `width` [m] between the fingers.

    Its fingers are closed in a simulation without gravity, whatever linkage drives them; their bodies then keep
    those poses, and their joints, tendons, equalities and actuator go.
    """
    fingers = [joint for joint in scene.joints if joint.name not in robot.joints]
    if not fingers:
        return
    model = scene.copy().compile()
    model.opt.gravity[:] = 0.0
    data = mujoco.MjData(model)
    data.qpos[: robot.num_joints] = robot.home
    for name, position in zip(robot.joints, robot.home, strict=True):
        data.actuator(name).ctrl = position
    if robot.gripper is not None:
        gripper = robot.gripper
        opening = width / gripper.width
        data.actuator(gripper.actuator).ctrl = gripper.closed + opening * (gripper.open - gripper.closed)
    for _ in range(round(_SETTLE / model.opt.timestep)):
        mujoco.mj_step(model, data)
    for body in {joint.parent.name: joint.parent for joint in fingers}.values():
        body.pos, body.quat = _relative(data, body.name, model.body(model.body(body.name).parentid[0]).name)
    for elements in (scene.equalities, scene.tendons):
        for element in list(elements):
            scene.delete(element)
    for actuator in [a for a in scene.actuators if a.name not in robot.joints]:
        scene.delete(actuator)
    for joint in fingers:
        scene.delete(joint)


def _relative(data: mujoco.MjData, body: str, parent: str) -> tuple[np.ndarray, np.ndarray]:
    """Pose of a body in its parent's frame: position and quaternion."""
    back, back_pos = np.empty(4), np.empty(3)
    mujoco.mju_negPose(back_pos, back, data.body(parent).xpos, data.body(parent).xquat)
    pos, quat = np.empty(3), np.empty(4)
    mujoco.mju_mulPose(pos, quat, back_pos, back, data.body(body).xpos, data.body(body).xquat)
    return pos, quat
