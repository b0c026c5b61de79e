"""Batch: one selection or one device for every field at once."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from poise.batch import Batch, Sample


def batch(**optional) -> Batch:
    return Batch(
        obs={"state": torch.arange(12.0).reshape(4, 3), "goal": torch.arange(4.0)[:, None]},
        action=torch.arange(8.0).reshape(4, 2),
        reward=torch.tensor([0.0, 1.0, 2.0, 3.0]),
        next_obs={"state": torch.arange(12.0).reshape(4, 3) + 100},
        terminated=torch.tensor([True, False, False, False]),
        truncated=torch.tensor([False, False, True, False]),
        **optional,
    )


def test_an_episode_is_done_when_it_terminates_or_is_truncated():
    assert batch().done.tolist() == [True, False, True, False]


@pytest.mark.parametrize("rows", [torch.tensor([3, 0, 3]), torch.tensor([True, False, True, True]), slice(1, 4)])
def test_index_takes_the_same_rows_of_every_field(rows):
    original = batch(weight=torch.arange(4.0) * 10, extras={"log_prob": torch.arange(4.0) * -1})
    chosen = original.index(rows)
    assert torch.equal(chosen.obs["state"], original.obs["state"][rows])
    assert torch.equal(chosen.obs["goal"], original.obs["goal"][rows])
    assert torch.equal(chosen.next_obs["state"], original.next_obs["state"][rows])
    for name in ("action", "reward", "terminated", "truncated", "weight"):
        assert torch.equal(getattr(chosen, name), getattr(original, name)[rows]), name
    assert torch.equal(chosen.extras["log_prob"], original.extras["log_prob"][rows])
    assert chosen.mask is None and chosen.mc_return is None


def test_index_of_one_row_drops_the_leading_axis():
    assert batch().index(2).reward.item() == 2.0


def test_to_moves_every_field_and_keeps_absent_ones_absent():
    moved = batch(steps=torch.ones(4), extras={"value": torch.zeros(4)}).to("meta")  # a device without memory
    tensors = [*moved.obs.values(), *moved.next_obs.values(), *moved.extras.values(), moved.action, moved.reward,
               moved.terminated, moved.truncated, moved.steps]  # fmt: skip
    assert {t.device.type for t in tensors} == {"meta"}
    assert moved.mask is None and moved.rows is None


def test_a_batch_and_a_sample_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch().reward = torch.zeros(4)  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sample(4).length = 2  # type: ignore[misc]


def test_a_sample_asks_for_single_steps_unless_told():
    assert Sample(256).length == 1
