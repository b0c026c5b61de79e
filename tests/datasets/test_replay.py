"""Replay against a plain list of transitions, and its memory, speed and files."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.batch import Sample, Step
from poise.datasets.replay import Replay
from poise.errors import RunError, UsageError
from poise.spec import ActionTerm, ObsTerm, Spec

DIM, ACTIONS = 3, 2
ALL = Sample(0)


def spec(dim=DIM, actions=ACTIONS) -> Spec:
    term = ActionTerm("motors", "control", low=(-1.0,) * actions, high=(1.0,) * actions)
    return Spec({"state": (ObsTerm("x", (dim,)),), "camera": (ObsTerm("pixels", (2, 2, 1), dtype="uint8"),)},
                (term,), control_dt=0.05)  # fmt: skip


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


class Worlds:
    """N made-up worlds whose every observation is unlike any other; the oracle keeps a list of transitions."""

    def __init__(self, num_envs: int, dim: int = DIM, actions: int = ACTIONS):
        self.n, self.dim, self.actions, self.count = num_envs, dim, actions, 0
        self.obs = self._fresh(range(num_envs))
        self.rows: list[list[dict]] = []  # one list of transitions a step; None stands for a masked one

    def _fresh(self, worlds) -> dict[str, torch.Tensor]:
        numbers = self.count + torch.arange(len(worlds))
        self.count += len(worlds)
        state = numbers[:, None] + torch.arange(self.dim) / 16.0
        return {"state": state, "camera": numbers[:, None].expand(-1, 4).to(torch.uint8).view(-1, 2, 2, 1)}

    def play(self, replay: Replay, ends: list[str]) -> None:
        """One step of every world; `ends` says for each: "" goes on, "t" terminated, "u" truncated, "m" masked."""
        next_obs = self._fresh(ends)
        obs = {g: v.clone() for g, v in next_obs.items()}
        new = self._fresh(ends)
        for w, end in enumerate(ends):
            if end in ("t", "u"):
                for g in obs:
                    obs[g][w] = new[g][w]
        step = Step(obs, next_obs, torch.rand(self.n), torch.tensor([e == "t" for e in ends]),
                    torch.tensor([e == "u" for e in ends]), mask=torch.tensor([e != "m" for e in ends]))  # fmt: skip
        action = torch.rand(self.n, self.actions)
        replay.add(self.obs, action, {}, step)
        self.rows.append([
            None if end == "m" else {
                "state": self.obs["state"][w], "camera": self.obs["camera"][w], "action": action[w],
                "next_state": next_obs["state"][w], "next_camera": next_obs["camera"][w], "reward": step.reward[w],
                "terminated": step.terminated[w], "truncated": step.truncated[w],
            } for w, end in enumerate(ends)
        ])  # fmt: skip
        self.obs = obs

    def kept(self, rows: int) -> list[dict]:
        return [t for row in self.rows[-rows:] for t in row if t is not None]


def transitions(batch) -> list[dict]:
    parts = {"state": batch.obs["state"], "camera": batch.obs["camera"], "next_state": batch.next_obs["state"],
             "next_camera": batch.next_obs["camera"], "action": batch.action, "reward": batch.reward,
             "terminated": batch.terminated, "truncated": batch.truncated}  # fmt: skip
    return [{k: v[i] for k, v in parts.items()} for i in range(len(batch.reward))]


def assert_same(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@st.composite
def histories(draw):
    """(worlds, ring rows, what happens to every world at every step)."""
    n, rows, steps = draw(st.integers(1, 3)), draw(st.integers(2, 7)), draw(st.integers(1, 24))
    end = st.sampled_from(["", "", "", "t", "u", "m"])
    return n, rows, draw(st.lists(st.lists(end, min_size=n, max_size=n), min_size=steps, max_size=steps))


@given(histories())
def test_holds_the_transitions_of_a_plain_list(history):
    n, rows, steps = history
    replay, worlds = Replay(spec(), n, rows * n), Worlds(n)
    for ends in steps:
        worlds.play(replay, ends)
        expected = worlds.kept(rows)
        assert replay.num_rows == len(expected)
        assert_same(transitions(replay.sample(ALL, rng())), expected)
    if expected:
        drawn = transitions(replay.sample(Sample(len(expected)), rng()))
        known = {float(t["state"][0]): t for t in expected}
        assert_same(drawn, [known[float(t["state"][0])] for t in drawn])


@given(histories(), st.data())
def test_a_saved_buffer_goes_on_to_the_bit(tmp_path_factory, history, data):
    n, rows, steps = history
    folder = tmp_path_factory.mktemp("segments")
    replay, worlds = Replay(spec(), n, rows * n), Worlds(n)
    saves = data.draw(st.sets(st.integers(0, len(steps) - 1), min_size=1), label="saves after")
    for i, ends in enumerate(steps):
        worlds.play(replay, ends)
        if i in saves:
            manifest = replay.save(folder)
            copy = Replay(spec(), n, rows * n)
            copy.load(folder, manifest)
            assert_same(transitions(copy.sample(ALL, rng())), worlds.kept(rows))
            if data.draw(st.booleans(), label="go on with the copy"):
                replay = copy
    assert_same(transitions(replay.sample(ALL, rng())), worlds.kept(rows))


def filled(num_envs=2, rows=40, steps=100, seed=0, episode=9) -> tuple[Replay, Worlds]:
    replay, worlds = Replay(spec(), num_envs, num_envs * rows), Worlds(num_envs)
    for i in range(steps):
        worlds.play(replay, ["t" if (i + 3 * w) % episode == 0 else "" for w in range(num_envs)])
    return replay, worlds


def test_one_episode_by_hand():
    replay, worlds = Replay(spec(), 1, 10), Worlds(1)
    first = worlds.obs["state"][0].clone()
    worlds.play(replay, ["u"])
    true_successor, new_start = first + 1, worlds.obs["state"][0]
    worlds.play(replay, [""])
    batch = replay.sample(ALL, rng())
    assert torch.equal(batch.obs["state"][0], first) and torch.equal(batch.next_obs["state"][0], true_successor)
    assert torch.equal(batch.obs["state"][1], new_start) and not torch.equal(true_successor, new_start)
    assert batch.truncated.tolist() == [True, False] and batch.terminated.tolist() == [False, False]


def test_every_row_is_drawn_equally_often():
    replay, _ = filled(steps=100)
    counts = np.bincount(replay.sample(Sample(80), rng()).rows.numpy() % 80, minlength=80)
    generator = rng()
    for _ in range(999):
        counts += np.bincount(replay.sample(Sample(80), generator).rows.numpy() % 80, minlength=80)
    assert abs(counts / 1000 - 1).max() < 0.15  # standard deviation 0.03


def test_masked_rows_are_never_drawn():
    replay, worlds = Replay(spec(), 1, 20), Worlds(1)
    for i in range(30):
        worlds.play(replay, ["m" if i % 3 else ""])
    real = {float(t["state"][0]) for t in worlds.kept(20)}
    assert replay.num_rows == len(real) == 6
    generator = rng()
    drawn = {float(x) for _ in range(50) for x in replay.sample(Sample(6), generator).obs["state"][:, 0]}
    assert drawn == real


def test_observations_take_at_most_055_of_storing_both():
    for episode, num_envs, dim in ((50, 1, 3), (50, 16, 17), (1000, 1, 17)):
        term = ActionTerm("motors", "control", low=(-1.0,), high=(1.0,))
        small = Spec({"state": (ObsTerm("x", (dim,)),)}, (term,), control_dt=0.05)
        rows = 6000 // num_envs
        replay = Replay(small, num_envs, rows * num_envs)
        obs = torch.rand(num_envs, dim)
        for i in range(2 * rows):
            next_obs, done = torch.rand(num_envs, dim), torch.full((num_envs,), i % episode == episode - 1)
            after = torch.where(done[:, None], torch.rand(num_envs, dim), next_obs)
            zero = torch.zeros(num_envs)
            replay.add(
                {"state": obs}, zero[:, None], {}, Step({"state": after}, {"state": next_obs}, zero, done, ~done & done)
            )
            obs = after
        both = 2 * replay.num_rows * dim * 4
        assert replay.num_rows == rows * num_envs
        assert replay.observation_bytes <= 0.55 * both, (episode, num_envs, replay.observation_bytes / both)


def test_refuses_more_than_it_holds_and_what_it_cannot_give():
    replay, worlds = Replay(spec(), 2, 20), Worlds(2)
    with pytest.raises(UsageError, match="batch of 5, but the replay holds 0 transitions"):
        replay.sample(Sample(5), rng())
    worlds.play(replay, ["", ""])
    with pytest.raises(UsageError, match="batch of 3, but the replay holds 2"):
        replay.sample(Sample(3), rng())
    with pytest.raises(UsageError, match="cannot give length 4"):
        replay.sample(Sample(2, length=4), rng())
    with pytest.raises(UsageError, match="log_prob"):
        replay.add({}, torch.zeros(2, 2), {"log_prob": torch.zeros(2)}, Step({}, {}, *[torch.zeros(2)] * 3))
    with pytest.raises(UsageError, match="at least two rows, that is 8"):
        Replay(spec(), 4, 7)


def test_a_save_writes_new_rows_only_and_drops_files_that_are_overwritten(tmp_path):
    replay, worlds = filled(steps=30)
    first = replay.save(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert replay.save(tmp_path) == first and len(before) == 1  # nothing new, nothing written
    for _ in range(5):
        worlds.play(replay, ["", ""])
    second = replay.save(tmp_path)
    assert [s["end"] - s["first"] for s in second["segments"]] == [30, 5]
    assert all((tmp_path / name).read_bytes() == data for name, data in before.items())
    assert second["segments"][1]["bytes"] < first["segments"][0]["bytes"] / 2
    for _ in range(35):
        worlds.play(replay, ["", ""])
    third = replay.save(tmp_path)  # 40 rows held: the first file's 30 are gone
    assert [(s["first"], s["end"]) for s in third["segments"]] == [(30, 35), (35, 70)]
    (tmp_path / first["segments"][0]["file"]).unlink()  # as the caller does with a file that is not named
    copy = Replay(spec(), 2, 80)
    copy.load(tmp_path, third)
    assert_same(transitions(copy.sample(ALL, rng())), worlds.kept(40))


def test_a_loaded_buffer_draws_the_same_batches(tmp_path):
    replay, _ = filled(steps=100)
    copy = Replay(spec(), 2, 80)
    copy.load(tmp_path, replay.save(tmp_path))
    a, b = rng(), rng()
    for _ in range(20):
        x, y = replay.sample(Sample(32), a), copy.sample(Sample(32), b)
        assert_same(transitions(x), transitions(y))


def test_a_save_after_more_than_a_whole_ring_keeps_what_is_left(tmp_path):
    replay, worlds = filled(steps=10)
    replay.save(tmp_path)
    for i in range(95):
        worlds.play(replay, ["t" if i % 7 == 0 else "", ""])
    manifest = replay.save(tmp_path)
    assert [(s["first"], s["end"]) for s in manifest["segments"]] == [(65, 105)]
    copy = Replay(spec(), 2, 80)
    copy.load(tmp_path, manifest)
    assert_same(transitions(copy.sample(ALL, rng())), worlds.kept(40))


def test_another_folder_gets_everything(tmp_path):
    replay, worlds = filled(steps=20)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        manifest = replay.save(tmp_path / name)
        copy = Replay(spec(), 2, 80)
        copy.load(tmp_path / name, manifest)
        assert_same(transitions(copy.sample(ALL, rng())), worlds.kept(40))


def test_a_failed_write_leaves_no_file_and_the_next_save_catches_up(tmp_path, monkeypatch):
    replay, worlds = filled(steps=20)
    replay.save(tmp_path)
    worlds.play(replay, ["", ""])

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            replay.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["replay-0-20.safetensors"]
    copy = Replay(spec(), 2, 80)
    copy.load(tmp_path, replay.save(tmp_path))
    assert_same(transitions(copy.sample(ALL, rng())), worlds.kept(40))


def test_a_damaged_or_missing_file_is_one_clear_error(tmp_path):
    replay, _ = filled(steps=30)
    manifest = replay.save(tmp_path)
    path = tmp_path / manifest["segments"][0]["file"]
    good = path.read_bytes()

    def error(manifest=manifest, buffer=None) -> str:
        with pytest.raises(RunError) as caught:
            (buffer or Replay(spec(), 2, 80)).load(tmp_path, manifest)
        return str(caught.value)

    path.write_bytes(good[:-10])
    assert path.name in error() and "is damaged" in error()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    path.write_bytes(bytes(flipped))
    assert "is damaged" in error()
    path.unlink()
    assert path.name in error() and "No such file" in error()
    path.write_bytes(good)
    assert "num_envs expected 1, found 2" in error(buffer=Replay(spec(), 1, 40))
    assert "rows expected 50, found 40" in error(buffer=Replay(spec(), 2, 100))
    assert "obs.state should be (30, 2, 5)" in error(buffer=Replay(spec(dim=5), 2, 80))
    assert "expected files for steps 0 to 31" in error({**manifest, "steps": 31})
    assert "manifest" in error({**manifest, "segments": [{}]})
