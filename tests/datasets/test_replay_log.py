"""A replay as a log: every transition to the bit, cut at ends, and what is said of episodes that are parts."""

import numpy as np
import pytest
import torch

from poise.batch import Sample, Step
from poise.datasets.replay import Replay
from poise.datasets.replay_log import replay_log
from poise.errors import DatasetError, RunError, UsageError
from poise.spec import ActionTerm, ObsTerm, Spec

MOTORS = ActionTerm("motors", "control", low=(-1.0, -1.0), high=(1.0, 1.0))
SPEC = Spec({"state": (ObsTerm("x", (3,)),), "camera": (ObsTerm("pixels", (2, 2, 1), dtype="uint8", history=3),)},
            (MOTORS,), control_dt=0.05)  # fmt: skip


def filled(ends: list[str], capacity: int = 1000, spec: Spec = SPEC) -> Replay:
    """Random numbers; `ends` has a character a world for every step: . goes on, t terminated, u truncated, m masked."""
    n, rng = len(ends[0]), torch.Generator().manual_seed(0)
    replay = Replay(spec, n, capacity)

    def seen() -> dict[str, torch.Tensor]:
        return {"state": torch.rand(n, 3, generator=rng),
                "camera": torch.randint(0, 255, (n, 2, 2, 1), generator=rng).to(torch.uint8)}  # fmt: skip

    obs = seen()
    for end in ends:
        next_obs, fresh = seen(), seen()
        over = torch.tensor([e in "tum" for e in end])
        after = {g: torch.where(over.view(-1, *[1] * (x.ndim - 1)), fresh[g], x) for g, x in next_obs.items()}
        step = Step(after, next_obs, torch.rand(n, generator=rng), torch.tensor([e == "t" for e in end]),
                    torch.tensor([e == "u" for e in end]), mask=torch.tensor([e != "m" for e in end]))  # fmt: skip
        replay.add(obs, torch.rand(n, 2, generator=rng), {}, step)
        obs = after
    return replay


def rows_of(log) -> dict[tuple, tuple]:
    """Every transition of a log by its observation: what an unordered comparison needs."""
    found = {}
    for e in log.episodes:
        for i in range(e.steps):
            state, camera = e.columns["obs/state"][i], e.columns["obs/camera"][i]
            found[state.tobytes(), camera.tobytes()] = (
                e.columns["next_obs/state"][i].tobytes(), e.columns["next_obs/camera"][i].tobytes(),
                e.columns["actions"][i].tobytes(), e.columns["rewards"][i].tobytes(),
                bool(e.columns["terminations"][i]),
            )  # fmt: skip
    return found


def test_every_transition_of_the_replay_is_in_the_log_to_the_bit(tmp_path):
    ends = [".t", "..", "u.", ".m", "..", "t.", "..", ".u", ".."]
    replay = filled(ends)
    log = replay_log(tmp_path, replay.save(tmp_path), SPEC)
    batch = replay.sample(Sample(0), np.random.default_rng(0))
    assert log.steps == replay.num_rows == 17
    rows = rows_of(log)
    for i in range(17):
        newest = batch.obs["camera"][i, :, :, -1:].contiguous()
        expected = (batch.next_obs["state"][i], batch.next_obs["camera"][i, :, :, -1:].contiguous(), batch.action[i],
                    batch.reward[i])  # fmt: skip
        found = rows[batch.obs["state"][i].numpy().tobytes(), newest.numpy().tobytes()]
        assert found == (*(x.numpy().tobytes() for x in expected), bool(batch.terminated[i]))


def test_episodes_are_cut_at_ends_and_at_missing_steps_and_follow_each_other_by_their_first_step(tmp_path):
    log = replay_log(tmp_path, filled([".t", "..", "u.", ".m", "..", "t."]).save(tmp_path), SPEC)
    told = [(e.attributes["world"], e.attributes["first_step"], e.steps, e.attributes.get("cut", False))
            for e in log.episodes]  # fmt: skip
    assert told == [(0, 0, 3, False), (1, 1, 1, False), (1, 3, 2, True), (0, 6, 3, False), (1, 9, 2, True)]
    assert [e.name for e in log.episodes] == [f"demo_{i}" for i in range(5)]
    first, last = log.episodes[0], log.episodes[-1]
    assert first.columns["truncations"].tolist() == [False, False, True]
    assert last.columns["truncations"].tolist() == [False, True] and not last.columns["terminations"].any()
    np.testing.assert_array_equal(first.columns["next_obs/state"][:-1], first.columns["obs/state"][1:])
    assert first.attributes["episode_return"] == pytest.approx(first.columns["rewards"].sum())
    assert log.notes == ("2 of 5 episodes were still going on: their last step is marked truncated: demo_2, demo_4",)


def test_the_first_steps_of_a_run_are_those_of_the_replay_at_that_time(tmp_path):
    ends = [".t", "..", "u.", "..", "..", "t."]
    log = replay_log(tmp_path, filled(ends).save(tmp_path), SPEC, first=7)
    assert log.steps == 7 and [e.steps for e in log.episodes] == [3, 1, 2, 1]
    early = filled(ends[:3])
    assert rows_of(log).items() >= rows_of(replay_log(tmp_path / "b", _saved(early, tmp_path / "b"), SPEC)).items()


def _saved(replay: Replay, folder) -> dict:
    folder.mkdir()
    return replay.save(folder)


def test_episodes_whose_beginning_was_overwritten_say_so_and_lost_steps_are_not_promised(tmp_path):
    replay = filled(["..", "..", "..", "t.", "..", ".."], capacity=6)  # 3 rows of 2, and 2 more for stacks
    log = replay_log(tmp_path, replay.save(tmp_path), SPEC)
    assert [e.attributes.get("beginning_lost", False) for e in log.episodes] == [True, True, False]
    assert "2 of 3 episodes may lack their beginning" in log.notes[1]
    with pytest.raises(DatasetError, match="none of its first 2"):
        replay_log(tmp_path, replay.save(tmp_path), SPEC, first=2)


def test_what_is_no_replay_of_such_a_task_is_refused(tmp_path):
    manifest = filled(["..", ".."]).save(tmp_path)
    with pytest.raises(UsageError, match="first = 0"):
        replay_log(tmp_path, manifest, SPEC, first=0)
    with pytest.raises(RunError, match="observation group 'camera', which the task has not"):
        replay_log(tmp_path, manifest, SPEC.only(["state"]))
    with pytest.raises(DatasetError, match="no transition yet"):
        replay_log(tmp_path, {**manifest, "segments": [], "steps": 0}, SPEC)
    next(tmp_path.glob("replay-*")).write_bytes(b"nothing")
    with pytest.raises(RunError, match=r"cannot read .*replay-0-2"):
        replay_log(tmp_path, manifest, SPEC)
