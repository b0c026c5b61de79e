"""TaskEnv: the VecEnv contract, episodes that can be played alone, and a step compared with plain MuJoCo."""

import mujoco
import numpy as np
import pytest
import torch

from poise.errors import SpecError, UsageError
from poise.observe import observe
from poise.sim.cpu import compile_physics
from poise.sim.randomization import Randomization, Term
from poise.sim.task_env import TaskEnv
from poise.sim.whats import WHATS
from tests.conformance import check_vec_env

from .two_link import LATENCY, MASS, NOISE, TwoLink

ALL = TwoLink.randomization


def _every_kind() -> Randomization:
    """One term of every kind that TwoLink can have."""
    terms = [Term(what, what, target, range=(low, high), operation=operation)
             for what, target, operation, low, high in (
        ("link_mass", "*", "scale", 0.7, 1.3), ("body_com", ("lower", "ball"), "add", -0.02, 0.02),
        ("payload", "tip", "set", 0.0, 0.3), ("joint_friction", "shoulder", "scale", 0.5, 2.0),
        ("joint_damping", ("shoulder", "elbow"), "add", 0.0, 0.2), ("joint_armature", "shoulder", "scale", 0.5, 1.5),
        ("joint_stiffness", "elbow", "add", 0.0, 1.0), ("joint_offset", "shoulder", "set", -0.05, 0.05),
        ("geom_friction", "ball", "scale", 0.5, 1.5), ("geom_size", "ball", "scale", 0.8, 1.2),
        ("actuator_gain", "*", "scale", 0.8, 1.2), ("actuator_damping", "servo", "scale", 0.8, 1.2),
        ("gravity", (), "add", -0.4, 0.4), ("timestep", (), "scale", 0.8, 1.2),
        ("joint_pos_noise", "elbow", "set", 0.0, 0.02), ("joint_pos_bias", "elbow", "set", -0.02, 0.02),
        ("joint_vel_noise", "shoulder", "set", 0.0, 0.02), ("joint_delay", "*", "set", 0.0, 0.03),
        ("joint_dropout", "*", "set", 0.0, 0.2), ("obs_noise", "ball", "set", 0.0, 0.02),
        ("obs_bias", ("ball", "error"), "set", -0.1, 0.1), ("obs_delay", "ball", "set", 0.0, 0.1),
        ("obs_dropout", "ball", "set", 0.0, 0.5), ("action_latency", (), "set", 0.0, 0.03),
        ("action_noise", (), "set", 0.0, 0.2), ("action_hold", (), "set", 0.0, 0.4),
        ("backlash", "servo", "set", 0.0, 0.05),
    )]  # fmt: skip
    often = {"when": "interval", "interval": (0.02, 0.3)}
    terms += [
        Term("push", "push_force", ("lower", "ball"), range=(0.0, 3.0), operation="set", duration=0.1, **often),
        Term("twist", "push_torque", "lower", range=(0.0, 1.0), operation="set", duration=0.04, **often),
        Term("shove", "kick_velocity", "ball", range=(0.0, 1.0), operation="set", **often),
        Term("spin", "kick_spin", "ball", range=(0.0, 1.0), operation="set", **often),
        Term("jolt", "kick_joint", ("shoulder", "elbow"), range=(-0.5, 0.5), operation="set", **often),
        Term("once", "link_mass", "ball", range=(0.5, 2.0), when="start"),
        Term("wind", "gravity", range=(-0.2, 0.2), operation="add", **often),
        Term("worn", "link_mass", "lower", range=(0.8, 1.2), **often),
        Term("fog", "obs_noise", "ball", range=(0.0, 0.3), operation="set", **often),
        Term("lag", "action_latency", range=(0.0, 0.02), operation="set", **often),
    ]
    return Randomization(tuple(terms))


