"""walk/quad: the model is what the task says of it, rewards are the formulas, it stands, falls, and its expert walks."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from conformance import check_vec_env
from poise.sim.experts.expert import expert
from poise.sim.experts.walk import joints_for
from poise.sim.make import make
from poise.sim.task import Key, State
from poise.sim.tasks.walk import (
    COMMAND_HIGH,
    GAIN,
    GAIN_DAMPING,
    HIPS,
    HOME,
    JOINTS,
    LEGS,
    LINK,
    OUT,
    TORQUE,
    Walk,
    foot_heights,
    knee_heights,
    sample_command,
    torques,
)

TASK = Walk()
STANDING = (0.0, 0.0, 0.27, 1.0, 0.0, 0.0, 0.0, *HOME)


def state(qpos=STANDING, qvel=(), target=HOME, time: float = 1.0, **memory) -> State:
    """One robot: standing at rest and told to stand, but for what is given."""
    given = {"command": np.zeros(3), "second": np.ones(3), "action": np.zeros(12), "joint_vel": np.zeros(12),
             "air": np.zeros(4), "strides": 0.0, "change": 0.0, "acceleration": 0.0, "error": 1.0}  # fmt: skip
    rows = {name: np.array([memory.get(name, value)], float) for name, value in given.items()}
    speed = np.zeros((1, 18))
    speed[0, : len(qvel)] = qvel
    return State(np.array([time]), np.array([qpos], float), speed, {"legs": np.array([target], float)}, {}, rows)


def test_the_contract_of_a_vec_env_holds():
    check_vec_env(lambda n: make("walk/quad", n, randomize="default", threads=1), longest=30)


def test_feet_knees_and_servos_are_the_models():
    model = TASK.model().compile()
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    feet = [model.geom(f"{leg}_foot").id for leg in LEGS]
    knees = [model.body(f"{leg}_shank").id for leg in LEGS]
    for _ in range(20):
        qpos = np.concatenate([rng.normal(size=7), rng.uniform(-2.0, 2.0, 12)])
        qpos[3:7] /= np.linalg.norm(qpos[3:7])
        data.qpos = qpos
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(foot_heights(qpos[None])[0], data.geom_xpos[feet, 2], atol=1e-12)
        np.testing.assert_allclose(knee_heights(qpos[None])[0], data.xpos[knees, 2], atol=1e-12)
    assert [model.joint(i).name for i in range(1, 13)] == list(JOINTS)
    assert (model.actuator_gainprm[:, 0] == GAIN).all() and (model.actuator_biasprm[:, 2] == -GAIN_DAMPING).all()
    np.testing.assert_array_equal(model.jnt_actfrcrange[1:], [[-t, t] for t in TORQUE])


def test_the_reward_is_the_documented_formula():
    """Every term by hand: 0.1 m/s too slow ahead, 0.2 rad/s too slow in turning, and a little of each cost."""
    now = state(qvel=(0.4, 0.0, 0.1, 0.2, 0.0, 0.3), target=[h + 0.1 for h in HOME], command=[0.5, 0.0, 0.5],
                strides=-0.1, change=2.0, acceleration=4e4)  # fmt: skip
    along, turn = math.exp(-0.01 / 0.25), 0.5 * math.exp(-0.04 / 0.25)
    costs = 2.0 * 0.01 + 0.05 * 0.04 + 2.5e-7 * 4e4 + 1e-5 * 12 * 6.0**2 + 0.01 * 2.0
    assert TASK.reward(now, np.zeros((1, 12)))[0] == pytest.approx(along + turn - 0.1 - costs, abs=1e-9)
    assert TASK.reward(state(change=1e6), np.zeros((1, 12)))[0] == 0.0  # never below: no fall ends a bad episode
    kneeling = state(qpos=(0.0, 0.0, 0.1, *STANDING[3:]))
    lower = TASK.reward(kneeling, np.zeros((1, 12)))[0]
    assert lower == pytest.approx(max(1.5 - 4.0, 0.0))


def test_velocities_are_those_in_the_robots_own_frame():
    left = (0.0, 0.0, 0.27, math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5), *HOME)  # turned by 90 degrees to its left
    np.testing.assert_allclose(TASK.velocity(state(left, (0.0, 1.0, 0.0))), [[1.0, 0.0, 0.0]], atol=1e-12)
    rolled = (0.0, 0.0, 0.27, math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0, *HOME)  # lies on its right side
    np.testing.assert_allclose(TASK.observe(state(rolled))["gravity"], [[0.0, -1.0, 0.0]], atol=1e-12)


def test_servos_exert_no_more_than_they_can():
    far = state(qvel=(*[0.0] * 6, 2.0), target=[h + 0.05 for h in HOME[:11]] + [HOME[11] + 1.0])
    np.testing.assert_allclose(torques(far), [[0.05 * GAIN - 2.0 * GAIN_DAMPING, *[0.05 * GAIN] * 10, 36.0]])


def test_a_step_is_paid_for_its_time_in_the_air_where_one_should_move():
    touching, lifted = state(command=[0.5, 0.0, 0.0], air=[0.7, 0.1, 0.0, 0.0]), (0.0, 0.0, 0.4, *STANDING[3:])
    down = TASK.advance(touching, np.zeros((1, 12)))
    assert down["strides"][0] == pytest.approx(0.2 - 0.4) and not down["air"].any()
    assert TASK.advance(state(air=[0.7, 0.1, 0.0, 0.0]), np.zeros((1, 12)))["strides"][0] == 0.0
    np.testing.assert_allclose(TASK.advance(state(lifted, air=[0.7, 0, 0, 0]), np.zeros((1, 12)))["air"],
                               [[0.72, 0.02, 0.02, 0.02]])  # fmt: skip


def test_what_changes_is_compared_with_the_step_before():
    before = state(qvel=(*[0.0] * 6, 1.0), joint_vel=[0.9] + [0.0] * 11, action=[0.5] * 12)
    after = TASK.advance(before, np.full((1, 12), 0.25))
    assert after["acceleration"][0] == pytest.approx(5.0**2) and after["change"][0] == pytest.approx(12 * 0.0625)
    assert after["error"][0] == pytest.approx(0.98)
    assert (after["command"] == 0.0).all()
    assert (TASK.advance(state(time=10.0), np.zeros((1, 12)))["command"] == 1.0).all()


def test_commands_fill_their_box_and_slow_ones_are_to_stand():
    command = sample_command(np.random.default_rng(0).random((4000, 3)))
    speed = np.hypot(command[:, 0], command[:, 1])
    assert ((speed == 0.0) | (speed >= 0.2)).all() and 0.02 < (speed == 0.0).mean() < 0.12
    np.testing.assert_allclose(np.abs(command).max(axis=0), COMMAND_HIGH, atol=0.01)
    _, _, memory = TASK.reset(Key(0, np.arange(50), np.zeros(50, int)), {})
    assert (memory["command"] != memory["second"]).any(axis=1).all()


def test_a_robot_that_lies_or_has_tipped_over_has_fallen():
    tipped = (0.0, 0.0, 0.3, math.cos(0.55), math.sin(0.55), 0.0, 0.0, *HOME)  # 63 degrees
    leaning = (0.0, 0.0, 0.3, math.cos(0.5), math.sin(0.5), 0.0, 0.0, *HOME)  # 57
    for qpos, fallen in ((STANDING, False), (leaning, False), (tipped, True), ((0, 0, 0.14, *STANDING[3:]), True)):
        now = state(qpos, error=0.1)
        assert TASK.terminated(now)[0] == fallen and TASK.success(now)[0] != fallen
    assert not TASK.success(state(error=0.3))[0]


def test_it_stands_where_it_is_told_nothing():
    env = make("walk/quad", 4, seed=0, threads=1)
    env.reset(0)
    for _ in range(150):
        step = env.step(torch.zeros(4, 12))
        assert not step.done.any()
    assert (foot_heights(env.state.qpos) < 0.021).all() and (np.abs(env.state.qpos[:, 2] - 0.27) < 0.02).all()
    assert np.abs(env.state.qvel).max() < 0.1


def test_joints_of_feet_are_those_that_bring_them_there():
    rng = np.random.default_rng(0)
    feet = rng.uniform((-0.1, -0.08, -0.35), (0.1, 0.08, -0.15), (30, 4, 3))
    joints = joints_for(feet)
    hip, thigh, knee = np.moveaxis(joints.reshape(30, 4, 3), -1, 0)
    x = -LINK * (np.sin(thigh) + np.sin(thigh + knee))
    z = -LINK * (np.cos(thigh) + np.cos(thigh + knee))
    there = np.stack([x, OUT * np.cos(hip) - z * np.sin(hip) - OUT, OUT * np.sin(hip) + z * np.cos(hip)], axis=-1)
    np.testing.assert_allclose(there, feet, atol=1e-9)
    assert (knee <= 0).all() and len(HIPS) == 4


def test_its_expert_walks_as_it_is_told():
    env, chosen = make("walk/quad", 8, seed=1, threads=1), expert("walk/quad")
    env.reset(1)
    for _ in range(300):
        step = env.step(torch.from_numpy(chosen.act(env.state)).float())
    assert step.success is not None and step.success.float().mean() >= 0.75
    assert (env.state.memory["command"][:, :2] != 0.0).any(axis=1).sum() >= 6
