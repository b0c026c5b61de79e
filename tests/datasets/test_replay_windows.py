"""Stacked frames, n-step rows and priorities of the replay, against lists of episodes that are looked through anew."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.batch import Sample, Step
from poise.datasets.priorities import Priorities
from poise.datasets.replay import Replay
from poise.errors import RunError, UsageError
from poise.spec import ActionTerm, ObsTerm, Spec

HISTORY, DISCOUNT = 3, 0.5
SPEC = Spec(
    {
        "state": (ObsTerm("x", (2,), history=HISTORY),),
        "camera": (ObsTerm("pixels", (2, 2, 1), dtype="uint8", history=HISTORY),),
        "goal": (ObsTerm("g", (1,)),),
    },
    (ActionTerm("choice", "discrete", n=4),),
    control_dt=0.1,
)


class Episodes:
    """N worlds whose every frame is a number of its own; episodes are kept whole, as lists."""

    def __init__(self, num_envs: int):
        self.n, self.count = num_envs, 0
        self.open = [[self._number()] for _ in range(num_envs)]  # frames of the open episode of each world
        self.rows: list[list[dict | None]] = []
        self.fresh = [True] * num_envs

    def _number(self) -> int:
        self.count += 1
        return self.count

    def obs(self, numbers: list[int]) -> dict[str, torch.Tensor]:
        x = torch.tensor(numbers, dtype=torch.float32)[:, None]
        return {"state": x + torch.tensor([0.0, 0.25]), "camera": x.to(torch.uint8).expand(-1, 4).view(-1, 2, 2, 1).clone(),
                "goal": -x}  # fmt: skip

    def play(self, replay: Replay, ends: str) -> None:
        """One step of every world: "." goes on, "t" terminated, "u" truncated, "m" no transition (a reset)."""
        acted_on = [frames[-1] for frames in self.open]
        after = [self._number() for _ in ends]
        obs = list(after)
        reward = torch.tensor([float(a) for a in after])
        action = torch.tensor([[a % 4] for a in after])
        row: list[dict | None] = []
        for w, end in enumerate(ends):
            row.append(None if end == "m" else {
                "frames": list(self.open[w]), "next": after[w], "action": action[w], "reward": float(after[w]),
                "terminated": end == "t", "truncated": end == "u"})  # fmt: skip
            self.open[w] = [*self.open[w], after[w]] if end == "." else [after[w]]
            if end in "tu":
                obs[w] = self._number()
                self.open[w] = [obs[w]]
        step = Step(self.obs(obs), self.obs(after), reward, torch.tensor([e == "t" for e in ends]),
                    torch.tensor([e == "u" for e in ends]), mask=torch.tensor([e != "m" for e in ends]))  # fmt: skip
        replay.add(self.obs(acted_on), action, {}, step)
        self.rows.append(row)

    def expected(self, t: int, w: int, n: int) -> dict:
        """The transition of row t, world w, found by walking on from it."""
        start = self.rows[t][w]
        assert start is not None
        reward, steps, last = 0.0, 0, start
        for i in range(n):
            if t + i >= len(self.rows) or self.rows[t + i][w] is None:
                break
            last = self.rows[t + i][w]
            assert last is not None
            reward += DISCOUNT**i * last["reward"]
            steps += 1
            if last["terminated"] or last["truncated"]:
                break
        return {"stack": stack(start["frames"]), "next": stack([*last["frames"], last["next"]]), "reward": reward,
                "steps": steps, "action": start["action"], "terminated": last["terminated"],
                "truncated": last["truncated"]}  # fmt: skip


def stack(frames: list[int]) -> list[int]:
    return ([0] * HISTORY + frames)[-HISTORY:]


def assert_equal(replay: Replay, worlds: Episodes, batch, n: int) -> None:
    for i, key in enumerate(batch.rows.tolist()):
        want = worlds.expected(key // worlds.n, key % worlds.n, n)
        for name, found in (("stack", batch.obs), ("next", batch.next_obs)):
            assert found["camera"][i, 0, 0].tolist() == [f % 256 for f in want[name]]
            assert found["state"][i, ::2].tolist() == [float(f) for f in want[name]]
            assert found["goal"][i].tolist() == [-float(want[name][-1])]
        assert batch.reward[i].item() == want["reward"] and torch.equal(batch.action[i], want["action"])
        assert bool(batch.terminated[i]) == want["terminated"] and bool(batch.truncated[i]) == want["truncated"]
        assert (1 if batch.steps is None else batch.steps[i].item()) == want["steps"]


@st.composite
def histories(draw):
    num_envs = draw(st.integers(1, 3))
    steps = draw(st.integers(8, 40))
    end = st.sampled_from(".......tum")  # episodes long enough for whole stacks and whole n-step rows
    row = st.lists(end, min_size=num_envs, max_size=num_envs).map("".join)
    return num_envs, draw(st.lists(row, min_size=steps, max_size=steps))


@given(histories(), st.integers(1, 4), st.integers(0, 39))
def test_stacks_and_n_step_rows_are_those_of_the_episodes(tmp_path_factory, history, n, save_at):
    num_envs, ends = history
    worlds, replay = Episodes(num_envs), Replay(SPEC, num_envs, 8 * num_envs)
    for t, row in enumerate(ends):
        worlds.play(replay, row)
        if t == save_at:  # a buffer that was saved and loaded is the same buffer
            folder = tmp_path_factory.mktemp("replay")
            manifest = replay.save(folder)
            replay = Replay(SPEC, num_envs, 8 * num_envs)
            replay.load(folder, manifest)
    batch = replay.sample(Sample(0, n_step=n, discount=DISCOUNT), np.random.default_rng(0))
    assert len(batch.rows) == replay.num_rows
    kept = min(len(ends), 8 if len(ends) > 8 + HISTORY - 1 else 8 + HISTORY - 1)
    assert replay.num_rows == sum(x is not None for row in worlds.rows[-kept:] for x in row)
    assert_equal(replay, worlds, batch, n)
    if replay.num_rows:
        for request in (Sample(1, n_step=n, discount=DISCOUNT), Sample(1, n_step=n, discount=DISCOUNT, priority=0.6)):
            assert_equal(replay, worlds, replay.sample(request, np.random.default_rng(1)), n)


def test_groups_may_be_called_like_columns():
    spec = Spec({"reward": (ObsTerm("x", (2,)),), "action": (ObsTerm("y", (1,)),)}, SPEC.actions, control_dt=0.1)
    replay, no = Replay(spec, 1, 4), torch.zeros(1, dtype=torch.bool)
    obs = [{"reward": torch.full((1, 2), float(t)), "action": torch.full((1, 1), -float(t))} for t in range(4)]
    for t in range(3):
        replay.add(obs[t], torch.tensor([[t]]), {}, Step(obs[t + 1], obs[t + 1], torch.tensor([10.0 + t]), no, no))
    batch = replay.sample(Sample(0), np.random.default_rng(0))
    assert batch.obs["reward"].tolist() == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    assert batch.next_obs["action"].tolist() == [[-1.0], [-2.0], [-3.0]]
    assert batch.action.tolist() == [[0], [1], [2]] and batch.reward.tolist() == [10.0, 11.0, 12.0]


def test_frames_are_held_once():
    worlds, replay = Episodes(2), Replay(SPEC, 2, 200)
    for t in range(150):
        worlds.play(replay, "t." if t % 50 == 49 else "..")
    one_row = sum(x[0].nbytes for x in worlds.obs([0]).values())
    assert replay.observation_bytes <= 1.15 * one_row * replay._rows * 2


# ---- priorities --------------------------------------------------------------------------------


@given(histories(), st.integers(0, 2**32 - 1))
def test_priorities_follow_their_rows(tmp_path_factory, history, seed):
    """Against a dict of every row's priority: new ones, stale keys, rows that are none, the wrap, saving and loading."""
    num_envs, ends = history
    rng, exponent = np.random.default_rng(seed), 0.6
    worlds, replay = Episodes(num_envs), Replay(SPEC, num_envs, 8 * num_envs)
    size, begun, largest = (8 + HISTORY - 1) * num_envs, False, 1.0
    wanted: dict[int, float] = {}
    for t, row in enumerate(ends):
        worlds.play(replay, row)
        wanted |= {t * num_envs + w: largest for w, end in enumerate(row) if end != "m"}
        if replay.num_rows > 0 and rng.random() < 0.7:
            batch = replay.sample(Sample(1, priority=exponent, importance=0.5), rng)
            begun = True
            drawn = rng.choice(list(wanted), 5)  # some of them are gone by now
            priorities = rng.uniform(0.1, 3.0, 5)
            alive = replay._all_keys().tolist()
            assert batch.rows[0].item() in alive
            replay.set_priorities(torch.from_numpy(drawn), torch.from_numpy(priorities))
            wanted |= {int(k): p for k, p in zip(drawn, priorities, strict=True) if k in alive}
            largest = max([largest, *(p for k, p in zip(drawn, priorities, strict=True) if k in alive)])
        if rng.random() < 0.05:
            folder = tmp_path_factory.mktemp("replay")
            manifest = replay.save(folder)
            replay = Replay(SPEC, num_envs, 8 * num_envs)
            replay.load(folder, manifest)
        if begun:
            leaves = np.zeros(size)
            for key in replay._all_keys().tolist():
                leaves[key % size] = wanted[key] ** exponent
            np.testing.assert_allclose(replay._priorities.state_dict()["leaves"], leaves, rtol=1e-12)
            assert replay._priorities.largest == largest


