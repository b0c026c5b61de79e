"""The rollout hands over exactly what happened, with true successors, once."""

import numpy as np
import pytest
import torch

from poise.batch import Sample, Step
from poise.datasets.rollout import Rollout
from poise.errors import RunError, UsageError
from poise.spec import ActionTerm, ObsTerm, Spec

N, T = 3, 5
SPEC = Spec({"state": (ObsTerm("x", (2,)),)}, (ActionTerm("u", "control", low=(-1.0,), high=(1.0,)),), 0.05)
WHOLE = Sample(batch_size=0, length=T)
RNG = np.random.default_rng(0)


def fill(rollout, ends=(), mask=None):
    """T steps of random experience; at (world, step) in `ends` an episode is truncated. Returns all (obs, Step)."""
    generator = torch.Generator().manual_seed(1)
    obs, seen = torch.randn(N, 2, generator=generator), []
    for t in range(T):
        successor = torch.randn(N, 2, generator=generator)
        truncated = torch.tensor([(n, t) in ends for n in range(N)])
        after = torch.where(truncated[:, None], torch.full((N, 2), 100.0 + t), successor)  # reset observations
        step = Step({"state": after}, {"state": successor}, torch.randn(N, generator=generator),
                    torch.zeros(N, dtype=torch.bool), truncated, mask=None if mask is None else mask[:, t])  # fmt: skip
        action = torch.randn(N, 1, generator=generator)
        rollout.add({"state": obs}, action, {"log_prob": action[:, 0] * 2}, step)
        seen.append((obs, action, step))
        obs = after
    return seen


@pytest.mark.parametrize("ends", [(), ((0, 1),), ((0, 0), (1, 2), (2, 4), (0, 3), (1, 3))])
def test_every_field_is_what_happened_and_successors_are_true_also_at_episode_ends(ends):
    rollout = Rollout(SPEC, N, T)
    seen = fill(rollout, ends)
    assert rollout.num_rows == N * T
    batch = rollout.sample(WHOLE, RNG)
    for t, (obs, action, step) in enumerate(seen):
        torch.testing.assert_close(batch.obs["state"][:, t], obs, rtol=0, atol=0)
        torch.testing.assert_close(batch.next_obs["state"][:, t], step.next_obs["state"], rtol=0, atol=0)
        torch.testing.assert_close(batch.action[:, t], action, rtol=0, atol=0)
        torch.testing.assert_close(batch.extras["log_prob"][:, t], action[:, 0] * 2, rtol=0, atol=0)
        assert torch.equal(batch.reward[:, t], step.reward)
        assert torch.equal(batch.truncated[:, t], step.truncated)
        assert not batch.terminated[:, t].any()
    assert batch.obs["state"].shape == batch.next_obs["state"].shape == (N, T, 2)
    assert batch.mask is None


def test_rows_that_are_no_transition_come_back_in_the_mask():
    mask = torch.ones(N, T, dtype=torch.bool)
    mask[1, 3] = False
    rollout = Rollout(SPEC, N, T)
    fill(rollout, ends=((1, 2),), mask=mask)
    assert torch.equal(rollout.sample(WHOLE, RNG).mask, mask)


def test_a_mask_that_comes_in_the_middle_is_kept():
    rollout = Rollout(SPEC, N, T)
    mask = torch.ones(N, T, dtype=torch.bool)
    mask[0, 2] = False
    for t in range(T):
        said = mask[:, t] if t == 2 else None
        x = torch.zeros(N, 2)
        no = torch.zeros(N, dtype=torch.bool)
        rollout.add(
            {"state": x}, torch.zeros(N, 1), {}, Step({"state": x}, {"state": x}, no.float(), no, no, None, said)
        )
    assert torch.equal(rollout.sample(WHOLE, RNG).mask, mask)


