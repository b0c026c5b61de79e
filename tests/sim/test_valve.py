"""valve/claw: the claw is where its kinematics say, the reward is the formula, and the expert turns every valve."""

import math

import mujoco
import numpy as np
import pytest
import torch

from conformance import check_vec_env
from poise.errors import UsageError
from poise.sim.experts.valve import RADIUS, ValveExpert, joints_for, tip_position
from poise.sim.make import make
from poise.sim.task import Key, State
from poise.sim.task_env import TaskEnv
from poise.sim.tasks.valve import HOME, RANDOMIZATION, SUCCESS_STEPS, TURN, VALVE_START, Valve, angle_error

TASK = Valve()


@pytest.mark.parametrize("randomize", ["none", "default"])
def test_the_contract_of_a_vec_env_holds(randomize):
    check_vec_env(lambda n: make("valve/claw", n, randomize=randomize, threads=1), longest=104)


def state(valve: float, goal: float, held: int = 0, fingers: tuple[float, ...] = HOME) -> State:
    qpos = np.array([[*fingers, valve]])
    memory = {"goal": np.array([goal]), "target_pos": np.zeros((1, 3)), "held": np.array([held])}
    return State(np.zeros(1), qpos, np.zeros((1, 10)), {"claw": np.zeros((1, 9))}, {}, memory)


@pytest.mark.parametrize(
    ("valve", "goal", "error"), [(0.2, 0.5, 0.3), (3.0, -3.0, 2 * math.pi - 6), (-7.0, 0.0, 0.71681)]
)
def test_reward_is_the_documented_formula(valve, goal, error):
    """Both angles wrapped, by hand: from 3 to -3 it is 0.283 onward; -7 + 2 pi = -0.717. Bent fingers cost nothing."""
    assert angle_error(state(valve, goal))[0] == pytest.approx(error, abs=1e-5)
    bent = (HOME[0] + 0.3, *HOME[1:])
    wanted = math.exp(-((error / 0.2) ** 2)) + 0.5 * math.exp(-((error / 0.07) ** 2)) - abs(error)
    given = TASK.reward(state(valve, goal, fingers=bent), np.full((1, 9), 0.5))[0]
    assert given == pytest.approx(wanted - 0.005 * 9 * 0.25, abs=1e-5)


def test_success_needs_the_last_five_steps_within_ten_degrees():
    for degrees, inside in ((9.9, True), (-9.9, True), (10.1, False)):
        now = state(0.4, 0.4 + math.radians(degrees))
        for step in range(1, SUCCESS_STEPS + 2):
            memory = TASK.advance(now, np.zeros((1, 9)))
            now = State(now.time, now.qpos, now.qvel, now.target, {}, memory)
            assert TASK.success(now)[0] == (inside and step >= SUCCESS_STEPS) and not TASK.terminated(now)[0]
    away = state(0.0, 1.0, held=50)
    assert TASK.advance(away, np.zeros((1, 9)))["held"][0] == 0


def test_valves_start_at_every_place_of_their_prongs_and_have_to_turn_by_thirty_to_ninety_degrees():
    qpos, qvel, memory = TASK.reset(Key(0, np.arange(2000), np.zeros(2000, int)), {})
    start, turn = qpos[:, 9], memory["goal"] - qpos[:, 9]
    assert -VALVE_START < start.min() < -1.03 and 1.03 < start.max() < VALVE_START and not qvel.any()
    assert TURN[0] <= np.abs(turn).min() and np.abs(turn).max() <= TURN[1] and 0.45 < (turn > 0).mean() < 0.55
    np.testing.assert_allclose(np.arctan2(memory["target_pos"][:, 1], memory["target_pos"][:, 0]), memory["goal"])


def test_a_policy_is_told_the_angle_of_the_valve_and_of_what_remains():
    env = make("valve/claw", 2, threads=1)
    obs, spec = env.reset(0)["state"], env.spec
    valve, goal = env.engine.qpos[:, 9], env.memory["goal"]
    for name, angle in (("valve_angle", valve), ("goal_error", goal - valve)):
        wanted = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        np.testing.assert_allclose(obs[:, spec.slices()[name]].numpy(), wanted, atol=1e-6)
    assert spec.robot == "claw" and spec.obs_dim() == 31 and spec.action_dim == 9