@given(st.integers(1, 700), st.integers(0, 2**32 - 1))
def test_a_tree_is_that_of_its_leaves_and_draws_no_empty_place(size, seed):
    rng, tree = np.random.default_rng(seed), Priorities(size, exponent=0.7)
    leaves = np.zeros(size)
    for _ in range(8):
        places = rng.integers(0, size, rng.integers(1, 40))
        priorities = 10.0 ** rng.uniform(-12, 3, len(places))  # sums that round
        if rng.random() < 0.3:
            tree.remove(places)
            leaves[places] = 0.0
        else:
            tree.update(places, priorities)
            leaves[places] = priorities**0.7
        np.testing.assert_array_equal(tree.state_dict()["leaves"], leaves)
        again = Priorities.restored(tree.state_dict())
        assert again.total == tree.total, "sums depend on the leaves alone, not on the order of their changes"
        assert tree.total == pytest.approx(leaves.sum(), rel=1e-12)
        if tree.total > 0.0:
            draws = [t.draw(64, np.random.default_rng(seed)) for t in (tree, again)]
            np.testing.assert_array_equal(*draws)
            assert (leaves[draws[0]] > 0.0).all()
            # stratified: a place of share P comes up between floor(64 P) - 1 and ceil(64 P) + 1 times
            share = 64 * leaves / leaves.sum()
            counts = np.bincount(draws[0], minlength=size)
            assert (np.abs(counts - share) < 2.0 + 1e-9).all()


