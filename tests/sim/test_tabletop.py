"""push, lift and pick-place: what they show, reward and call a success, and where things lie."""

import re

import mujoco
import numpy as np
import pytest

from poise.errors import UsageError
from poise.kinematics import forward_kinematics
from poise.sim.arm_file import ASSETS
from poise.sim.make import load_task, make
from poise.sim.task import Key, State
from poise.sim.tasks import lift, pick_place, push
from poise.sim.tasks.tabletop import DOWNWARD, SUCCESS_STEPS
from tests.conformance import check_vec_env

PUSH, LIFT, PICK = push.Push(), lift.Lift(), pick_place.PickPlace()
KEY = Key(0, np.arange(400), np.zeros(400, int))


def pose(task, cube, fingers=0.04, tool=None):
    """A State of one world with the cube's centre at `cube`, the tool said to be at `tool`."""
    qpos = np.concatenate([task.start_pose, np.full(2 if task.grips else 0, fingers), cube, [1.0, 0, 0, 0]])[None]
    memory = {"tool_pos": np.array([cube if tool is None else tool]), "held": np.zeros(1, int)}
    if task.has_goal:
        memory["target_pos"] = np.array([[0.6, 0.0, 0.02]])
    return State(np.zeros(1), qpos, np.zeros((1, qpos.shape[1] - 1)), {"arm": qpos[:, :7]}, {}, memory)


@pytest.mark.parametrize("name", ["push/fr3", "lift/fr3", "pick-place/fr3"])
def test_the_contract_of_a_vec_env_holds(name):
    check_vec_env(lambda n: make(name, n, randomize="default", threads=1), longest=40)


@pytest.mark.parametrize(("task", "nq"), [(PUSH, 7 + 7), (LIFT, 7 + 2 + 7)])
def test_fingers_have_joints_where_something_is_gripped(task, nq):
    model = task.model().compile()
    assert model.nq == nq and [model.actuator(i).name for i in range(7)] == list(task.robot.joints)
    np.testing.assert_array_equal(model.jnt_qposadr[:7], np.arange(7))
    assert model.joint("object").qposadr[0] == nq - 7


def test_rigid_fingers_are_closed():
    model = PUSH.model().compile()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    tips = [data.geom(f"{side}_finger_tip").xpos for side in ("left", "right")]
    assert np.linalg.norm(tips[0] - tips[1]) < 2 * 0.0076 + 1e-3  # two boxes of that half width, side by side


@pytest.mark.parametrize("task", [PUSH, LIFT, PICK])
def test_episodes_start_at_rest_above_the_table_with_the_cube_on_it(task):
    qpos, qvel, memory = task.reset(KEY, {})
    assert not qvel.any() and memory["tool_pos"][:, 2].min() > task.bench.tip + 2 * task.bench.half
    cube = task.cube(qpos)
    np.testing.assert_allclose(cube[:, 2], task.bench.half)
    module = push if task is PUSH else lift
    low, high = (task.place(np.array([*corner, 0.0]))[:2] for corner in (module.CUBE_LOW, module.CUBE_HIGH))
    assert (cube[:, :2] >= low).all() and (cube[:, :2] <= high).all()
    assert (np.ptp(cube[:, :2], axis=0) > 0.95 * (high - low)).all()
    _, rotation = forward_kinematics(task.robot, task.start_pose)
    np.testing.assert_allclose(rotation, DOWNWARD, atol=1e-4)


def test_the_cube_stays_where_it_was_put_until_something_touches_it():
    env = make("lift/fr3", 4, threads=1)
    env.reset(0)
    before = env.task.cube(env.state.qpos).copy()
    for _ in range(20):
        env.step(np_zeros(env))
    np.testing.assert_allclose(env.task.cube(env.state.qpos), before, atol=1e-3)


def np_zeros(env):
    import torch

    return torch.zeros(env.num_envs, env.spec.action_dim)


