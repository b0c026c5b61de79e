"""DeviceReplay against Replay, on the CPU: the same transitions and files, and nothing that a device would wait for."""

import numpy as np
import pytest
import torch
from capturable import only_capturable
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.batch import Sample, Step
from poise.datasets.device_memory import require_room
from poise.datasets.device_replay import DeviceReplay
from poise.datasets.replay import Replay
from poise.errors import RunError, UsageError
from poise.spec import ActionTerm, ObsTerm, Spec

ALL, RNG = Sample(0), np.random.default_rng(0)
ENDS = ["", "", "", "", "t", "u"]  # goes on, terminated, truncated


def spec(history=1) -> Spec:
    motors = ActionTerm("motors", "control", low=(-1.0,) * 2, high=(1.0,) * 2)
    groups = {"state": (ObsTerm("x", (3,)),), "camera": (ObsTerm("pixels", (2, 2, 1), dtype="uint8", history=history),)}
    return Spec(groups, (motors,), control_dt=0.05)


def on_cpu(num_envs, rows, history=1, seed=0) -> DeviceReplay:
    return DeviceReplay(spec(history), num_envs, rows * num_envs, torch.Generator().manual_seed(seed), "cpu")


class Worlds:
    """N made-up worlds that no two moments look alike in."""

    def __init__(self, num_envs: int):
        self.n, self.count, self.obs = num_envs, 0, {}
        self.obs = self._fresh()

    def _fresh(self):
        numbers = 1 + self.count + torch.arange(self.n)
        self.count += self.n
        return {"state": numbers[:, None] + torch.arange(3) / 16.0,
                "camera": (numbers % 251)[:, None].expand(-1, 4).to(torch.uint8).reshape(-1, 2, 2, 1)}  # fmt: skip

    def play(self, ends, *buffers) -> None:
        """One step into every buffer; `ends` says of every world how its episode ends, or "" that it goes on."""
        terminated, truncated = (torch.tensor([e == kind for e in ends]) for kind in "tu")
        next_obs, new = self._fresh(), self._fresh()
        obs = {g: torch.where((terminated | truncated).view(-1, *[1] * (x.ndim - 1)), new[g], x)
               for g, x in next_obs.items()}  # fmt: skip
        step = Step(obs, next_obs, torch.rand(self.n), terminated, truncated)
        action = torch.rand(self.n, 2)
        for buffer in buffers:
            buffer.add(self.obs, action, {}, step)
        self.obs = obs


def assert_equal(a, b) -> None:
    for name in ("action", "reward", "terminated", "truncated", "steps", "rows"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None and y is None) or torch.equal(x, y), name
    for x, y in ((a.obs, b.obs), (a.next_obs, b.next_obs)):
        assert x.keys() == y.keys() and all(torch.equal(x[g], y[g]) for g in x)


@st.composite
def histories(draw):
    """(worlds, rows, history, what happens to every world at every step), episodes of eight steps and more."""
    n, rows, h = draw(st.integers(1, 3)), draw(st.integers(9, 20)), draw(st.integers(1, 3))
    steps = draw(st.integers(1, 50))
    first = draw(st.lists(st.integers(0, 7), min_size=n, max_size=n))
    period = draw(st.integers(8, 12))
    ends = [["tu"[t % 2] if (t + w) % period == 7 else "" for w in first] for t in range(steps)]
    return n, rows, h, ends


@settings(max_examples=40)
@given(histories())
def test_holds_the_transitions_of_a_replay_n_steps_and_stacks_included(history):
    n, rows, h, steps = history
    ours, theirs, worlds = on_cpu(n, rows, h), Replay(spec(h), n, rows * n), Worlds(n)
    for ends in steps:
        worlds.play(ends, ours, theirs)
    assert ours.num_rows == theirs.num_rows
    for n_step in (1, 3):
        request = Sample(0, n_step=n_step, discount=0.5)
        assert_equal(ours.sample(request, RNG), theirs.sample(request, RNG))


