"""Gymnasium's MuJoCo tasks in our engines: equal to Gymnasium's own in all that a learner sees.

Before every step Gymnasium's positions and velocities are copied into our world and the solver's warm start is zeroed
on both sides. Observations (put together in float64, as the task gives them, before they become float32), rewards and
terminations then agree to 1e-6.
"""

from typing import cast

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.envs.mujoco import MujocoEnv

from poise.sim.make import TASKS, load_task, make
from poise.sim.stepping import SteppingEngine
from poise.sim.task import Key
from poise.sim.task_env import TaskEnv
from tests.conformance import check_vec_env

NAMES = [name for name in TASKS if name.endswith("-v5")]


def _observation(env: TaskEnv) -> np.ndarray:
    readings = env.task.observe(env.state)
    return np.concatenate([readings[term.name][0] for term in env.spec.observations["state"]])


def _begin(env: TaskEnv, data: mujoco.MjData) -> None:
    """Start an episode of our one world where Gymnasium's starts."""
    env.reset(0)
    env.engine.set_state(np.arange(1), data.qpos[None], data.qvel[None])
    if isinstance(env.engine, SteppingEngine):
        start = getattr(env.task, "start", lambda state: state.memory)
        env.memory = start(env.state)
    elif "x" in env.memory:
        env.memory["x"] = env.engine.qpos[:, 0].copy()


def _step(env: TaskEnv, data: mujoco.MjData, action: np.ndarray) -> None:
    """One control step of our world from Gymnasium's present state, without rounding to float32."""
    env.engine.state[0, 1:] = np.concatenate([data.qpos, data.qvel])
    assert env.engine.step(env.commands.step(action, env.engine.qpos, np.zeros(1, np.int64))) is None
    env.memory = env.task.advance(env.state, action)


@pytest.mark.parametrize("name", NAMES)
def test_observations_rewards_and_terminations_are_gymnasiums(name):
    theirs, env = cast("MujocoEnv", gymnasium.make(name).unwrapped), TaskEnv(load_task(name), 1)
    rng, length, ends = np.random.default_rng(0), 100, 0
    for step in range(1000):
        if length == 100:
            first, _ = theirs.reset(seed=step)
            _begin(env, theirs.data)
            np.testing.assert_allclose(_observation(env), first, rtol=0, atol=1e-6)
            length = 0
        action = rng.uniform(-1, 1, (1, env.spec.action_dim))
        theirs.data.qacc_warmstart[:] = 0.0
        _step(env, theirs.data, action)
        obs, reward, terminated, _, _ = theirs.step(env.task.command * action[0])
        np.testing.assert_allclose(_observation(env), obs, rtol=0, atol=1e-6)
        np.testing.assert_allclose(env.task.reward(env.state, action)[0], reward, rtol=0, atol=1e-6)
        assert env.task.terminated(env.state)[0] == terminated
        length, ends = 100 if terminated else length + 1, ends + terminated
    assert bool(ends) == (name not in ("HalfCheetah-v5", "Swimmer-v5", "Reacher-v5", "Pusher-v5"))
    theirs.close()


@pytest.mark.parametrize("name", NAMES)
def test_timing_spaces_and_time_limit_are_gymnasiums(name):
    theirs, task = gymnasium.make(name), load_task(name)
    assert task.max_episode_steps == theirs.spec.max_episode_steps
    assert task.spec.control_dt == pytest.approx(theirs.unwrapped.dt, abs=1e-12)
    assert task.spec.obs_dim() == theirs.observation_space.shape[0]
    assert task.spec.action_dim == theirs.action_space.shape[0]
    np.testing.assert_allclose(theirs.action_space.high, task.command, rtol=1e-6)
    np.testing.assert_allclose(theirs.action_space.low, -task.command, rtol=1e-6)
    theirs.close()


