"""Our mesh-free FR3 against the published model; tests/data/fr3_reference_poses.json says where that comes from."""

import json
import re
from importlib.resources import files
from pathlib import Path

import mujoco
import numpy as np
import pytest

from poise.sim.dynamics import Dynamics
from poise.sim.randomization import Randomization, Term
from poise.sim.tasks.reach import Reach

ASSETS = Path(str(files("poise") / "sim" / "assets"))
REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "fr3_reference_poses.json").read_text())
ARM = [f"fr3_joint{i}" for i in range(1, 8)]


@pytest.fixture(scope="module")
def fr3() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_path(str(ASSETS / "fr3.xml"))


@pytest.fixture(scope="module")
def reach() -> mujoco.MjModel:
    return over_a_floor().compile()


def over_a_floor() -> mujoco.MjSpec:
    """The arm with its fingers, stepped as `reach/fr3` steps it."""
    spec = mujoco.MjSpec.from_file(str(ASSETS / "fr3.xml"))
    spec.option.timestep = 0.005
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3, 3, 0.1])
    return spec


def at_home(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key("home").id)
    mujoco.mj_forward(model, data)
    return data


def rotation(quat_wxyz) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quat_wxyz, dtype=float))
    return matrix.reshape(3, 3)


def touching(model: mujoco.MjModel, data: mujoco.MjData) -> list[tuple[str, str]]:
    return [(model.geom(c.geom1).name, model.geom(c.geom2).name) for c in data.contact]


def test_the_tool_is_where_the_published_model_puts_it(fr3):
    data = at_home(fr3)
    assert len(REFERENCE["poses"]) >= 50
    for pose in REFERENCE["poses"]:
        data.qpos[:7] = pose["joint_pos"]
        mujoco.mj_kinematics(fr3, data)
        tool = data.site("tool")
        np.testing.assert_allclose(tool.xpos, pose["position"], atol=1e-4)
        np.testing.assert_allclose(tool.xmat.reshape(3, 3), rotation(pose["quat_wxyz"]), atol=1e-4)


@pytest.mark.parametrize("name", REFERENCE["bodies"])
def test_every_body_has_the_published_mass_and_inertia(fr3, name):
    body, published = fr3.body(name), REFERENCE["bodies"][name]
    axes = rotation(body.iquat)
    inertia = axes @ np.diag(body.inertia) @ axes.T  # (3, 3), about the centre of mass, in the link's frame
    np.testing.assert_allclose(body.mass, published["mass"], rtol=1e-3)
    np.testing.assert_allclose(body.ipos, published["com"], atol=1e-5)
    np.testing.assert_allclose(inertia, published["inertia"], rtol=1e-3, atol=1e-5 * np.max(published["inertia"]))


@pytest.mark.parametrize("name", ARM)
def test_joint_and_actuator_limits_are_the_published_ones(fr3, name):
    joint, published = fr3.joint(name), REFERENCE["limits"][name]
    np.testing.assert_allclose(joint.range, published["position"])
    np.testing.assert_allclose(fr3.jnt_actfrcrange[joint.id], [-published["effort"], published["effort"]])
    low, high = published["position"]
    wider = 0.05 * (high - low)  # commands lead (sim/lead.py)
    np.testing.assert_allclose(fr3.actuator(name).ctrlrange, [low - wider, high + wider])


def test_its_controller_carries_the_weight_of_the_model_s_masses_and_of_no_others(fr3):
    data = at_home(fr3)
    mujoco.mj_passive(fr3, data)
    np.testing.assert_allclose(data.qfrc_gravcomp, data.qfrc_bias, atol=1e-9)  # at rest: gravity alone
    dynamics = Dynamics(fr3, Randomization((Term("mass", "link_mass", "fr3_link*", range=(0.5, 2.0)),)))
    drawn = np.random.default_rng(0).uniform(0.5, 2.0, (3, dynamics.sizes["mass"]))
    fields = dynamics.fields({"mass": drawn})
    assert not np.allclose(fields["body_mass"], fr3.body_mass)
    np.testing.assert_allclose(fields["body_gravcomp"] * fields["body_mass"], np.tile(fr3.body_mass, (3, 1)))


