"""The running scale of rewards: by hand, over ends of episodes, and saved."""

import pytest
import torch

from poise.policies.reward_scale import RewardScale

NO = torch.tensor([False])


def scale_of(rewards: RewardScale) -> float:
    return 1.0 / float(rewards(torch.ones(1)))


def test_the_largest_sum_fits_between_the_ends():
    rewards = RewardScale(1, 0.5, 2.0, torch.device("cpu"))
    for _ in range(3):  # G is 8, 12, 14
        rewards.update(torch.tensor([8.0]), NO)
    assert scale_of(rewards) == pytest.approx(14.0 / 2.0)


def test_sums_begin_anew_with_an_episode_and_steps_that_are_none_do_not_count():
    rewards = RewardScale(2, 0.5, 1.0, torch.device("cpu"))
    rewards.update(torch.tensor([4.0, 4.0]), torch.tensor([True, False]))
    rewards.update(torch.tensor([4.0, 100.0]), torch.tensor([False, False]), torch.tensor([True, False]))
    assert scale_of(rewards) == pytest.approx(4.0)  # world 0 began anew, world 1 made no step
    rewards.update(torch.tensor([0.0, 4.0]), torch.tensor([False, False]))
    assert scale_of(rewards) == pytest.approx(6.0)


def test_a_steady_spread_of_sums_gives_the_deviation():
    rewards, g = RewardScale(64, 0.0, 1e6, torch.device("cpu")), torch.Generator().manual_seed(0)
    for _ in range(100):
        rewards.update(3.0 * torch.randn(64, generator=g), torch.zeros(64, dtype=torch.bool))
    assert scale_of(rewards) == pytest.approx(3.0, rel=0.05)


def test_saved_and_loaded_it_goes_on_the_same():
    one, two = (RewardScale(3, 0.9, 5.0, torch.device("cpu")) for _ in range(2))
    one.update(torch.randn(3), torch.zeros(3, dtype=torch.bool))
    two.load_state_dict(one.state_dict())
    for rewards in (one, two):
        rewards.update(torch.tensor([1.0, -2.0, 3.0]), torch.zeros(3, dtype=torch.bool))
    assert scale_of(one) == scale_of(two)
