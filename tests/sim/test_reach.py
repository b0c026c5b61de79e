"""reach/ROBOT: what it rewards, where its targets are, and that one code serves every array library."""

import subprocess
import sys

import mujoco
import numpy as np
import pytest
import torch

from poise.errors import UsageError
from poise.kinematics import forward_kinematics
from poise.robots import FR3, ROBOTS
from poise.sim.make import make
from poise.sim.task import Key, State
from poise.sim.tasks.reach import ARENAS, SUCCESS_RADIUS, SUCCESS_STEPS, Reach, sample_target
from tests.conformance import check_vec_env

TASK = Reach()
EVERY = pytest.mark.parametrize("name", ROBOTS)


@pytest.mark.parametrize(("name", "randomize"), [("fr3", "none"), *((name, "default") for name in ROBOTS)])
def test_the_contract_of_a_vec_env_holds(name, randomize):
    check_vec_env(lambda n: make(f"reach/{name}", n, randomize=randomize), longest=120)


@EVERY
def test_targets_fill_a_box_of_the_promised_size(name):
    arena, robot = ARENAS[name], ROBOTS[name]
    box = np.subtract(arena.high, arena.low)
    assert (box >= (arena.size if name != "fr3" else 1.0) * np.array([0.35, 0.6, 0.35]) - 1e-12).all()
    targets = sample_target(np.random.default_rng(0).random((2000, 3)), arena)
    assert (targets >= arena.low).all() and (targets <= arena.high).all()
    assert (np.ptp(targets, axis=0) > 0.98 * box).all()
    assert (np.greater(arena.low, robot.workspace_low) & np.less(arena.high, robot.workspace_high)).all()


@EVERY
def test_every_target_can_be_reached_within_the_bounds_of_the_action(name):
    """Damped least squares on a grid with all corners and edges of the box, from poses near home."""
    task, arena, robot = Reach(name), ARENAS[name], ROBOTS[name]
    axes = [np.linspace(low, high, 4) for low, high in zip(arena.low, arena.high, strict=True)]
    goals = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    low, high = np.array(task.spec.actions[0].low), np.array(task.spec.actions[0].high)
    q = np.tile(robot.home, (len(goals), 1))
    for _ in range(200):
        here, _ = forward_kinematics(robot, q)
        steps = 1e-5 * np.eye(robot.num_joints)
        jacobian = np.stack([forward_kinematics(robot, q + step)[0] - here for step in steps], axis=-1) / 1e-5
        square = jacobian @ jacobian.transpose(0, 2, 1) + 1e-4 * np.eye(3)
        step = jacobian.transpose(0, 2, 1) @ np.linalg.solve(square, (goals - here)[..., None])
        q = np.clip(q + np.clip(step[..., 0], -0.1, 0.1), low, high)
    distance = np.linalg.norm(forward_kinematics(robot, q)[0] - goals, axis=-1)
    assert distance.max() < 1e-4, goals[distance.argmax()]


def test_episodes_start_near_home_at_rest():
    key = Key(0, np.arange(500), np.zeros(500, int))
    qpos, qvel, memory = TASK.reset(key, {})
    assert np.abs(qpos - FR3.home).max() <= 0.3 and np.ptp(qpos, axis=0).min() > 0.55 and not qvel.any()
    np.testing.assert_allclose(memory["tool_pos"], forward_kinematics(FR3, qpos)[0])


def _state(distance: float, held: int = 0) -> State:
    goal = np.array([[0.5, 0.0, 0.4]])
    memory = {"target_pos": goal, "tool_pos": goal + np.array([distance, 0, 0]), "held": np.array([held])}
    return State(np.zeros(1), np.zeros((1, 7)), np.zeros((1, 7)), {"arm": np.zeros((1, 7))}, {}, memory)


def test_reward_is_the_documented_formula():
    action = np.full((1, 7), 0.5)
    for d in (0.0, 0.015, 0.05, 0.3):
        wanted = -2 * d + np.exp(-((d / 0.05) ** 2)) + 0.5 * np.exp(-((d / 0.015) ** 2)) - 0.01 * 7 * 0.25
        assert TASK.reward(_state(d), action)[0] == pytest.approx(wanted, rel=1e-12)


def test_success_needs_the_last_ten_steps_within_two_centimetres():
    home = np.array([FR3.home])
    tool, _ = forward_kinematics(FR3, home)
    for offset, inside in ((0.9 * SUCCESS_RADIUS, True), (1.1 * SUCCESS_RADIUS, False)):
        state = _state(0.0)
        memory = {**state.memory, "target_pos": tool + np.array([0, offset, 0])}
        for step in range(1, SUCCESS_STEPS + 2):
            state = State(state.time, home, state.qvel, state.target, {}, memory)
            memory = TASK.advance(state, np.zeros((1, 7)))
            after = State(state.time, home, state.qvel, state.target, {}, memory)
            assert TASK.success(after)[0] == (inside and step >= SUCCESS_STEPS)
            assert not TASK.terminated(after)[0]
    away = State(state.time, home + 0.3, state.qvel, state.target, {}, {**memory, "held": np.array([50])})
    assert TASK.advance(away, np.zeros((1, 7)))["held"][0] == 0


