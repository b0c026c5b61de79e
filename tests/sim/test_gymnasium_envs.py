"""Native tasks as Gymnasium environments: Gymnasium's own checker, the same numbers as ours, other people's learners."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import poise.envs  # noqa: F401 (registers the tasks)
from poise.errors import UsageError
from poise.sim.gymnasium_adapter import GymVecEnv
from poise.sim.gymnasium_envs import OWN, gymnasium_id
from poise.sim.make import TASKS, make
from tests.conformance import check_vec_env

PLANAR = "poise/reach-planar-state-v0"


@pytest.mark.filterwarnings("ignore:.*Box observation space m.* value is -?infinity")  # of Gymnasium's own tasks too
@pytest.mark.parametrize("task", sorted(TASKS))
def test_every_task_passes_gymnasiums_checker_and_steps_a_hundred_times(task):
    env = gymnasium.make(gymnasium_id(task), disable_env_checker=True)
    check_env(env.unwrapped, skip_render_check=True)  # drawing is tested once below: it would take most of the time
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(100):
        obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        assert env.observation_space.contains(obs) and np.isfinite(reward)
        if terminated or truncated:
            env.reset()
    env.close()


def test_ids_are_task_and_robot_and_a_version():
    assert gymnasium_id("reach/fr3") == "poise/reach-fr3-v0" and gymnasium_id("Ant-v5") == "poise/Ant-v5"
    assert all(gymnasium_id(task) in gymnasium.registry for task in TASKS) and set(OWN) <= set(gymnasium.registry)


def test_one_world_plays_what_the_task_plays_and_goes_on_with_the_next_episode():
    env, ours = gymnasium.make(PLANAR), make("reach/planar-state", 1)
    assert np.array_equal(env.reset(seed=3)[0], ours.reset(3)["state"][0])
    for _ in range(60):  # 50 steps are an episode
        action = env.action_space.sample()
        obs, reward, terminated, truncated, info = env.step(action)
        step = ours.step(torch.from_numpy(action[None]))
        assert np.array_equal(obs, step.next_obs["state"][0]) and reward == step.reward[0].item()
        assert (terminated, truncated) == (bool(step.terminated[0]), bool(step.truncated[0]))
        assert info["is_success"] == bool(step.success[0])
        if truncated:
            assert np.array_equal(env.reset()[0], step.obs["state"][0])
    first = env.reset(seed=3)[0]
    assert not np.array_equal(env.reset()[0], first) and np.array_equal(env.reset(seed=3)[0], first)


def test_many_worlds_keep_the_contract_through_gymnasiums_vector_interface_and_the_true_ends():
    env = GymVecEnv(gymnasium.make_vec(PLANAR, num_envs=3, randomize="none"), name="vector")
    ours = make("reach/planar-state", 3)
    seed = int(env._stream.integer(0, 0)[0])  # the one number that the adapter resets the worlds with
    assert torch.equal(env.reset()["state"], ours.reset(seed)["state"])
    for _ in range(120):
        action = torch.rand(3, 2) * 2 - 1
        a, b = env.step(action), ours.step(action)
        for name in ("reward", "terminated", "truncated"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert torch.equal(a.obs["state"], b.obs["state"]) and torch.equal(a.next_obs["state"], b.next_obs["state"])


def test_a_registered_task_keeps_the_contract_through_our_own_adapter():
    check_vec_env(lambda n: make(f"gym:{PLANAR}", n), longest=60)


def test_options_pictures_and_what_is_not_known():
    env = gymnasium.make("poise/reach-planar-v0", render_mode="rgb_array")
    obs, _ = env.reset(seed=0)
    assert obs["camera"].shape == (84, 84, 3) and env.render().shape == (480, 640, 3)
    env.step(env.action_space.sample())
    env.close()
    with pytest.raises(UsageError, match="option of reach/planar 'colour'"):
        gymnasium.make("poise/reach-planar-v0", colour="red")
    with pytest.raises(UsageError, match="render_mode 'human': expected 'rgb_array' or None"):
        gymnasium.make_vec("poise/reach-planar-v0", num_envs=2, render_mode="human")


def test_importing_the_registration_loads_neither_torch_nor_mujoco():
    code = "import sys, poise.envs; assert not {'torch', 'mujoco'} & set(sys.modules)"
    subprocess.run([sys.executable, "-P", "-W", "error", "-c", code], check=True, timeout=60)


def _score(model, episodes: int = 40) -> float:
    env, returns = gymnasium.make(PLANAR), []
    for episode in range(episodes):
        obs, _ = env.reset(seed=1000 + episode)
        total, over = 0.0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(model.predict(obs, deterministic=True)[0])
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return float(np.mean(returns))


@pytest.mark.learning
def test_stable_baselines3_learns_a_native_task():
    """SAC with the library's own settings: 6,000 steps of reach/planar-state."""
    from stable_baselines3 import SAC

    torch.set_num_threads(1)
    model = SAC("MlpPolicy", gymnasium.make(PLANAR), seed=0, device="cpu")
    before = _score(model)
    model.learn(6_000)
    after = _score(model)
    print(f"Stable-Baselines3's SAC on {PLANAR}: {before:.1f} before, {after:.1f} after 6,000 steps")
    assert after > before + 20.0


def test_stable_baselines3_takes_a_native_task_and_trains_on_it():
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_checker import check_env as check_for_stable_baselines3

    env = gymnasium.make(PLANAR)
    check_for_stable_baselines3(env)
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=32, seed=0, device="cpu")
    weights = [p.detach().clone() for p in model.policy.parameters()]
    model.learn(128)
    assert any(not torch.equal(a, b) for a, b in zip(weights, model.policy.parameters(), strict=True))