def test_a_batch_stays_as_it_was_while_the_next_rollout_is_collected():
    rollout = Rollout(SPEC, N, T)
    fill(rollout, ends=((0, 1),))
    batch = rollout.sample(WHOLE, RNG)
    assert rollout.num_rows == 0
    before = {"obs": batch.obs["state"].clone(), "next": batch.next_obs["state"].clone(), "r": batch.reward.clone()}
    fill(rollout)
    assert torch.equal(batch.obs["state"], before["obs"])
    assert torch.equal(batch.next_obs["state"], before["next"])
    assert torch.equal(batch.reward, before["r"])


def test_images_and_what_networks_remember_keep_shape_and_type():
    spec = Spec({"camera": (ObsTerm("pixels", (4, 3, 1), dtype="uint8", history=3),)}, SPEC.actions, 0.05)
    rollout, no = Rollout(spec, N, T), torch.zeros(N, dtype=torch.bool)
    frame = [torch.full((N, 4, 3, 1), 10 * t, dtype=torch.uint8) for t in range(T + 1)]
    for t in range(T):
        end = torch.tensor([False, t == 1, False])
        after = torch.where(end.view(N, 1, 1, 1), torch.tensor(255, dtype=torch.uint8), frame[t + 1])
        hidden = torch.full((N, 2, 7), float(t))  # layers, units
        earlier = torch.full((N, 4, 3, 2), t, dtype=torch.uint8)  # the frames before, as the learner's state has them
        rollout.add({"camera": frame[t]}, torch.zeros(N, 1), {"lstm": hidden, "history.camera": earlier},
                    Step({"camera": frame[t + 1]}, {"camera": after}, torch.zeros(N), no, end))  # fmt: skip
    batch = rollout.sample(WHOLE, RNG)
    assert batch.obs["camera"].shape == (N, T, 4, 3, 1) and batch.obs["camera"].dtype == torch.uint8
    assert batch.obs["camera"][0, :, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert batch.next_obs["camera"][0, :, 3, 2, 0].tolist() == [10, 20, 30, 40, 50]
    assert batch.next_obs["camera"][1, :, 3, 2, 0].tolist() == [10, 255, 30, 40, 50]
    assert batch.extras["lstm"].shape == (N, T, 2, 7) and batch.extras["lstm"][2, :, 1, 6].tolist() == [0, 1, 2, 3, 4]
    assert batch.extras["history.camera"].shape == (N, T, 4, 3, 2)
    assert batch.extras["history.camera"].dtype == torch.uint8


def test_a_batch_is_the_caller_s_to_write_on():
    rollout = Rollout(SPEC, N, T)
    seen = fill(rollout, ends=((0, 1), (2, 3)))
    before = [(obs.clone(), step.next_obs["state"].clone(), step.reward.clone()) for obs, _, step in seen]
    batch = rollout.sample(WHOLE, RNG)
    for x in (batch.obs["state"], batch.next_obs["state"], batch.reward):
        x.fill_(7.0)
    for (obs, _, step), kept in zip(seen, before, strict=True):
        for x, y in zip((obs, step.next_obs["state"], step.reward), kept, strict=True):
            assert torch.equal(x, y)


def test_requests_that_a_rollout_cannot_serve_are_refused():
    rollout = Rollout(SPEC, N, T)
    with pytest.raises(UsageError, match="holds 0 of 5 steps"):
        rollout.sample(WHOLE, RNG)
    seen = fill(rollout)
    with pytest.raises(UsageError, match=r"handed out whole, as Sample\(batch_size=0, length=5\)"):
        rollout.sample(Sample(batch_size=32), RNG)
    with pytest.raises(UsageError, match="is full"):
        rollout.add({"state": seen[0][0]}, seen[0][1], {"log_prob": seen[0][1][:, 0]}, seen[0][2])


def test_a_rollout_is_saved_only_when_empty(tmp_path):
    rollout = Rollout(SPEC, N, T)
    assert rollout.save(tmp_path) == {}
    fill(rollout)
    with pytest.raises(RunError, match="between iterations"):
        rollout.save(tmp_path)
    rollout.load(tmp_path, {})
    assert rollout.num_rows == 0
    assert list(tmp_path.iterdir()) == []