def _actions(steps: int, worlds: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(steps, worlds, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("randomization", "threads"), [(Randomization(), 1), (ALL, 1), (ALL, 2), (_every_kind(), 1)],
                         ids=["none", "some", "threads", "every"])  # fmt: skip
def test_the_contract_of_a_vec_env_holds(randomization, threads):
    check_vec_env(lambda n: TaskEnv(TwoLink(), n, randomization, threads=threads))


def test_any_episode_of_any_world_can_be_played_alone():
    batch, alone = TaskEnv(TwoLink(), 8, ALL), TaskEnv(TwoLink(), 1, ALL)
    batch.reset(11)
    actions = _actions(200, 8)
    played, step = [], batch.step(actions[0])  # (action, step) of world 5's episode 3
    for action in actions[1:]:
        if batch.episodes[5] == 3 and not played:
            params, start = {k: v[5].copy() for k, v in batch.params.items()}, step.obs["state"][5]
        if batch.episodes[5] == 4:
            break
        in_episode, step = batch.episodes[5] == 3, batch.step(action)
        if in_episode:
            played.append((action, step))
    assert len(played) > 3 and played[-1][1].done[5]
    assert torch.equal(alone.reset(11, worlds=5, episodes=3)["state"][0], start)
    assert all(np.array_equal(alone.params[name][0], params[name]) for name in params)
    for action, step in played:
        lone = alone.step(action[5:6])
        for name in ("reward", "terminated", "truncated", "success"):
            assert getattr(lone, name)[0] == getattr(step, name)[5]
        for group in step.next_obs:
            assert torch.equal(lone.next_obs[group][0], step.next_obs[group][5])
            assert torch.equal(lone.obs[group][0], step.obs[group][5])


def test_adding_a_term_leaves_starts_goals_and_other_draws_unchanged():
    small, large = TaskEnv(TwoLink(), 4, Randomization((MASS,))), TaskEnv(TwoLink(), 4, Randomization((NOISE, MASS)))
    small.reset(0)
    large.reset(0)
    assert np.array_equal(small.params["mass"], large.params["mass"])
    assert np.array_equal(small.state.qpos, large.state.qpos)
    assert np.array_equal(small.memory["goal"], large.memory["goal"])


def test_a_step_and_the_true_successor_at_the_time_limit_are_those_of_plain_mujoco():
    """One randomized world beside a loop over mj_step with commands a step late, compared to 1e-10."""
    latency = Term("latency", "action_latency", range=(0.015, 0.015), operation="set")
    env = TaskEnv(TwoLink(), 3, Randomization((MASS, latency)))
    env.reset(2)
    qpos, masses, commands = env.state.qpos[1].copy(), env.params["mass"][1], []
    path = env.commands.step

    def recording(*args):
        ctrl = path(*args)
        commands.append(ctrl[1].copy())
        return ctrl

    env.commands.step = recording
    spec = TwoLink().model()
    for name, scale in zip(("upper", "lower"), masses, strict=True):
        spec.geom(name).mass *= scale
    model = compile_physics(spec)
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    for t, action in enumerate(_actions(40, 3, 5) * 0.3):
        step = env.step(action)
        data.qacc_warmstart[:] = 0.0
        for ctrl in commands[-1]:
            data.ctrl[:] = ctrl
            mujoco.mj_step(model, data)
        wanted = np.concatenate([data.qpos[:2], data.qvel[:2]])
        np.testing.assert_allclose(step.next_obs["state"][1, :4].double(), wanted.astype(np.float32), atol=1e-6)
        if t < 39:
            np.testing.assert_allclose(env.state.qpos[1], data.qpos, rtol=0, atol=1e-10)
            np.testing.assert_allclose(env.state.qvel[1], data.qvel, rtol=0, atol=1e-10)
    assert step.truncated[1] and not step.terminated[1]
    assert not torch.equal(step.obs["state"][1], step.next_obs["state"][1])


def test_every_world_has_the_constants_of_a_model_compiled_with_its_own_draws():
    """Start-up writes all worlds, not the first one; constants are right in each of them, after resets too."""
    terms = (MASS, Term("armature", "joint_armature", "shoulder", range=(0.5, 2.0)))
    env = TaskEnv(TwoLink(), 4, Randomization(terms))
    env.reset(0)
    for _ in range(45):  # over the time limit: every world draws anew
        env.step(torch.zeros(4, 2))
    assert env.episodes.min() >= 1 and len(np.unique(env.params["mass"][:, 0])) == 4
    for world, model in enumerate(env.engine.models):
        spec = TwoLink().model()
        for name, scale in zip(("upper", "lower"), env.params["mass"][world], strict=True):
            spec.geom(name).mass *= scale
        spec.joint("shoulder").armature *= env.params["armature"][world, 0]
        wanted = compile_physics(spec)
        for field in ("body_mass", "body_inertia", "body_subtreemass", "body_invweight0", "dof_M0", "dof_invweight0",
                      "actuator_acc0"):  # fmt: skip
            np.testing.assert_allclose(getattr(model, field), getattr(wanted, field), rtol=1e-12, err_msg=field)
        assert model.stat.meaninertia == pytest.approx(wanted.stat.meaninertia, rel=1e-12)


def test_a_joint_offset_shifts_what_is_measured_and_commanded_alike():
    offset = Term("offset", "joint_offset", ("shoulder", "elbow"), range=(0.05, 0.1), operation="set")
    env = TaskEnv(TwoLink(), 3, Randomization((offset,)))
    obs = env.reset(0)
    np.testing.assert_allclose(obs["state"][:, :2], env.state.qpos[:, :2] - env.params["offset"], rtol=1e-6)
    still, biased = env.state.qpos[:, 0].copy(), TaskEnv(TwoLink(), 3, Randomization())
    biased.reset(0)
    for _ in range(5):  # the first command is to stay, in the encoder's terms, so the arm does not jump
        env.step(torch.zeros(3, 2))
        biased.step(torch.zeros(3, 2))
    assert np.abs(env.state.qpos[:, 0] - biased.state.qpos[:, 0]).max() < 1e-9 < np.abs(still).max()


def test_reward_and_success_see_the_truth_and_the_policy_sees_what_was_measured():
    bias = Term("bias", "joint_pos_bias", "shoulder", range=(0.1, 0.1), operation="set")
    env = TaskEnv(TwoLink(), 2, Randomization((bias,)))
    obs = env.reset(0)
    np.testing.assert_allclose(obs["state"][:, 0], env.state.qpos[:, 0] + 0.1, rtol=1e-6)
    step = env.step(torch.zeros(2, 2))
    np.testing.assert_allclose(step.reward, -abs(env.state.qpos[:, 0] - env.memory["goal"][:, 0]), rtol=1e-6)
    np.testing.assert_allclose(step.next_obs["state"][:, 0], env.state.qpos[:, 0] + 0.1, rtol=1e-6)


def test_packed_observations_are_those_of_observe():
    env = TaskEnv(TwoLink(), 4, ALL)
    env.reset(0)
    readings = env.task.observe(env.state)
    env._obs = {}
    checked = env._pack(readings, {})
    env._obs = checked
    packed = env._pack(readings, {})
    expected = observe(env.spec, readings)
    for group in expected:
        assert packed[group].dtype == np.float32
        assert packed[group].tobytes() == expected[group].tobytes() == checked[group].tobytes()


@pytest.mark.parametrize("poison", [np.nan, 1e12])
def test_a_world_that_breaks_is_contained_and_the_others_notice_nothing(poison):
    env, sound = TaskEnv(TwoLink(), 4, ALL), TaskEnv(TwoLink(), 4, ALL)
    env.reset(3)
    sound.reset(3)
    others = [0, 1, 3]
    actions = _actions(60, 4)
    before = env.step(actions[0])
    sound.step(actions[0])
    env.engine.state[2, env.engine.model.nq + 1] = poison
    for t in range(1, 60):
        step, calm = env.step(actions[t]), sound.step(actions[t])
        if t == 1:
            assert step.reward[2] == 0 and step.truncated[2] and not step.terminated[2] and not step.success[2]
            assert torch.equal(step.next_obs["state"][2], before.obs["state"][2])
            assert env.bad_worlds == 1 and env.episodes.tolist() == [0, 0, 1, 0]
        for a, b in ((step.obs, calm.obs), (step.next_obs, calm.next_obs)):
            assert all(torch.equal(a[g][others], b[g][others]) and torch.isfinite(a[g]).all() for g in a)
        assert torch.equal(step.reward[others], calm.reward[others]) and torch.isfinite(step.reward).all()
    assert env.bad_worlds == 1 and env.state_dict()["bad_worlds"] == 1


class Unpaid(TwoLink):
    """World 1's reward is no number when its first joint is commanded hard."""

    def reward(self, state, action):
        return np.where(action[:, 0] > 0.9, np.nan, super().reward(state, action))


def test_a_reward_that_is_not_finite_ends_that_world_s_episode_alone():
    env = TaskEnv(Unpaid(), 3)
    before = env.reset(0)
    step = env.step(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]]))
    assert env.bad_worlds == 1 and step.truncated.tolist() == [False, True, False] and not step.terminated.any()
    assert step.reward[1] == 0.0 and torch.isfinite(step.reward).all()
    assert torch.equal(step.next_obs["state"][1], before["state"][1])
    assert env.episodes.tolist() == [0, 1, 0]