def test_tips_of_the_model_are_those_of_the_kinematics_and_the_inverse_finds_them():
    model = TASK.model().compile()
    data = mujoco.MjData(model)
    for fingers in (HOME, (0.3, -0.2, 0.9, -0.4, 0.1, 1.5, 0.0, 0.3, 0.4)):
        data.qpos[:9] = fingers
        mujoco.mj_kinematics(model, data)
        for finger in range(3):
            angle = finger * 2 * math.pi / 3
            turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
            tip = turn @ tip_position(np.array([fingers]))[0, finger]
            np.testing.assert_allclose(tip, data.site(f"tip{finger + 1}").xpos, atol=1e-6)
    wanted = np.array([[RADIUS, 0.0, 0.03], [0.02, -0.05, 0.028], [0.03, 0.04, 0.068]])
    np.testing.assert_allclose(tip_position(joints_for(wanted)), np.repeat(wanted[:, None], 3, axis=1), atol=1e-12)
    joints = joints_for(wanted)
    assert (joints >= TASK.spec.actions[0].low).all() and (joints <= TASK.spec.actions[0].high).all()


def test_no_finger_touches_the_valve_at_the_start():
    model = TASK.model().compile()
    data = mujoco.MjData(model)
    qpos, _, _ = TASK.reset(Key(1, np.arange(200), np.zeros(200, int)), {})
    for row in qpos:
        data.qpos[:] = row
        mujoco.mj_forward(model, data)
        assert data.ncon == 0


@pytest.mark.parametrize("randomization", [None, RANDOMIZATION])
def test_the_expert_turns_every_valve_through_the_actions_of_the_spec(randomization):
    env = TaskEnv(TASK, 32, randomization, threads=1)
    expert = ValveExpert(TASK)
    env.reset(5)
    for _ in range(TASK.max_episode_steps):
        action = expert.act(env.state)
        assert np.abs(action).max() <= 1.0
        step = env.step(torch.from_numpy(action))
    assert step.truncated.all() and step.success is not None and step.success.float().mean() >= 0.95
    assert env.bad_worlds == 0


def test_a_valve_that_nobody_touches_stays_where_it_is():
    env = make("valve/claw", 4, threads=1)
    env.reset(0)
    before = env.engine.qpos[:, 9].copy()
    for _ in range(40):
        step = env.step(torch.zeros(4, 9))
    np.testing.assert_allclose(env.engine.qpos[:, 9], before, atol=1e-6)
    assert not step.success.any()


def test_the_task_gives_the_same_numbers_with_torch():
    env = make("valve/claw", 5, randomize="default", threads=1)
    env.reset(0)
    mine, action = env.state, np.random.default_rng(0).uniform(-1, 1, (5, 9))

    def tensors(arrays):
        return {k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}

    twin = State(*(torch.from_numpy(np.array(x)) for x in (mine.time, mine.qpos, mine.qvel)), tensors(mine.target),
                 tensors(mine.params), tensors(mine.memory))  # fmt: skip
    for a, b in (
        (TASK.observe(mine), TASK.observe(twin)),
        (TASK.advance(mine, action), TASK.advance(twin, action)),
        *(({"x": f(mine)}, {"x": f(twin)}) for f in (TASK.terminated, TASK.success)),
        ({"x": TASK.reward(mine, action)}, {"x": TASK.reward(twin, torch.from_numpy(action))}),
    ):
        assert a.keys() == b.keys()
        for name, value in b.items():
            assert isinstance(value, torch.Tensor)
            np.testing.assert_allclose(a[name], value.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("camera", ["close", "front"])
def test_with_a_camera_the_picture_alone_says_where_the_valve_is(camera):
    env = make(f"valve/claw?camera={camera}", 2, threads=1)
    obs = env.reset(3)
    assert obs[camera].shape == (2, 84, 84, 3) and obs["state"].shape == (2, 27) and obs["privileged"].shape == (2, 4)
    assert env.spec.for_policy_file().vectors == ("state",) and env.spec.images == (camera,)
    for frame in obs[camera].numpy().astype(int):
        red, green, blue = frame[..., 0], frame[..., 1], frame[..., 2]
        assert ((red > 150) & (green > 90) & (blue < 80)).sum() > 5  # yellow prongs
        assert ((green > 100) & (red < 80) & (blue < 110)).sum() > 3  # the mark
    env.close()


def test_an_unknown_camera_is_refused():
    with pytest.raises(UsageError, match=r"unknown camera 'top'.*close, front"):
        make("valve/claw?camera=top")
