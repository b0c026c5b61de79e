"""Catch against a board worked out by hand, and CartPole with hidden velocities against the open one."""

import gymnasium
import numpy as np
import pytest
import torch

from conformance import check_vec_env
from poise.keyed import Stream
from poise.sim.make import make
from poise.sim.tasks.catch import Catch

IDS = ["gym:poise/Catch-v0", "gym:poise/CartPoleHidden-v0"]


@pytest.mark.parametrize("id", IDS)
def test_poise_s_own_environments_keep_the_contract(id):
    check_vec_env(lambda n: make(id, n))


def cells(frame):
    """(row, column) of the cells that are lit, and whether each is lit as a whole and nothing else is."""
    lit = [(r, c) for r in range(10) for c in range(5) if frame[2 + 8 * r, 2 + 16 * c, 0]]
    again = np.zeros_like(frame)
    for r, c in lit:
        again[2 + 8 * r : 10 + 8 * r, 2 + 16 * c : 18 + 16 * c] = 255
    np.testing.assert_array_equal(again, frame)
    return lit


@pytest.mark.parametrize(
    ("column", "action", "reward"), [(2, 1, 1.0), (1, 1, -1.0), (4, 2, 1.0), (0, 0, 1.0), (3, 0, -1.0)]
)
def test_the_ball_falls_a_row_a_step_and_the_paddle_stops_at_the_walls(column, action, reward):
    env = Catch()
    seed = next(s for s in range(100) if cells(env.reset(seed=s)[0])[0] == (0, column))
    assert cells(env.reset(seed=seed)[0]) == [(0, column), (9, 2)]
    for t in range(1, 10):
        frame, r, terminated, truncated, info = env.step(action)
        paddle = min(max(2 + (action - 1) * t, 0), 4)
        assert set(cells(frame)) == {(t, column), (9, paddle)}
        assert (r, terminated, truncated) == ((reward, True, False) if t == 9 else (0.0, False, False))
        assert info["is_success"] == (t == 9 and reward > 0)


def test_catch_is_worth_one_played_well_and_about_minus_six_tenths_at_random():
    env, generator = make("gym:poise/Catch-v0", 50), torch.Generator().manual_seed(0)
    assert (env.spec.images, env.spec.vectors, env.spec.choices, env.spec.history("camera")) == (("camera",), (), 3, 4)
    for follow, low, high in ((True, 1.0, 1.0), (False, -0.7, -0.5)):
        obs, total, ends = env.reset(3)["camera"], 0.0, 0
        for _ in range(9 * 20):
            action = torch.randint(3, (50, 1), generator=generator)
            if follow:
                ball = obs[:, 2:74:8, 2:82:16, 0].amax(1).int().argmax(1)
                paddle = obs[:, 76, 2:82:16, 0].int().argmax(1)
                action = 1 + (ball - paddle).sign()[:, None]
            step = env.step(action)
            obs, total, ends = step.obs["camera"], total + float(step.reward.sum()), ends + int(step.done.sum())
        assert ends == 20 * 50 and low <= total / ends <= high


def test_an_episode_of_catch_is_a_function_of_seed_world_and_episode():
    env = make("gym:poise/Catch-v0", 3)
    obs = env.reset(5)["camera"]
    for episode in range(4):
        for world in range(3):
            key = int(Stream(5, "gym/episode").integer(world, episode)[0])
            np.testing.assert_array_equal(obs[world].numpy(), Catch().reset(seed=key)[0])
        for _ in range(9):
            obs = env.step(torch.ones(3, 1, dtype=torch.int64)).obs["camera"]


def test_hidden_cartpole_is_cartpole_without_its_velocities():
    hidden, plain = make("gym:poise/CartPoleHidden-v0", 1), gymnasium.make("CartPole-v1")
    seen = hidden.reset(2)["state"]
    whole, _ = plain.reset(seed=int(Stream(2, "gym/episode").integer(0, 0)[0]))
    assert hidden.max_episode_steps == 500
    for action in (0, 1) * 10:
        assert seen[0].tolist() == whole[[0, 2]].tolist()
        step = hidden.step(torch.tensor([[action]]))
        whole, reward, terminated, _, _ = plain.step(action)
        assert (float(step.reward), bool(step.terminated)) == (reward, terminated)
        seen = step.next_obs["state"]
    assert torch.isfinite(seen).all()