def test_latency_is_drawn_for_every_world_and_episode():
    env = TaskEnv(TwoLink(), 64, Randomization((LATENCY,)))
    env.reset(0)
    steps = np.rint(env.params["latency"][:, 0] / 0.005)
    assert np.array_equal(env._delay, steps) and set(steps) == set(range(7))


@pytest.mark.parametrize(
    ("action", "message"),
    [(torch.zeros(3, 2), r"shape \(2, 2\), got \(3, 2\)"), (torch.tensor([[0, 0], [0, torch.nan]]), "world 1 has nan"),
     (torch.tensor([[0, 1.5], [0, 0]]), "world 0 has 1.5 in column 1")],
)  # fmt: skip
def test_an_action_that_is_none_is_refused(action, message):
    env = TaskEnv(TwoLink(), 2)
    env.reset(0)
    with pytest.raises(SpecError, match=message):
        env.step(action)


def test_every_kind_of_term_is_in_the_conformance_test():
    not_here = {"joint_limit", "motor_strength"}  # TwoLink has no limits, and no camera:
    not_here |= {what for what in WHATS if WHATS[what].family == "appearance"}
    assert {t.what for t in _every_kind().terms} == set(WHATS) - not_here


def test_misuse_is_refused_with_what_to_do():
    with pytest.raises(UsageError, match="num_envs must be at least 1, not 0"):
        TaskEnv(TwoLink(), 0)
    env = TaskEnv(TwoLink(), 2)
    with pytest.raises(UsageError, match=r"call reset\(seed\)"):
        env.step(torch.zeros(2, 2))
    env.reset(0)
    with pytest.raises(UsageError, match="cannot resume: the saved randomization"):
        TaskEnv(TwoLink(), 2, ALL).load_state_dict(env.state_dict())

    class Odd(TwoLink):
        physics_dt = 0.003

    with pytest.raises(SpecError, match=r"control_dt 0.02 s must be a whole multiple of physics_dt 0.003 s"):
        TaskEnv(Odd(), 2)
