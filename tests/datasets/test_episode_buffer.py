"""Whole episodes of one policy: which are taken, which are not, and what is saved in between."""

import numpy as np
import pytest
import torch

from poise.batch import Sample, Step
from poise.datasets.episode_buffer import EpisodeBuffer
from poise.errors import RunError, UsageError
from poise.spec import ActionTerm, ObsTerm, Spec

SPEC = Spec({"state": (ObsTerm("x", (1,)),)}, (ActionTerm("a", "discrete", n=2),), 0.1)
ALL, RNG = Sample(batch_size=0), np.random.default_rng(0)


def fill(buffer: EpisodeBuffer, ends: list[str], start: int = 0, skipped: tuple[tuple[int, int], ...] = ()) -> None:
    """Steps of two worlds: "." goes on, "t" terminates, "c" is cut by time. World w is at 100 w + step number."""
    for t, marks in enumerate(zip(*ends, strict=True), start):
        here = torch.tensor([[float(t)], [100.0 + t]])
        ended, cut = (torch.tensor([m == kind for m in marks]) for kind in "tc")
        mask = torch.tensor([(w, t) not in skipped for w in range(2)]) if skipped else None
        step = Step({"state": here + 1}, {"state": here + 0.5}, here[:, 0], ended, cut, mask=mask)
        buffer.add({"state": here}, torch.full((2, 1), t % 2), {"raw": here[:, 0]}, step)


def test_episodes_are_padded_in_the_order_of_worlds_with_true_successors():
    buffer = EpisodeBuffer(SPEC, 2, 1)
    fill(buffer, ["..t", ".c."])
    assert buffer.ready
    batch = buffer.sample(ALL, RNG)
    assert batch.mask is not None
    assert batch.mask.tolist() == [[True, True, True], [True, True, False]]
    assert batch.obs["state"][..., 0].tolist() == [[0, 1, 2], [100, 101, 0]]
    assert batch.next_obs["state"][..., 0].tolist() == [[0.5, 1.5, 2.5], [100.5, 101.5, 0]]
    assert batch.reward.tolist() == [[0, 1, 2], [100, 101, 0]] == batch.extras["raw"].tolist()
    assert batch.action[..., 0].tolist() == [[0, 1, 0], [0, 1, 0]]
    assert batch.terminated.tolist() == [[False, False, True], [False] * 3]
    assert batch.truncated.tolist() == [[False] * 3, [False, True, False]]


def test_a_quick_world_does_not_crowd_out_a_slow_one():
    buffer = EpisodeBuffer(SPEC, 2, 2)
    fill(buffer, ["tttttt", "..t..t"])
    batch = buffer.sample(ALL, RNG)
    assert batch.mask is not None and batch.mask.sum(1).tolist() == [1, 1, 3, 3]
    assert batch.reward[:2, 0].tolist() == [0, 1]


def test_an_episode_that_was_open_when_the_policy_changed_is_left_out():
    buffer = EpisodeBuffer(SPEC, 2, 1)
    fill(buffer, ["..t", ".t."])  # world 1 is in its second episode
    buffer.sample(ALL, RNG)
    fill(buffer, ["t..", ".t."], start=3)
    assert not buffer.ready  # that episode of world 1 began under the policy before
    fill(buffer, [".", "t"], start=6)
    batch = buffer.sample(ALL, RNG)
    assert batch.mask is not None and batch.mask.sum(1).tolist() == [1, 2]
    assert batch.reward.tolist() == [[3, 0], [105, 106]]


def test_an_episode_that_begins_with_the_new_policy_counts():
    buffer = EpisodeBuffer(SPEC, 2, 1)
    fill(buffer, ["t", "t"])
    buffer.sample(ALL, RNG)
    fill(buffer, [".t", "t."], start=1)
    assert buffer.sample(ALL, RNG).reward.tolist() == [[1, 2], [101, 0]]


def test_a_step_that_a_simulator_used_up_to_reset_is_no_part_of_an_episode():
    buffer = EpisodeBuffer(SPEC, 2, 2)
    fill(buffer, ["t..t", "t.t."], skipped=((0, 1), (1, 1)))
    batch = buffer.sample(ALL, RNG)
    assert batch.mask is not None and batch.mask.sum(1).tolist() == [1, 2, 1, 1]
    assert batch.reward.tolist() == [[0, 0], [2, 3], [100, 0], [102, 0]]


def test_what_was_saved_goes_on_as_if_nothing_had_happened(tmp_path):
    first, second = EpisodeBuffer(SPEC, 2, 2), EpisodeBuffer(SPEC, 2, 2)
    fill(first, ["t.", ".."])
    second.load(tmp_path, first.save(tmp_path))
    batches = []
    for buffer in (first, second):
        fill(buffer, ["t..", "t.t"], start=2)
        batches.append(buffer.sample(ALL, RNG))
    for name in ("reward", "mask", "action", "terminated"):
        assert torch.equal(getattr(batches[0], name), getattr(batches[1], name))
    empty = EpisodeBuffer(SPEC, 2, 1)
    second.load(tmp_path, empty.save(tmp_path))
    assert second.num_rows == 0 and not second.ready


def test_a_save_at_the_same_step_leaves_the_file_of_the_one_before_alone(tmp_path, monkeypatch):
    buffer = EpisodeBuffer(SPEC, 2, 1)
    fill(buffer, ["..", "t."])
    manifest = buffer.save(tmp_path)
    for _ in range(2):
        buffer = EpisodeBuffer(SPEC, 2, 1)
        buffer.load(tmp_path, manifest)
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space"):
                buffer.save(tmp_path)
    buffer.load(tmp_path, manifest)
    assert buffer.num_rows == 4


def test_refusals_say_what_to_do(tmp_path):
    buffer = EpisodeBuffer(SPEC, 2, 1)
    fill(buffer, ["t", "."])
    with pytest.raises(UsageError, match="1 of 2 episodes are complete; collect on"):
        buffer.sample(ALL, RNG)
    with pytest.raises(UsageError, match=r"all at once, as Sample\(batch_size=0\)"):
        buffer.sample(Sample(4), RNG)
    with pytest.raises(UsageError, match="no priorities"):
        buffer.set_priorities(None, torch.zeros(1))
    with pytest.raises(RunError, match="of 2 worlds, this run has 3"):
        EpisodeBuffer(SPEC, 3, 1).load(tmp_path, buffer.save(tmp_path))
