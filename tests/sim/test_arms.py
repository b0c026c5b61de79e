"""Every arm's mesh-free MJCF against its RobotSpec, its sources, and what an arm has to do: hold, grasp, lift.

tests/data/arm_reference.json says what the sources are; the FR3 has its own, in test_fr3.py.
"""

import json
import re
from importlib.resources import files
from pathlib import Path

import mujoco
import numpy as np
import pytest

from poise.kinematics import forward_kinematics
from poise.robots import ROBOTS, RobotSpec

ASSETS = Path(str(files("poise") / "sim" / "assets"))
REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "arm_reference.json").read_text())
ALL = pytest.mark.parametrize("robot", ROBOTS.values(), ids=list(ROBOTS))
SOURCED = pytest.mark.parametrize("name", REFERENCE)
DT = 0.005  # [s] as the tasks step


def load(robot: RobotSpec, cube: float = 0.0) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """The arm at home over a floor, with a cube of half that edge [m] standing below the tool."""
    spec = mujoco.MjSpec.from_file(str(ASSETS / f"{robot.name}.xml"))
    spec.option.timestep = DT
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3, 3, 0.1])
    if cube:
        spec.delete(spec.keys[0])
        x, y, _ = forward_kinematics(robot, np.array(robot.home))[0]
        body = spec.worldbody.add_body(name="cube", pos=[x, y, cube])
        body.add_freejoint()
        body.add_geom(name="cube", type=mujoco.mjtGeom.mjGEOM_BOX, size=[cube] * 3, density=1000)
    model = spec.compile()
    data = mujoco.MjData(model)
    if not cube:
        mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
    mujoco.mj_forward(model, data)
    return model, data


def columns(model: mujoco.MjModel, robot: RobotSpec) -> list[int]:
    return [int(model.joint(j).qposadr[0]) for j in robot.joints]


def touching(model: mujoco.MjModel, data: mujoco.MjData) -> list[tuple[str, str]]:
    return [(model.geom(c.geom1).name, model.geom(c.geom2).name) for c in data.contact]


def fingertips(model: mujoco.MjModel) -> list[int]:
    tips = [i for i in range(model.ngeom) if model.geom(i).name.endswith("finger_tip")]
    assert len(tips) == 2
    return tips


# ---- the model is the RobotSpec ----------------------------------------------------------------


@ALL
def test_the_tool_of_the_model_is_the_tool_of_the_kinematics(robot):
    model, data = load(robot)
    q = np.random.default_rng(0).uniform(robot.position_low, robot.position_high, (50, robot.num_joints))
    position, rotation = forward_kinematics(robot, q)
    for i in range(len(q)):
        data.qpos[columns(model, robot)] = q[i]
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(data.site("tool").xpos, position[i], atol=1e-9)
        np.testing.assert_allclose(data.site("tool").xmat.reshape(3, 3), rotation[i], atol=1e-9)


@ALL
def test_every_joint_has_its_limits_and_a_servo_of_its_name(robot):
    model, _ = load(robot)
    for i, name in enumerate(robot.joints):
        joint, servo = model.joint(name), model.actuator(name)
        limits = [robot.position_low[i], robot.position_high[i]]
        np.testing.assert_allclose(joint.range, limits, atol=1e-9)
        wider = 0.05 * (limits[1] - limits[0]) if robot.feeds_forward else 0.0
        np.testing.assert_allclose(servo.ctrlrange, [limits[0] - wider, limits[1] + wider], atol=1e-9)
        np.testing.assert_allclose(model.jnt_actfrcrange[joint.id], [-robot.effort[i], robot.effort[i]])
        assert servo.trnid[0] == joint.id
    assert model.nu == robot.num_joints + 1 and columns(model, robot) == list(range(robot.num_joints))
    assert robot.gripper is not None
    low, high = model.actuator(robot.gripper.actuator).ctrlrange
    assert low - 1e-9 <= robot.gripper.closed < robot.gripper.open <= high + 1e-9
    for name in robot.gripper.joints:
        assert model.joint(name).id >= robot.num_joints