def test_push_rewards_the_documented_formula():
    action = np.full((1, 7), 0.5)
    state = pose(PUSH, (0.5, 0.0, 0.02), tool=(0.46, 0.03, 0.02))  # the place to push from is (.46, 0, .02)
    wanted = 0.5 * (1 - np.tanh(8 * 0.03)) + 1 - np.tanh(6 * 0.1) + np.exp(-((0.1 / 0.03) ** 2)) - 0.01 * 7 * 0.25
    assert PUSH.reward(state, action)[0] == pytest.approx(wanted, rel=1e-12)
    there = pose(PUSH, (0.6, 0.02, 0.02), tool=(0.3, 0.0, 0.5))  # on the mark, wherever the tool is
    wanted = 0.5 + 1 - np.tanh(6 * 0.02) + np.exp(-((0.02 / 0.03) ** 2)) - 0.01 * 7 * 0.25
    assert PUSH.reward(there, action)[0] == pytest.approx(wanted, rel=1e-12)


def gripping(apart, closed):
    """The documented r of `gripping`, by hand."""
    n = np.exp(-((apart / 0.02) ** 2))
    return 0.5 * (1 - np.tanh(5 * apart)) + 0.25 * (1 - n) * (1 - closed) + n * (0.5 + 0.5 * closed), n


def test_lift_rewards_the_documented_formula():
    action = np.full((1, 8), 0.5)
    for height, fingers, apart in ((0.0, 0.04, 0.0), (0.0, 0.03, 0.01), (0.06, 0.02, 0.02), (0.11, 0.018, 0.0)):
        state = pose(LIFT, (0.5, 0.0, 0.02 + height), fingers, (0.5, apart, 0.02 + height))
        r, n = gripping(apart, min((0.04 - fingers) / 0.02, 1.0))
        wanted = r + n * 1.5 * min(height / 0.12, 1.0) + 0.5 * (height >= 0.1) - 0.01 * 8 * 0.25
        assert LIFT.reward(state, action)[0] == pytest.approx(wanted, rel=1e-9)


def test_pick_place_rewards_the_documented_formula():
    state = pose(PICK, (0.55, 0.0, 0.02), 0.03, (0.55, 0.01, 0.02))
    r, n = gripping(0.01, 0.5)
    wanted = r + n * 0.5 * (1 - np.tanh(5 * 0.05)) + np.exp(-((0.05 / 0.03) ** 2))
    assert PICK.reward(state, np.zeros((1, 8)))[0] == pytest.approx(wanted, rel=1e-9)


def test_a_grasp_pays_more_at_every_stage():
    """Over the cube: open before closed; down around it; closed around it; up."""

    def reward(up, fingers, cube_up=0.0):
        return LIFT.reward(pose(LIFT, (0.5, 0.0, 0.02 + cube_up), fingers, (0.5, 0.0, 0.02 + up)), np.zeros((1, 8)))[0]

    stages = [reward(0.1, 0.02), reward(0.1, 0.04), reward(0.03, 0.04), reward(0.01, 0.04), reward(0.0, 0.04),
              reward(0.0, 0.03), reward(0.0, 0.02), reward(0.02, 0.02, 0.02), reward(0.12, 0.02, 0.12)]  # fmt: skip
    assert (np.diff(stages) > 0).all()
    assert reward(0.03, 0.02) < reward(0.03, 0.04)  # half closed on top of it is no place to stay


@pytest.mark.parametrize(
    ("task", "inside", "outside"),
    [(PUSH, (0.6, 0.029, 0.02), (0.6, 0.031, 0.02)), (LIFT, (0.5, 0.0, 0.121), (0.5, 0.0, 0.119)),
     (PICK, (0.6, 0.0, 0.049), (0.6, 0.0, 0.051))],
)  # fmt: skip
def test_success_is_the_last_five_steps_at_the_goal(task, inside, outside):
    action = np.zeros((1, task.spec.action_dim))
    for cube, good in ((inside, True), (outside, False)):
        state = pose(task, cube)
        for step in range(1, SUCCESS_STEPS + 2):
            memory = task.advance(state, action)
            state = State(state.time, state.qpos, state.qvel, state.target, {}, memory)
            assert task.success(state)[0] == (good and step >= SUCCESS_STEPS)
            assert not task.terminated(state)[0]