def test_the_last_share_never_falls_off_the_end():
    class Last:
        def random(self, count):
            return np.full(count, 1.0 - 2.0**-53)

    tree = Priorities(300, exponent=1.0)
    tree.update(np.arange(0, 300, 7), np.full(43, 0.1))
    assert set(tree.draw(1000, Last()).tolist()) == set(range(0, 300, 7))  # pyright: ignore[reportArgumentType]


def test_draws_by_priority_from_a_replay_have_the_shares_of_the_paper():
    worlds, replay = Episodes(2), Replay(SPEC, 2, 16)
    for t in range(30):  # past the wrap, with episode ends and rows that are none
        worlds.play(replay, "m." if t % 5 == 4 else ".t" if t % 7 == 6 else "..")
    rng = np.random.default_rng(0)
    rows = replay.sample(Sample(0), rng).rows
    replay.sample(Sample(1, priority=0.6), rng)
    priorities = torch.linspace(0.5, 4.0, len(rows), dtype=torch.float64)
    replay.set_priorities(rows, priorities)
    share = (priorities**0.6 / (priorities**0.6).sum()).numpy()
    counts = dict.fromkeys(rows.tolist(), 0)
    for _ in range(2000):
        batch = replay.sample(Sample(8, priority=0.6, importance=0.4), rng)
        for row in batch.rows.tolist():
            counts[row] += 1
        drawn = share[[rows.tolist().index(r) for r in batch.rows.tolist()]]
        weight = (len(rows) * drawn) ** -0.4
        np.testing.assert_allclose(batch.weight, weight / weight.max(), rtol=1e-5)
    found = np.array(list(counts.values()))
    chi2 = float(((found - 16_000 * share) ** 2 / (16_000 * share)).sum())
    assert chi2 < 1.7 * len(rows), "strata make draws more even than independent ones, never less"