@ALL
def test_the_keyframe_is_the_home_pose_with_the_tool_pointing_down(robot):
    _, data = load(robot)
    np.testing.assert_allclose(data.qpos[: robot.num_joints], robot.home, atol=1e-12)
    np.testing.assert_allclose(data.ctrl[: robot.num_joints], robot.home, atol=1e-12)
    assert np.all(np.array(robot.position_low) < robot.home) and np.all(np.array(robot.home) < robot.position_high)
    position, rotation = forward_kinematics(robot, np.array(robot.home))
    assert np.all(position > robot.workspace_low) and np.all(position < robot.workspace_high)
    np.testing.assert_allclose(rotation, np.diag([1.0, -1.0, -1.0]), atol=1e-3)
    for name in ("velocity", "acceleration", "jerk", "effort", "chain"):
        assert len(getattr(robot, name)) == robot.num_joints


@ALL
def test_the_open_gripper_is_as_wide_as_it_says(robot):
    model, data = load(robot)
    first, second = fingertips(model)
    assert mujoco.mj_geomDistance(model, data, first, second, 1.0, None) == pytest.approx(robot.gripper.width, abs=2e-3)


def test_no_model_needs_a_mesh_and_every_source_is_named():
    for name in ROBOTS:
        text = (ASSETS / f"{name}.xml").read_text()
        assert not re.search(r"<mesh|mesh=|<texture", text)
        assert "https://github.com/" in text and re.search("Apache-2.0|BSD-[23]", text)


# ---- the model is the arm of its sources -------------------------------------------------------


@SOURCED
def test_the_last_link_is_where_the_source_puts_it(name):
    robot, reference = ROBOTS[name], REFERENCE[name]
    model, data = load(robot)
    assert len(reference["poses"]) >= 20
    for pose in reference["poses"]:
        data.qpos[columns(model, robot)] = pose["joint_pos"]
        mujoco.mj_kinematics(model, data)
        body = data.body(reference["body"])
        np.testing.assert_allclose(body.xpos, pose["position"], atol=1e-5)
        sign = np.sign(body.xquat @ pose["quat_wxyz"])
        np.testing.assert_allclose(sign * body.xquat, pose["quat_wxyz"], atol=1e-5)


@SOURCED
def test_every_link_has_the_mass_and_inertia_of_the_source(name):
    model, _ = load(ROBOTS[name])
    for body_name, published in REFERENCE[name]["bodies"].items():
        body, matrix = model.body(body_name), np.zeros(9)
        np.testing.assert_allclose(body.mass, published["mass"], rtol=1e-3)
        if "inertia" not in published:
            continue
        mujoco.mju_quat2Mat(matrix, body.iquat)
        axes = matrix.reshape(3, 3)
        inertia = axes @ np.diag(body.inertia) @ axes.T  # (3, 3), about the centre of mass, in the link's frame
        np.testing.assert_allclose(body.ipos, published["com"], atol=1e-5)
        np.testing.assert_allclose(inertia, published["inertia"], rtol=2e-3, atol=2e-3 * np.max(published["inertia"]))
    np.testing.assert_allclose(model.body_mass.sum(), REFERENCE[name]["mass"], rtol=0.01)


# ---- the model does what an arm does -----------------------------------------------------------


@ALL
def test_nothing_touches_at_home_or_around_it(robot):
    model, data = load(robot)
    assert touching(model, data) == []
    rng = np.random.default_rng(0)
    for _ in range(100):
        data.qpos[: robot.num_joints] = robot.home + rng.uniform(-0.15, 0.15, robot.num_joints)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        assert touching(model, data) == [], f"at {data.qpos}"


@ALL
def test_a_hand_in_the_floor_and_one_against_the_base_do_touch(robot):
    model, data = load(robot)
    found = set()
    rng = np.random.default_rng(0)
    low, high = np.maximum(robot.position_low, -np.pi), np.minimum(robot.position_high, np.pi)
    for _ in range(1500):
        data.qpos[: robot.num_joints] = rng.uniform(low, high)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_collision(model, data)
        found |= {"floor" if "floor" in pair else "self" for pair in touching(model, data)}
        if found == {"floor", "self"}:
            return
    raise AssertionError(f"only {found} in 1500 poses")