def test_a_cube_that_flies_through_the_goal_is_no_success():
    state = pose(PICK, (0.6, 0.0, 0.02))
    state.qvel[0, -6] = 0.11
    assert PICK.advance(state, np.zeros((1, 8)))["held"][0] == 0


def test_what_is_observed_of_the_cube_agrees_with_mujoco():
    model = PICK.model().compile()
    data = mujoco.MjData(model)
    qpos, qvel, memory = PICK.reset(Key(3, np.arange(5), np.zeros(5, int)), {})
    quat = np.random.default_rng(0).normal(size=(5, 4))
    qpos[:, -4:] = quat / np.linalg.norm(quat, axis=1, keepdims=True)
    readings = PICK.observe(State(np.zeros(5), qpos, qvel, {"arm": qpos[:, :7]}, {}, memory))
    for i in range(5):
        data.qpos[:] = qpos[i]
        mujoco.mj_kinematics(model, data)
        tool, cube = data.site("tool"), data.body("object")
        np.testing.assert_allclose(readings["object_rot"][i], cube.xmat.reshape(3, 3)[:, :2].T.ravel(), atol=1e-12)
        np.testing.assert_allclose(readings["tool_rot"][i], tool.xmat.reshape(3, 3)[:, :2].T.ravel(), atol=1e-6)
        np.testing.assert_allclose(readings["object_from_tool"][i], cube.xpos - tool.xpos, atol=1e-6)
    np.testing.assert_allclose(readings["gripper_pos"], 0.04)


def test_with_a_camera_the_policy_is_not_told_where_the_cube_is():
    seen, told = load_task("lift/fr3?camera=front").spec, LIFT.spec
    assert seen.images == ("front",) and set(seen.slices("privileged")) == {
        "object_pos",
        "object_rot",
        "object_from_tool",
    }
    assert set(seen.slices()) | set(seen.slices("privileged")) == set(told.slices())
    with pytest.raises(UsageError, match="unknown camera 'font'; did you mean front"):
        load_task("lift/fr3?camera=font")


def test_the_camera_shows_cube_and_arm():
    env = make("lift/fr3?camera=front", 2, threads=1)
    picture = env.reset(0)["front"].numpy().astype(int)
    red = (picture[..., 0] > 120) & (picture[..., 1] < 90) & (picture[..., 2] < 70)
    assert picture.shape == (2, 84, 84, 3) and (red.sum(axis=(1, 2)) > 15).all()
    env.close()


def test_another_file_of_the_arm_must_have_as_many_finger_joints(tmp_path):
    text = (ASSETS / "fr3.xml").read_text().replace('<joint name="finger_joint2"/>', "")
    text = re.sub(
        r'<equality>.*?</equality>|<joint joint="finger_joint2" coef="0.5"/>|<keyframe>.*?</keyframe>',
        "",
        text,
        flags=re.S,
    )
    path = tmp_path / "one_finger.xml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"one_finger.xml .* finger_joint1, finger_joint2; it has finger_joint1"):
        load_task(f"lift/fr3?mjcf={path}").model()
    assert load_task(f"push/fr3?mjcf={path}").model().compile().nq == 7 + 7


@pytest.mark.parametrize("name", ["push/fr3", "lift/fr3", "pick-place/fr3"])
def test_a_sparse_reward_is_one_where_the_step_is_a_success_and_nothing_else(name):
    task = load_task(f"{name}?reward=sparse")
    assert task.name == f"{name}?reward=sparse" and task.spec == load_task(name).spec
    state = pose(task, [0.5, 0.0, 0.15])
    for held, expected in ((0, 0.0), (SUCCESS_STEPS - 1, 0.0), (SUCCESS_STEPS, 1.0), (SUCCESS_STEPS + 9, 1.0)):
        state.memory["held"][:] = held
        assert task.reward(state, np.full((1, task.spec.action_dim), 0.5)).tolist() == [expected]


def test_a_reward_of_another_name_is_refused():
    with pytest.raises(UsageError, match=r"unknown reward 'sparce'.*sparse"):
        load_task("lift/fr3?reward=sparce")