@pytest.mark.parametrize("name", NAMES)
def test_starts_have_gymnasiums_distribution(name):
    """Means, deviations and extremes of 300 of theirs against 3,000 of ours, column by column."""
    theirs, task = gymnasium.make(name).unwrapped, load_task(name)
    qpos, qvel, _ = task.reset(Key(0, np.arange(3000), np.zeros(3000, np.int64)), {})
    ours, seen = np.concatenate([qpos, qvel], axis=1), []
    theirs.reset(seed=0)
    for _ in range(300):
        theirs.reset()
        seen.append(np.concatenate([theirs.data.qpos, theirs.data.qvel]))
    seen = np.array(seen)
    deviation = seen.std(axis=0)
    assert np.array_equal(ours.std(axis=0) > 1e-9, deviation > 1e-9)  # the same columns vary
    np.testing.assert_allclose(ours.std(axis=0), deviation, rtol=0.2, atol=1e-12)
    assert (np.abs(ours.mean(axis=0) - seen.mean(axis=0)) <= 0.3 * deviation + 1e-12).all()
    span = np.abs(ours).max(axis=0) / np.maximum(np.abs(seen).max(axis=0), 1e-12)
    assert ((span > 0.8) & (span < 2.0) | (deviation < 1e-9)).all()
    theirs.close()


def test_the_bodies_that_arms_measure_are_those_of_the_models():
    reacher, pusher = load_task("Reacher-v5"), load_task("Pusher-v5")
    for task, names in ((reacher, {"tip": "fingertip", "target": "target"}),
                        (pusher, {"tip": "tips_arm", "thing": "object", "goal": "goal"})):  # fmt: skip
        model = task.model().compile()
        assert all(model.body(body).id == getattr(task, what) for what, body in names.items())


def test_pushers_object_never_starts_at_the_goal():
    qpos, _, _ = load_task("Pusher-v5").reset(Key(1, np.arange(500), np.zeros(500, np.int64)), {})
    assert np.hypot(qpos[:, -4], qpos[:, -3]).min() > 0.17
    assert qpos[:, -4].min() > -0.3 and qpos[:, -4].max() < 0.0 and np.abs(qpos[:, -3]).max() < 0.2


@pytest.mark.parametrize("name", ["Hopper-v5", "Ant-v5", "Humanoid-v5", "Pusher-v5", "InvertedDoublePendulum-v5"])
def test_the_contract_of_a_vec_env_holds_under_randomization(name):
    check_vec_env(lambda n: make(name, n, randomize="default", threads=1), longest=40)


@pytest.mark.parametrize("name", NAMES)
def test_default_randomization_changes_every_model_and_success_is_undefined(name):
    env = make(name, 2, randomize="default", threads=1)
    env.reset(0)
    assert isinstance(env, TaskEnv) and isinstance(env.engine, SteppingEngine) == hasattr(env.task, "reads")
    for term in env.randomization.terms:
        drawn = env.params[term.name]
        assert not np.array_equal(drawn[0], drawn[1]) and drawn.min() >= 0.7 and drawn.max() <= 1.3
    assert not np.array_equal(env.engine.models[0].body_mass, env.engine.models[1].body_mass)
    assert env.step(torch.zeros(2, env.spec.action_dim)).success is None


@pytest.mark.parametrize("name", NAMES)
def test_tasks_are_array_agnostic(name):
    """The same numbers from torch tensors, which other engines hand over."""
    env = make(name, 3, threads=1)
    env.reset(0)
    for _ in range(5):
        env.step(torch.full((3, env.spec.action_dim), 0.3))
    state, act = env.state, np.full((3, env.spec.action_dim), 0.3)
    tensors = type(state)(*(torch.from_numpy(x.copy()) for x in (state.time, state.qpos, state.qvel)), {}, {},
                          {k: torch.from_numpy(v) for k, v in state.memory.items()},
                          {k: torch.from_numpy(v) for k, v in state.extra.items()})  # fmt: skip
    for reading, value in env.task.observe(tensors).items():
        np.testing.assert_allclose(value.numpy(), env.task.observe(state)[reading], rtol=1e-12)
    np.testing.assert_allclose(env.task.reward(tensors, torch.from_numpy(act)), env.task.reward(state, act), rtol=1e-12)
    assert env.task.terminated(tensors).tolist() == env.task.terminated(state).tolist()
