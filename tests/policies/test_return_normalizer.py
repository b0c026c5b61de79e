"""The running deviation of the discounted return, against a plain loop over steps, across rollouts and episode ends."""

import math

import pytest
import torch

import poise
from poise.policies.return_normalizer import ReturnNormalizer


def test_it_follows_the_returns_of_every_world_across_rollouts_and_restarts_with_episodes():
    g = torch.Generator().manual_seed(0)
    reward = torch.randn(3, 24, generator=g) * 5.0 + 1.0
    done = torch.rand(3, 24, generator=g) < 0.2
    normalizer, running, seen = ReturnNormalizer(3, 0.9), torch.zeros(3), []
    for t in range(24):
        running = reward[:, t] + 0.9 * running
        seen.append(running.clone())
        running = torch.where(done[:, t], 0.0, running)
    raw = reward.clone()
    for part in range(3):
        normalizer.update(reward[:, 8 * part : 8 * part + 8], done[:, 8 * part : 8 * part + 8])
    assert torch.equal(raw, reward)
    expected = torch.stack(seen).double().std(correction=0).item()
    assert normalizer.scale.item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(normalizer(reward), reward / expected)
    assert normalizer(torch.tensor([1e6, -1e6])).tolist() == [10.0, -10.0]


def test_rows_that_are_no_transition_count_for_nothing():
    plain, masked = ReturnNormalizer(2, 0.9), ReturnNormalizer(2, 0.9)
    reward = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.5, 1.0, -1.0, 2.0]])
    done = torch.tensor([[False, True, False, False], [False, True, False, False]])
    plain.update(reward, done)
    wide = torch.cat([reward[:, :2], torch.full((2, 1), math.inf), reward[:, 2:]], 1)
    wide_done = torch.cat([done[:, :2], torch.zeros(2, 1, dtype=torch.bool), done[:, 2:]], 1)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[:, 2] = False
    masked.update(wide, wide_done, mask)
    assert torch.equal(plain.scale, masked.scale) and torch.equal(plain.carry, masked.carry)


def test_it_is_restored_to_the_bit():
    a, b = ReturnNormalizer(2, 0.99), ReturnNormalizer(2, 0.99)
    reward, done = torch.tensor([[1.0, 5.0], [2.0, -3.0]]), torch.zeros(2, 2, dtype=torch.bool)
    a.update(reward, done)
    b.load_state_dict(a.state_dict())
    for normalizer in (a, b):
        normalizer.update(reward, done)
    assert torch.equal(a.scale, b.scale) and torch.equal(a.carry, b.carry)


def test_the_scale_of_rewards_travels_in_the_policy_file(tmp_path):
    settings = {"seed": 0, "steps": 512, "collect_steps": 64, "minibatches": 4, "evaluations": 0}
    run = poise.train("ppo/mujoco", "gym:Pendulum-v1", tmp_path / "run", settings=settings)
    policy = poise.load_policy(run.policy)
    assert policy.provenance["reward_scale"] > 1.0  # Pendulum's rewards are of order -5
    assert policy.provenance["task"] == "gym:Pendulum-v1"