def test_the_task_gives_the_same_numbers_with_torch():
    env = make("reach/fr3", 5, randomize="default", threads=1)
    env.reset(0)
    state, action = env.state, np.random.default_rng(0).uniform(-1, 1, (5, 7))

    def tensors(arrays):
        return {k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}

    twin = State(torch.from_numpy(state.time.copy()), torch.from_numpy(state.qpos.copy()),
                 torch.from_numpy(state.qvel.copy()), tensors(state.target), tensors(state.params),
                 tensors(state.memory))  # fmt: skip
    for mine, theirs in (
        (TASK.observe(state), TASK.observe(twin)),
        (TASK.advance(state, action), TASK.advance(twin, torch.from_numpy(action))),
        *(({"x": f(state)}, {"x": f(twin)}) for f in (TASK.terminated, TASK.success)),
        ({"x": TASK.reward(state, action)}, {"x": TASK.reward(twin, torch.from_numpy(action))}),
    ):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert isinstance(value, torch.Tensor)
            np.testing.assert_allclose(mine[name], value.numpy(), rtol=1e-12, atol=1e-12)


def test_the_tool_of_the_model_is_the_tool_of_the_kinematics():
    env = make("reach/fr3", 4, threads=1)
    env.reset(0)
    env.step(torch.rand(4, 7) * 2 - 1)
    data = mujoco.MjData(env.engine.model)
    for qpos, tool_pos in zip(env.state.qpos, env.memory["tool_pos"], strict=True):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(env.engine.model, data)
        np.testing.assert_allclose(data.site("tool").xpos, tool_pos, atol=1e-4)


@EVERY
def test_the_hand_is_rigid_and_every_joint_has_its_servo(name):
    robot, model = ROBOTS[name], Reach(name).model().compile()
    n = robot.num_joints
    assert (model.nq, model.nv, model.nu, model.neq, model.nsensor) == (n, n, n, 0, 0)
    assert [model.joint(i).name for i in range(n)] == [model.actuator(i).name for i in range(n)] == list(robot.joints)


def test_reach_fr3_is_the_task_that_it_was():
    """A rollout's rewards under random dynamics, recorded when the FR3's controller became libfranka's."""
    env = make("reach/fr3", 2, randomize="default", threads=1)
    env.reset(0)
    generator, total = torch.Generator().manual_seed(0), np.zeros(2)
    for _ in range(30):
        total += env.step(2 * torch.rand(2, 7, generator=generator) - 1).reward.double().numpy()
    np.testing.assert_allclose(total, [-28.368978261947632, -20.81058120727539], rtol=1e-5)


def test_an_arm_that_nobody_drew_a_box_for_is_answered_with_those_there_are():
    with pytest.raises(UsageError, match="unknown robot of reach 'ur5'; did you mean ur5e"):
        Reach("ur5")
    with pytest.raises(UsageError, match="unknown task 'reach/ur5'; did you mean reach/ur5e"):
        make("reach/ur5")


def test_the_default_randomization_covers_what_it_must():
    assert {t.what for t in TASK.randomization.terms} >= {
        "link_mass", "joint_friction", "joint_damping", "joint_armature", "actuator_gain", "payload",
        "action_latency", "joint_pos_noise", "joint_pos_bias", "joint_vel_noise",
    }  # fmt: skip
    env = make("reach/fr3", 64, randomize="default", threads=1)
    env.reset(0)
    masses = (
        np.array([m.body("fr3_link4").mass[0] for m in env.engine.models]) / env.engine.model.body("fr3_link4").mass
    )
    assert 0.7 <= masses.min() < 0.8 and 1.2 < masses.max() <= 1.3


def test_the_goal_rules_load_neither_torch_nor_mujoco():
    code = ("import sys, poise.sim.tasks.reach, poise.sim.make; poise.sim.make.load_task('reach/fr3').spec;"
            "sys.exit(', '.join({'torch', 'mujoco'} & set(sys.modules)) or 0)")  # fmt: skip
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@EVERY
def test_the_arm_holds_its_pose_under_zero_actions(name):
    env = make(f"reach/{name}", 8, randomize="default", threads=1)
    env.reset(0)
    start = env.state.qpos.copy()
    for _ in range(40):
        env.step(torch.zeros(8, env.spec.action_dim))
    assert np.abs(env.state.qpos - start).max() < 0.05


@EVERY
def test_a_jacobian_controller_succeeds_from_what_the_policy_sees(name):
    """The task can be solved under its default randomization, from observations alone, within its limits."""
    robot, env = ROBOTS[name], make(f"reach/{name}", 64 if name == "fr3" else 32, randomize="default", threads=1)
    part = env.spec.slices()
    step, obs = None, env.reset(1)["state"].double().numpy()
    for _ in range(env.max_episode_steps):
        q = obs[:, part["joint_pos"]] + obs[:, part["target_error"]]  # the last target, which the next one adds to
        here, steps = forward_kinematics(robot, q)[0], 1e-5 * np.eye(robot.num_joints)
        jacobian = np.stack([forward_kinematics(robot, q + step)[0] - here for step in steps], axis=-1) / 1e-5
        square = jacobian @ jacobian.transpose(0, 2, 1) + 1e-3 * np.eye(3)
        error = (obs[:, part["target_pos"]] - here)[..., None]
        wanted = (jacobian.transpose(0, 2, 1) @ np.linalg.solve(square, error))[..., 0]
        step = env.step(torch.from_numpy(np.clip(0.5 * wanted / 0.1, -1, 1)))
        obs = step.obs["state"].double().numpy()
    assert step.truncated.all() and step.success.float().mean() >= 0.97