def test_the_gripper_opens_to_eight_centimetres(fr3):
    np.testing.assert_allclose(fr3.actuator("gripper").ctrlrange, [0, 0.04])
    data = at_home(fr3)
    data.ctrl[fr3.actuator("gripper").id] = 0.01
    mujoco.mj_step(fr3, data, 1000)
    np.testing.assert_allclose(data.joint("finger_joint1").qpos, 0.01, atol=1e-3)
    np.testing.assert_allclose(data.joint("finger_joint2").qpos, data.joint("finger_joint1").qpos, atol=1e-5)


def test_neither_model_needs_a_mesh(fr3, reach):
    assert fr3.nmesh == reach.nmesh == 0
    assert not re.search(r"<mesh|mesh=", (ASSETS / "fr3.xml").read_text())


def test_nothing_touches_at_home_or_around_it(reach):
    data = at_home(reach)
    assert touching(reach, data) == []
    home, rng = data.qpos[:7].copy(), np.random.default_rng(0)
    for _ in range(200):
        data.qpos[:7] = home + rng.uniform(-0.3, 0.3, 7)
        mujoco.mj_forward(reach, data)
        assert touching(reach, data) == [], f"at {data.qpos[:7]}"


def test_an_arm_folded_onto_itself_and_one_in_the_floor_do_touch(reach):
    data = at_home(reach)
    data.qpos[:7] = [0, 1.7, 0, -1.0, 0, 2.0, 0]
    mujoco.mj_forward(reach, data)
    assert any("floor" in pair for pair in touching(reach, data))
    data.qpos[:7] = [0, -1.0, 0, -3.0, 0, 0.6, 0]
    mujoco.mj_forward(reach, data)
    assert any("floor" not in pair for pair in touching(reach, data))


def test_the_arm_holds_home_against_gravity_for_a_second(reach):
    data = at_home(reach)
    home = data.qpos[:7].copy()
    while data.time < 1.0:
        mujoco.mj_step(reach, data)
        np.testing.assert_allclose(data.qpos[:7], home, atol=0.03)


def test_a_joint_at_its_torque_limit_does_not_chatter(reach):
    data = at_home(reach)
    data.ctrl[:7] += 0.1  # 0.1 rad x 2000 Nm/rad is far beyond 12 Nm
    velocity = []
    for _ in range(60):
        mujoco.mj_step(reach, data)
        velocity.append(data.qvel[:7].copy())
    assert np.all(np.abs(data.qfrc_actuator[:7]) <= reach.jnt_actfrcrange[:7, 1] + 1e-9)
    assert np.min(velocity) > -0.05  # a chattering wrist swings by 0.4 rad/s either way
    np.testing.assert_allclose(data.qpos[:7], data.ctrl[:7], atol=0.02)


def test_dropping_what_is_only_seen_leaves_the_motion_as_it_was(reach):
    spec = over_a_floor()
    spec.compiler.discardvisual = True
    lean = spec.compile()
    assert lean.ngeom < reach.ngeom / 2
    ends = []
    for model in (reach, lean):
        data = at_home(model)
        data.ctrl[:7] += 0.2
        mujoco.mj_step(model, data, 100)
        ends.append(data.qpos.copy())
    np.testing.assert_array_equal(*ends)


def test_the_reach_scene_has_what_a_task_and_its_videos_need():
    reach = Reach().model().compile()
    assert reach.opt.timestep == 0.005
    assert reach.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    assert (reach.vis.global_.offwidth, reach.vis.global_.offheight) == (640, 480)
    assert reach.vis.quality.shadowsize == 0
    assert reach.camera("front").id >= 0
    np.testing.assert_allclose(reach.site("target").size[0], 0.02)