def test_places_are_drawn_in_proportion_to_priority_to_the_power():
    tree = Priorities(6, exponent=0.5)
    tree.admit(np.arange(5))
    tree.update(np.arange(5), np.array([1.0, 4.0, 9.0, 16.0, 100.0]))
    tree.remove(np.array([4]))
    assert tree.total == pytest.approx(1 + 2 + 3 + 4)
    counts = np.bincount(tree.draw(10_000, np.random.default_rng(0)), minlength=6)
    np.testing.assert_allclose(counts / 1e4, [0.1, 0.2, 0.3, 0.4, 0.0, 0.0], atol=1e-3)  # stratified: hardly any noise
    # w = (N P)^-1, over the largest: 1/(4 * .1) is the largest
    np.testing.assert_allclose(tree.weight(np.array([0, 1, 3]), 4, 1.0), [1.0, 0.5, 0.25], rtol=1e-6)
    np.testing.assert_allclose(tree.weight(np.array([0, 1, 3]), 4, 0.5), [1.0, 0.5**0.5, 0.5], rtol=1e-6)
    tree.admit(np.array([5]))
    assert tree.total == pytest.approx(10 + 10), "a new one gets the largest priority seen"


def test_new_rows_come_first_and_rows_that_are_gone_are_passed_over(tmp_path):
    worlds, replay = Episodes(1), Replay(SPEC, 1, 8)
    for _ in range(8):
        worlds.play(replay, ".")
    request, rng = Sample(8, priority=1.0, importance=1.0), np.random.default_rng(0)
    batch = replay.sample(request, rng)
    assert sorted(batch.rows.tolist()) == list(range(8)) and batch.weight is not None
    torch.testing.assert_close(batch.weight, torch.ones(8))
    replay.set_priorities(batch.rows, torch.full((8,), 1e-6))
    worlds.play(replay, ".")
    assert set(replay.sample(request, rng).rows.tolist()) == {8}, "the new row has the largest priority seen, 1"
    for _ in range(8):
        worlds.play(replay, ".")
    before = replay._priorities.total
    replay.set_priorities(batch.rows, torch.full((8,), 50.0))  # of rows long gone
    assert replay._priorities.total == before
    manifest = replay.save(tmp_path)
    other = Replay(SPEC, 1, 8)
    other.load(tmp_path, manifest)
    draws = [r.sample(request, np.random.default_rng(3)).rows.tolist() for r in (replay, other)]
    assert draws[0] == draws[1]


def test_priorities_that_are_none_and_a_change_of_power_are_refused():
    worlds, replay = Episodes(1), Replay(SPEC, 1, 8)
    for _ in range(8):
        worlds.play(replay, ".")
    batch = replay.sample(Sample(2, priority=1.0), np.random.default_rng(0))
    with pytest.raises(RunError, match="positive and finite, found"):
        replay.set_priorities(batch.rows, torch.tensor([1.0, torch.nan]))
    with pytest.raises(RunError, match=r"found \[inf\]"):
        replay.set_priorities(batch.rows, torch.tensor([1.0, torch.inf]))
    with pytest.raises(UsageError, match=r"power 1.0, and cannot change to 0.5"):
        replay.sample(Sample(2, priority=0.5), np.random.default_rng(0))


def test_a_save_leaves_the_files_of_the_one_before_alone(tmp_path, monkeypatch):
    """Also at the same step: until its manifest is in place, a checkpoint lives from the files it names."""
    worlds, replay = Episodes(1), Replay(SPEC, 1, 8)
    for _ in range(8):
        worlds.play(replay, ".")
    request = Sample(4, priority=1.0)
    batch = replay.sample(request, np.random.default_rng(0))
    manifest = replay.save(tmp_path)
    for _ in range(2):
        replay = Replay(SPEC, 1, 8)
        replay.load(tmp_path, manifest)
        replay.set_priorities(batch.rows, torch.full((4,), 9.0))
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space"):
                replay.save(tmp_path)
        replay.save(tmp_path)
    other = Replay(SPEC, 1, 8)
    other.load(tmp_path, manifest)
    assert other.sample(request, np.random.default_rng(0)).rows.tolist() == batch.rows.tolist()