@settings(max_examples=8)
@given(st.lists(st.lists(st.sampled_from(ENDS), min_size=2, max_size=2), min_size=30, max_size=60))
def test_where_episodes_are_short_older_steps_go_and_what_is_left_is_exact(steps):
    ours, theirs, worlds = on_cpu(2, 12), Replay(spec(), 2, 24), Worlds(2)
    for ends in steps:
        worlds.play(ends, ours, theirs)
    found, known = ours.sample(ALL, RNG), theirs.sample(ALL, RNG)
    left = torch.isin(known.rows, found.rows)
    assert_equal(found, known.index(left))
    assert 8 <= ours.num_rows <= 24  # at worst every step ends an episode: two frames each


@settings(max_examples=8)
@given(histories(), st.data())
def test_either_reads_what_the_other_saved_and_goes_on(tmp_path_factory, history, data):
    n, rows, h, steps = history
    folder = tmp_path_factory.mktemp("segments")
    ours, theirs, worlds = on_cpu(n, rows, h), Replay(spec(h), n, rows * n), Worlds(n)
    saves = data.draw(st.sets(st.integers(0, len(steps) - 1), min_size=1, max_size=3), label="saves after")
    for i, ends in enumerate(steps):
        worlds.play(ends, ours, theirs)
        if i in saves:
            manifest = ours.save(folder)
            other, copy = Replay(spec(h), n, rows * n), on_cpu(n, rows, h)
            other.load(folder, manifest)
            copy.load(folder, manifest)
            assert_equal(other.sample(ALL, RNG), theirs.sample(ALL, RNG))
            assert_equal(copy.sample(ALL, RNG), theirs.sample(ALL, RNG))
            if data.draw(st.booleans(), label="go on with the copy"):
                ours = copy
    second = tmp_path_factory.mktemp("theirs")
    copy = on_cpu(n, rows, h)
    copy.load(second, theirs.save(second))
    assert_equal(copy.sample(ALL, RNG), ours.sample(ALL, RNG))


def filled(rows=40, steps=100, n=3):
    replay, worlds = on_cpu(n, rows), Worlds(n)
    for i in range(steps):
        worlds.play(["t" if (i + 3 * w) % (4 + w) == 0 else "" for w in range(n)], replay)
    return replay, worlds


def test_a_resumed_buffer_draws_the_same_rows(tmp_path):
    replay, _ = filled()
    other = on_cpu(3, 40)
    other.load(tmp_path, replay.save(tmp_path))
    other.generator.set_state(replay.generator.get_state())
    request = Sample(64, n_step=3, discount=0.9)
    assert other.num_rows == replay.num_rows < 120
    for _ in range(3):
        assert_equal(other.sample(request, RNG), replay.sample(request, RNG))


def test_every_transition_that_is_left_is_drawn_equally_often():
    replay, _ = filled()
    rows = replay.sample(ALL, RNG).rows
    drawn = torch.cat([replay.sample(Sample(100), RNG).rows for _ in range(300)])
    counts = torch.bincount(drawn - rows.min())
    assert set(drawn.tolist()) == set(rows.tolist())
    expected = 30_000 / len(rows)
    assert abs(counts[counts > 0] / expected - 1).max() < 5 * expected**-0.5


def test_adding_and_drawing_never_wait_for_the_device():
    replay, worlds = on_cpu(2, 12, history=2), Worlds(2)
    request = Sample(8, n_step=3, discount=0.9)
    for _ in range(9):
        worlds.play(["", "t"], replay)
    replay.sample(request, RNG)
    next_obs, done = {g: x + 1 for g, x in worlds.obs.items()}, torch.tensor([True, False])
    step = Step(next_obs, next_obs, torch.ones(2), done, ~done)
    action = torch.zeros(2, 2)
    with only_capturable():
        for _ in range(3):
            replay.add(worlds.obs, action, {}, step)
            replay.sample(request, RNG)