@ALL
def test_the_arm_holds_home_without_drift_or_chatter(robot):
    model, data = load(robot)
    sag = 0.005 if robot.effort[0] < 30 else 0.01
    for step in range(400):
        mujoco.mj_step(model, data)
        np.testing.assert_allclose(data.qpos[: robot.num_joints], robot.home, atol=sag)
        assert step < 200 or np.abs(data.qvel).max() < 2e-3
    assert touching(model, data) == []


@ALL
def test_a_joint_at_its_torque_limit_does_not_chatter(robot):
    model, data = load(robot)
    n = robot.num_joints
    data.ctrl[:n] += 0.1
    before, reversals = np.zeros(n), np.zeros(n)
    for _ in range(100):
        mujoco.mj_step(model, data)
        assert np.all(np.abs(data.qfrc_actuator[:n]) <= np.array(robot.effort) + 1e-9)
        reversals += (data.qvel[:n] * before < 0) & (np.abs(data.qvel[:n]) > 0.02)
        before = data.qvel[:n].copy()
    assert reversals.max() <= 2
    target = np.minimum(data.ctrl[:n], robot.position_high)
    np.testing.assert_allclose(data.qpos[:n], target, atol=0.02)


@ALL
def test_the_gripper_picks_up_a_cube_and_keeps_it(robot):
    half = 0.01375 if robot.name == "so101" else 0.02  # [m] half the cube's edge
    model, data = load(robot, half)
    gripper, n = robot.gripper, robot.num_joints
    joints, servo = [data.joint(name) for name in gripper.joints], model.actuator(gripper.actuator).id
    data.qpos[:n] = data.ctrl[:n] = robot.home
    data.ctrl[servo] = gripper.open
    for joint in joints:
        joint.qpos = gripper.open
    above = np.array(robot.home)
    low = tool_down(robot, above, half + 0.003)
    high = tool_down(robot, above, half + (0.06 if robot.name == "so101" else 0.15))
    follow(model, data, above, low, seconds=1.2)
    follow(model, data, low, low, seconds=0.3)
    data.ctrl[servo] = gripper.closed
    follow(model, data, low, low, seconds=0.6)
    tips = {model.geom(i).name for i in fingertips(model)}
    assert tips <= {name for pair in touching(model, data) if "cube" in pair for name in pair}
    follow(model, data, low, high, seconds=0.8)
    follow(model, data, high, high, seconds=0.8)
    cube = data.body("cube").xpos
    assert cube[2] > half + (0.045 if robot.name == "so101" else 0.13)
    assert np.linalg.norm(cube - data.site("tool").xpos) < 0.015
    data.ctrl[servo] = gripper.open
    follow(model, data, high, high, seconds=0.6)
    assert data.body("cube").xpos[2] < half + 0.01, "an open hand lets go"


def tool_down(robot: RobotSpec, q: np.ndarray, height: float) -> np.ndarray:
    """Joint positions with the tool at that height, elsewhere as at q: damped least squares on the kinematics."""
    position, rotation = forward_kinematics(robot, q)
    goal = np.array([position[0], position[1], height])
    for _ in range(100):
        here, turned = forward_kinematics(robot, q)
        ahead = [forward_kinematics(robot, q + step) for step in 1e-6 * np.eye(robot.num_joints)]
        jacobian = np.array([np.r_[p - here, axis((r - turned) @ turned.T)] for p, r in ahead]).T / 1e-6
        error = np.r_[goal - here, axis((rotation - turned) @ turned.T)]
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + 1e-6 * np.eye(6), error)
        q = q + np.clip(step, -0.1, 0.1)
    assert np.linalg.norm(error) < 1e-6 and np.all(np.array(robot.position_low) < q)
    assert np.all(q < robot.position_high)
    return q


def axis(spin: np.ndarray) -> np.ndarray:
    return 0.5 * np.array([spin[2, 1] - spin[1, 2], spin[0, 2] - spin[2, 0], spin[1, 0] - spin[0, 1]])


def follow(model: mujoco.MjModel, data: mujoco.MjData, start: np.ndarray, end: np.ndarray, seconds: float) -> None:
    steps = round(seconds / DT)
    for k in range(steps):
        s = (k + 1) / steps
        data.ctrl[: len(start)] = start + s * s * (3 - 2 * s) * (end - start)
        mujoco.mj_step(model, data)
