"""dm_control's suite behind our contract, against dm_control itself."""

import sys

import numpy as np
import pytest
import torch

import poise
from conformance import check_vec_env
from poise.errors import UsageError
from poise.keyed import Stream
from poise.sim.dmc_env import suite


def key(seed: int, world: int, episode: int) -> int:
    return int(Stream(seed, "gym/episode").integer(world, episode)[0])


@pytest.mark.parametrize(("name", "seconds"), [("cartpole-swingup", 0.1), ("walker-walk", 0.25), ("reacher-easy", 0.2)])
def test_tasks_keep_the_contract_of_a_vec_env(name, seconds):
    check_vec_env(lambda n: poise.make(f"dmc:{name}?time_limit={seconds}", n), 16)


def test_workers_step_them_to_the_same_bit():
    here, there = poise.make("dmc:cartpole-swingup", 2), poise.make("dmc:cartpole-swingup?workers=2", 2)
    for env in (here, there):
        env.reset(4)
    for action in torch.linspace(-1, 1, 10):
        a, b = (env.step(action.expand(2, 1)) for env in (here, there))
        assert torch.equal(a.obs["state"], b.obs["state"]) and torch.equal(a.reward, b.reward)
    there.close()


def test_steps_are_dm_control_s_own_to_the_bit_and_the_end_of_time_truncates():
    env = poise.make("dmc:reacher-easy?time_limit=0.4", 2)
    obs = env.reset(seed=5)
    assert env.spec.slices("state") == {"position": slice(0, 2), "to_target": slice(2, 4), "velocity": slice(4, 6)}
    assert (env.spec.control_dt, env.max_episode_steps, env.spec.action_dim) == (pytest.approx(0.02), 20, 2)
    actions = torch.rand(45, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain = suite().load("reacher", "easy", task_kwargs={"time_limit": 0.4})
    for episode in range(2):
        plain.task._random = np.random.RandomState(key(5, 1, episode))
        assert obs["state"][1].tolist() == np.float32(np.concatenate(list(plain.reset().observation.values()))).tolist()
        for t in range(20):
            step, expected = (
                env.step(actions[20 * episode + t]),
                plain.step(actions[20 * episode + t, 1].double().numpy()),
            )
            seen = np.concatenate(list(expected.observation.values()))
            assert step.next_obs["state"][1].tolist() == np.float32(seen).tolist()
            assert step.reward[1] == np.float32(expected.reward)
            assert not step.terminated.any() and bool(step.truncated[1]) == (t == 19) == expected.last()
        obs = step.obs


def test_a_task_that_ends_itself_terminates(monkeypatch):
    env = poise.make("dmc:lqr-lqr_2_1", 1)
    env.reset(0)
    assert env.max_episode_steps == 0
    task = env.first._env.task
    monkeypatch.setattr(type(task), "get_termination", lambda self, physics: 0.0)
    step = env.step(torch.zeros(1, 1))
    assert step.terminated.all() and not step.truncated.any()
    assert env.spec.actions[0].low == (-1.0,), "an actuator without limits takes [-1, 1]"


def test_a_simulation_that_diverges_is_contained():
    env = poise.make("dmc:walker-walk", 2)
    obs = env.reset(0)
    env.first.physics.data.qvel[:] = 1e12
    step = env.step(torch.zeros(2, 6))
    assert env.bad_worlds == 1 and step.truncated.tolist() == [True, False] and step.reward[0] == 0
    assert torch.equal(step.next_obs["state"][0], obs["state"][0])


def test_a_world_is_drawn_as_it_moves():
    env = poise.make("dmc:cartpole-swingup", 1)
    env.reset(0)
    first = env.render()
    assert first.shape == (480, 480, 3) and first.dtype == np.uint8 and first.std() > 10
    for _ in range(5):
        env.step(torch.ones(1, 1))
    assert (env.render() != first).any()
    env.close()


@pytest.mark.parametrize("name", ["humanoid-run", "quadruped-escape", "ball_in_cup-catch", "fish-swim",
                                  "manipulator-bring_ball", "point_mass-hard", "swimmer-swimmer6"])  # fmt: skip
def test_other_tasks_step_and_repeat_their_episodes_in_a_fresh_world(name):
    lived, fresh = (poise.make(f"dmc:{name}", 1) for _ in range(2))
    actions = torch.rand(8, 1, lived.spec.action_dim, generator=torch.Generator().manual_seed(0)) * 2 - 1
    lived.reset(0)
    lived.step(actions[0])
    for env in (lived, fresh):
        env.reset(3)
    for action in actions:
        a, b = lived.step(action), fresh.step(action)
        assert torch.equal(a.obs["state"], b.obs["state"]) and torch.isfinite(a.obs["state"]).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [("cartpole-swing", "did you mean cartpole-swingup"), ("walker-walk?speed=3", "unknown option .* 'speed'"),
     ("walker-walk?time_limit=soon", "expected a number of seconds")],
)  # fmt: skip
def test_what_does_not_exist_is_refused(name, message):
    with pytest.raises(UsageError, match=message):
        poise.make(f"dmc:{name}")


def test_without_dm_control_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    with pytest.raises(UsageError, match=r"dmc:walker-walk needs dm_control: pip install 'poise\[dmc\]'"):
        poise.make("dmc:walker-walk")