def test_observations_are_held_once():
    replay = DeviceReplay(Spec({"state": (ObsTerm("x", (64,)),)}, spec().actions, control_dt=0.05), 4, 4000,
                          torch.Generator(), "cpu")  # fmt: skip
    held = sum(t.nbytes for t in replay._of_frame.values())
    assert held / 4000 < 1.15 * 64 * 4
    kept = [
        replay._frame,
        *replay._of_step.values(),
        *replay._of_frame.values(),
        replay._head,
        replay._low,
        replay._world,
    ]
    assert replay.nbytes == sum(t.nbytes for t in kept)


def test_what_it_cannot_give_is_refused_by_name():
    replay, worlds = on_cpu(2, 10), Worlds(2)
    worlds.play(["", ""], replay)
    for request, message in ((Sample(3), "asked for a batch of 3, but the replay holds 2"),
                             (Sample(2, priority=0.6), "a replay on a device cannot give priority 0.6"),
                             (Sample(2, length=3), "cannot give length 3")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            replay.sample(request, RNG)
    step = Step(
        worlds.obs, worlds.obs, torch.zeros(2), *torch.zeros(2, 2, dtype=torch.bool), mask=torch.ones(2, dtype=bool)
    )
    with pytest.raises(UsageError, match="these mask steps"):
        replay.add(worlds.obs, torch.zeros(2, 2), {}, step)
    with pytest.raises(UsageError, match="at least two rows, that is 4"):
        on_cpu(2, 1)


def test_a_replay_that_a_gpu_has_no_room_for_is_refused_with_what_to_set(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 << 30, 8 << 30))
    require_room(1 << 30, torch.device("cuda"), 1_000_000)
    with pytest.raises(UsageError, match=r"10,000,000 transitions takes 4.0 GiB on the GPU, of which 2.0 of 8.0 GiB are "
                                         r"free; set capacity to 4,000,000 or less"):  # fmt: skip
        require_room(4 << 30, torch.device("cuda"), 10_000_000)


def test_a_file_of_another_shape_or_with_steps_that_are_none_is_refused(tmp_path):
    replay, _ = filled()
    manifest = replay.save(tmp_path)
    with pytest.raises(RunError, match="rows expected 41, found 40"):
        on_cpu(3, 41).load(tmp_path, manifest)
    masked, worlds = Replay(spec(), 2, 20), Worlds(2)
    for i in range(3):
        step = Step(worlds.obs, worlds.obs, torch.zeros(2), *torch.zeros(2, 2, dtype=torch.bool),
                    mask=torch.tensor([True, i != 1]))  # fmt: skip
        masked.add(worlds.obs, torch.zeros(2, 2), {}, step)
    (tmp_path / "other").mkdir()
    with pytest.raises(RunError, match="steps that are no transitions"):
        on_cpu(2, 10).load(tmp_path / "other", masked.save(tmp_path / "other"))


@pytest.mark.gpu
def test_on_a_gpu_it_holds_what_it_holds_on_the_cpu():
    device = torch.device("cuda")
    ours = DeviceReplay(spec(2), 3, 60, torch.Generator(device), device)
    theirs, worlds = Replay(spec(2), 3, 60), Worlds(3)

    class Moved:
        def add(self, obs, action, extras, step):
            def move(x):
                return {g: v.to(device) for g, v in x.items()} if isinstance(x, dict) else x.to(device)

            ours.add(move(obs), move(action), extras,
                     Step(*(move(x) for x in (step.obs, step.next_obs, step.reward, step.terminated, step.truncated))))  # fmt: skip

    for i in range(70):
        worlds.play(["t" if (i + w) % 9 == 8 else "" for w in range(3)], Moved(), theirs)
    assert_equal(
        ours.sample(Sample(0, n_step=3, discount=0.5), RNG).to("cpu"),
        theirs.sample(Sample(0, n_step=3, discount=0.5), RNG),
    )
