"""OfflineDataset against windows, chunks, rows of several steps and goals that are worked out by hand."""

import numpy as np
import pytest
import torch

from poise.batch import Sample
from poise.datasets.offline import OfflineDataset, load, split_filter
from poise.errors import DatasetError, UsageError
from poise.history import initial_history, stack_history
from poise.spec import ActionTerm, ObsTerm, Spec
from small_logs import episode, log

X = {"state": ["x"]}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def two(**kwargs) -> OfflineDataset:
    """Episodes of 3 steps (terminated) and 2 steps (truncated): x is 100, 101, 102 and 200, 201."""
    return OfflineDataset([log(episode("demo_0", 1, 3), episode("demo_1", 2, 2, end="u"))], X, **kwargs)


def first(values: torch.Tensor) -> list:
    """The number of each observation (…, 2)."""
    return values[..., 0].tolist()


def test_transitions_have_their_true_successors():
    batch = two().sample(Sample(0), rng())
    assert first(batch.obs["state"]) == [100, 101, 102, 200, 201]
    assert first(batch.next_obs["state"]) == [101, 102, 103, 201, 202]
    assert batch.obs["state"][0].tolist() == [100, 0.5]
    assert batch.action.tolist() == torch.tensor([[0, 0], [0.01, -0.01], [0.02, -0.02], [0, 0], [0.01, -0.01]]).tolist()
    assert batch.reward.tolist() == [1, 2, 3, 1, 2]
    assert batch.terminated.tolist() == [False, False, True, False, False]
    assert batch.truncated.tolist() == [False, False, False, False, True]
    assert batch.rows.tolist() == [0, 1, 2, 3, 4]
    assert batch.mask is batch.steps is batch.weight is batch.origin is batch.action_mask is None


def test_a_successor_that_no_next_row_shows_is_kept_by_itself():
    jump = np.array([[101.0, 0.5], [777.0, 0.5], [103.0, 0.5]])  # a frame is missing after step 1
    data = OfflineDataset([log(episode("demo_0", 1, 3, **{"next_obs/x": jump}), episode("demo_1", 2, 2))], X)
    assert first(data.sample(Sample(0), rng()).next_obs["state"]) == [101, 777, 103, 201, 202]


def test_all_keys_lie_side_by_side_in_the_order_of_the_mapping():
    data = OfflineDataset([log(episode("demo_0", 1, 2))], {"state": ["y", "x"], "goal": ["y"]})
    batch = data.sample(Sample(0), rng())
    assert batch.obs["state"].tolist() == [[-100, 100, 0.5], [-101, 101, 0.5]]
    assert batch.next_obs["goal"].tolist() == [[-101], [-102]]
    assert [t.name for t in data.spec.observations["state"]] == ["y", "x"]
    everything = OfflineDataset([log(episode("demo_0", 1, 2))]).sample(Sample(0), rng())
    assert everything.obs["state"].tolist() == [[100, 0.5, -100], [101, 0.5, -101]]


def test_windows_repeat_the_last_step_and_say_so():
    batch = two().sample(Sample(0, length=3), rng())
    assert first(batch.obs["state"]) == [
        [100, 101, 102],
        [101, 102, 102],
        [102, 102, 102],
        [200, 201, 201],
        [201, 201, 201],
    ]
    assert batch.mask.tolist() == [
        [True] * 3,
        [True, True, False],
        [True, False, False],
        [True, True, False],
        [True, False, False],
    ]
    assert first(batch.next_obs["state"])[1] == [102, 103, 103] and first(batch.next_obs["state"])[3] == [201, 202, 202]
    assert batch.reward.tolist()[0] == [1, 2, 3] and batch.terminated.tolist()[1] == [False, True, True]
    assert batch.action.shape == (5, 3, 2)


def test_windows_that_begin_before_an_episode_repeat_its_first_step():
    batch = two().sample(Sample(0, length=2, obs_horizon=3, imitation=True), rng())
    assert first(batch.obs["state"]) == [[100, 100, 100, 101], [100, 100, 101, 102], [100, 101, 102, 102],
                                         [200, 200, 200, 201], [200, 200, 201, 201]]  # fmt: skip
    assert batch.mask.tolist() == [[False, False, True, True], [False, True, True, True], [True, True, True, False],
                                   [False, False, True, True], [False, True, True, False]]  # fmt: skip


def test_chunks_repeat_the_last_action_and_say_so():
    batch = two().sample(Sample(0, action_horizon=3, imitation=True), rng())
    assert (100 * batch.action[..., 0]).round().tolist() == [[0, 1, 2], [1, 2, 2], [2, 2, 2], [0, 1, 1], [1, 1, 1]]
    assert batch.action_mask.tolist()[1:4] == [[True, True, False], [True, False, False], [True, True, False]]
    both = two().sample(Sample(0, length=2, action_horizon=3), rng())
    assert (100 * both.action[0, :, :, 0]).round().tolist() == [[0, 1, 2], [1, 2, 2]]
    assert both.action_mask[0].tolist() == [[True, True, True], [True, True, False]]
    assert both.obs["state"].shape == (5, 2, 2) and both.mask.shape == (5, 2)


def test_rows_of_several_steps_end_with_their_episode():
    batch = two().sample(Sample(0, n_step=2, discount=0.5), rng())
    assert batch.reward.tolist() == [1 + 0.5 * 2, 2 + 0.5 * 3, 3, 1 + 0.5 * 2, 2]
    assert batch.steps.tolist() == [2, 2, 1, 2, 1]
    assert first(batch.next_obs["state"]) == [102, 103, 103, 202, 202]
    assert batch.terminated.tolist() == [False, True, True, False, False]
    assert batch.truncated.tolist() == [False, False, False, True, True]
    windows = two().sample(Sample(0, n_step=2, discount=0.5, length=2), rng())
    assert windows.reward.tolist()[0] == [2, 3.5] and windows.steps.tolist()[2] == [1, 1]


def test_a_termination_within_an_episode_ends_a_sum_and_a_return():
    data = OfflineDataset([log(episode("demo_0", 1, 4, terminations=np.array([0, 1, 0, 1])))], X)
    batch = data.sample(Sample(0, n_step=3, discount=0.5, mc_return=True), rng())
    assert batch.reward.tolist() == [2, 2, 3 + 0.5 * 4, 4] and batch.steps.tolist() == [2, 1, 2, 1]
    assert batch.mc_return.tolist() == [2, 2, 5, 4]


def test_returns_are_discounted_to_the_recorded_end():
    batch = two().sample(Sample(0, mc_return=True, discount=0.5), rng())
    assert batch.mc_return.tolist() == [1 + 1 + 0.75, 2 + 1.5, 3, 1 + 1, 2]
    assert two().episode_returns().tolist() == [6, 3]
    windows = two().sample(Sample(0, mc_return=True, imitation=True, length=2), rng())
    assert windows.mc_return.tolist()[1] == [5, 3]


def test_next_actions_leave_out_a_truncated_episodes_last_step():
    batch = two().sample(Sample(0, next_action=True), rng())
    assert batch.rows.tolist() == [0, 1, 2, 3]  # 4 was cut off: nobody knows what came next
    assert (100 * batch.next_action[:, 0]).round().tolist() == [1, 2, 2, 1]
    many = two().sample(Sample(500, next_action=True), rng())
    assert sorted(set(many.rows.tolist())) == [0, 1, 2, 3]


def test_without_successors_the_last_step_is_shown_to_imitation_alone():
    data = OfflineDataset([log(episode("demo_0", 1, 3, known=False), episode("demo_1", 2, 3, end="u", known=False))], X)
    batch = data.sample(Sample(0), rng())
    assert batch.rows.tolist() == [0, 1, 2, 3, 4]
    assert first(batch.next_obs["state"]) == [101, 102, 102, 201, 202]  # where it terminated, its value is zero
    assert data.sample(Sample(0, imitation=True), rng()).rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert set(data.sample(Sample(300), rng()).rows.tolist()) == {0, 1, 2, 3, 4}
    n = data.sample(Sample(0, n_step=3, discount=1.0), rng())
    assert n.reward.tolist() == [6, 5, 3, 3, 2] and first(n.next_obs["state"])[3:] == [202, 202]
    w = data.sample(Sample(0, length=3), rng())
    assert first(w.obs["state"])[4] == [201, 201, 201] and first(w.next_obs["state"])[4] == [202, 202, 202]


def test_imitation_needs_neither_rewards_nor_ends():
    data = OfflineDataset(
        [log(episode("demo_0", 1, 3, known=False, without=["rewards", "terminations", "truncations"]))], X
    )
    batch = data.sample(Sample(4, imitation=True), rng())
    assert batch.reward.isnan().all() and batch.next_obs == {} and not batch.terminated.any()
    with pytest.raises(DatasetError, match="holds no rewards, so it can be imitated"):
        data.sample(Sample(4), rng())


def test_ends_of_unknown_kind_are_refused_until_the_user_says():
    dones = {"dones": np.array([0, 0, 1])}
    files = [log(episode("demo_0", 1, 3, without=["terminations", "truncations"], **dones))]
    with pytest.raises(DatasetError, match=r"holds only dones, .* Say --ends terminated or --ends truncated"):
        OfflineDataset(files, X).sample(Sample(4), rng())
    terminated = OfflineDataset(files, X, ends="terminated").sample(Sample(0), rng())
    assert terminated.terminated.tolist() == [False, False, True] and not terminated.truncated.any()
    truncated = OfflineDataset(files, X, ends="truncated").sample(Sample(0), rng())
    assert truncated.truncated.tolist() == [False, False, True] and not truncated.terminated.any()
    with pytest.raises(UsageError, match="not 'sometimes'"):
        OfflineDataset(files, X, ends="sometimes")


def history_spec() -> Spec:
    return Spec({"state": (ObsTerm("x", (2,), history=3),), "camera": (ObsTerm("pixels", (1, 2, 1), dtype="uint8", history=2),)},
                (ActionTerm("actions", "unknown", low=(-1, -1), high=(1, 1)),), 0.1)  # fmt: skip


def with_camera(name: str, number: int, steps: int, **kwargs):
    frames = (10 * number + np.arange(steps + 1)).astype(np.uint8).repeat(2).reshape(-1, 1, 2, 1)
    return episode(name, number, steps, **{"obs/camera": frames[:-1], "next_obs/camera": frames[1:]}, **kwargs)


def test_stacked_frames_are_what_history_gives_step_by_step():
    spec = history_spec()
    data = OfflineDataset([log(with_camera("a", 1, 4), with_camera("b", 2, 3))],
                          {"state": ["x"], "camera": ["camera"]}, task=spec)  # fmt: skip
    batch = data.sample(Sample(0), rng())
    single = OfflineDataset(
        [log(with_camera("a", 1, 4), with_camera("b", 2, 3))], {"state": ["x"], "camera": ["camera"]}
    )
    frames = single.sample(Sample(0), rng())
    zeros = lambda shape, dtype: torch.zeros(shape, dtype=getattr(torch, dtype))  # noqa: E731
    for rows in (range(4), range(4, 7)):
        state = initial_history(spec, 1, zeros)
        for row in rows:
            seen, state = stack_history(spec, {g: v[row : row + 1] for g, v in frames.obs.items()}, state)
            after, _ = stack_history(spec, {g: v[row : row + 1] for g, v in frames.next_obs.items()}, state)
            for group in ("state", "camera"):
                assert torch.equal(batch.obs[group][row], seen[group][0])
                assert torch.equal(batch.next_obs[group][row], after[group][0])
    window = data.sample(Sample(0, length=2), rng())
    assert torch.equal(window.obs["camera"][0], batch.obs["camera"][:2])
    assert torch.equal(window.next_obs["state"][4], batch.next_obs["state"][4:6])
    n = data.sample(Sample(0, n_step=2), rng())
    assert torch.equal(n.next_obs["state"][0], batch.next_obs["state"][1])


GOALS = {"state": ["x"], "achieved_goal": ["y"], "goal": ["y"]}


def distance(achieved: torch.Tensor, goal: torch.Tensor) -> torch.Tensor:
    return -(achieved - goal).abs().squeeze(-1)


def test_the_final_goal_is_what_the_last_step_reached():
    data = OfflineDataset([log(episode("demo_0", 1, 3), episode("demo_1", 2, 2))], GOALS, goal_reward=distance)
    batch = data.sample(Sample(0, goal="final"), rng())
    assert batch.obs["goal"].squeeze(-1).tolist() == [-103, -103, -103, -202, -202]
    assert torch.equal(batch.next_obs["goal"], batch.obs["goal"])
    assert batch.reward.tolist() == [-2, -1, 0, -1, 0]
    window = data.sample(Sample(0, goal="final", length=2), rng())
    assert window.obs["goal"].squeeze(-1).tolist()[1] == [-103, -103] and window.reward.tolist()[0] == [-2, -1]


def test_future_goals_lie_at_or_behind_the_step_and_within_its_episode():
    data = OfflineDataset([log(episode("demo_0", 1, 3), episode("demo_1", 2, 2))], GOALS, goal_reward=distance)
    for rule in ("future", "geometric"):
        batch = data.sample(Sample(3000, goal=rule, goal_discount=0.5), rng())
        goals = [sorted(set(batch.obs["goal"][batch.rows == row].squeeze(-1).tolist())) for row in range(5)]
        assert goals == [[-103, -102, -101], [-103, -102], [-103], [-202, -201], [-202]]
        mean = -batch.obs["goal"][batch.rows == 0].mean().item()
        # drawn evenly 101, 102, 103; or in proportion to 1, 1/2, 1/4
        assert mean == pytest.approx(102 if rule == "future" else 101 + (0.5 + 2 * 0.25) / 1.75, abs=0.08)


def test_a_share_of_goals_stays_as_recorded():
    data = OfflineDataset([log(episode("demo_0", 1, 3))], GOALS, goal_reward=distance)
    batch = data.sample(Sample(2000, goal="final", goal_share=0.25), rng())
    kept = batch.obs["goal"].squeeze(-1) == batch.obs["achieved_goal"].squeeze(-1)
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.04)
    assert torch.equal(batch.reward[kept], batch.rows[kept] + 1.0)  # and so does their reward


def test_imitation_of_files_without_goals_takes_states_as_goals():
    batch = two().sample(Sample(0, goal="final", imitation=True), rng())
    assert first(batch.obs["goal"]) == [103, 103, 103, 202, 202]
    with pytest.raises(UsageError, match="need the task's reward"):
        two().sample(Sample(0, goal="final"), rng())
    with pytest.raises(UsageError, match="goal can be final, future, geometric"):
        two().sample(Sample(0, goal="nearest", imitation=True), rng())


def test_weights_are_shares_of_every_batch_and_origin_says_which():
    logs = [log(episode("demo_0", 1, 3)), log(episode("demo_0", 2, 90))]
    batch = OfflineDataset(logs, X, weights=[3, 1]).sample(Sample(8), rng())
    assert batch.origin.tolist() == [0] * 6 + [1] * 2
    assert (batch.obs["state"][:6, 0] < 200).all() and (batch.obs["state"][6:, 0] >= 200).all()
    even = OfflineDataset(logs, X).sample(Sample(930), rng())
    assert (even.origin == 0).sum().item() == pytest.approx(30, abs=20)


def test_choices_are_whole_numbers():
    data = OfflineDataset([log(episode("demo_0", 1, 3, actions=np.array([0, 2, 1])))], X)
    assert data.spec.discrete and data.spec.choices == 3
    batch = data.sample(Sample(0, length=2), rng())
    assert batch.action.dtype == torch.int64 and batch.action.squeeze(-1).tolist() == [[0, 2], [2, 1], [1, 1]]


def test_the_same_generator_gives_the_same_batches_and_its_state_is_all_there_is_to_save():
    request = Sample(16, length=3, goal="future", imitation=True)
    a, b = rng(3), rng(3)
    one, other = two(), two()
    for _ in range(3):
        one.sample(request, a), other.sample(request, b)
    resumed = np.random.default_rng()
    resumed.bit_generator.state = a.bit_generator.state
    x, y = other.sample(request, b), two().sample(request, resumed)
    assert torch.equal(x.obs["state"], y.obs["state"]) and torch.equal(x.obs["goal"], y.obs["goal"])


def test_blocks_are_all_steps_in_order():
    parts = list(two().blocks(2))
    assert [first(b.obs["state"]) for b in parts] == [[100, 101], [102, 200], [201]]


@pytest.mark.parametrize("columns, message", [
    ({"obs/x": np.full((3, 2), np.nan)}, "demo_0: obs/state holds nan at step 0"),
    ({"actions": np.full((3, 2), np.inf)}, "demo_0: actions holds inf at step 0"),
    ({"rewards": np.array([0, np.nan, 0])}, "rewards holds nan at step 1"),
    ({"obs/x": np.zeros((4, 2))}, "obs/x has 4 rows where actions have 3"),
    ({"actions": np.array([[0, 0], [3, 0], [0, -1.5]])}, "2 of 6 action values are beyond \\[-1, 1\\], the furthest 3"),
])  # fmt: skip
def test_what_cannot_be_kept_is_refused_by_name(columns, message):
    with pytest.raises(DatasetError, match=message):
        OfflineDataset([log(episode("demo_0", 1, 3, **columns))], X)


def test_actions_beyond_are_clipped_or_scaled_on_request():
    actions = {"actions": np.array([[0, 0], [3, 0], [0, -1.5]])}
    clipped = OfflineDataset([log(episode("demo_0", 1, 3, **actions))], X, actions="clip")
    assert clipped.sample(Sample(0), rng()).action.tolist() == [[0, 0], [1, 0], [0, -1]]
    assert clipped.notes == ("some.hdf5: 2 of 6 action values were beyond [-1, 1], the furthest 3, and are clipped",)
    scaled = OfflineDataset([log(episode("demo_0", 1, 3, **actions))], X, actions="scale")
    assert scaled.sample(Sample(0), rng()).action.tolist() == [[-1, 1], [1, 1], [-1, -1]]
    assert (scaled.spec.actions[0].low, scaled.spec.actions[0].high) == ((0, -1.5), (3, 0))


def test_the_action_may_be_what_an_expert_meant():
    some = log(episode("demo_0", 1, 3, actions_asked=np.full((3, 2), 0.5)))
    assert OfflineDataset([some], X, label="actions_asked").sample(Sample(0), rng()).action.tolist() == [[0.5, 0.5]] * 3
    with pytest.raises(DatasetError, match="demo_0: actions_asked is missing; it has obs/x, obs/y, actions, rewards"):
        OfflineDataset([log(episode("demo_0", 1, 3))], X, label="actions_asked")
    with pytest.raises(DatasetError, match="6 of 6 action values are beyond"):
        OfflineDataset([log(episode("demo_0", 1, 3, actions_asked=np.full((3, 2), 2.5)))], X, label="actions_asked")


def test_actions_of_a_file_that_tells_their_range_are_scaled_by_it():
    data = OfflineDataset([log(episode("demo_0", 1, 3, actions=np.array([[-2, 0], [2, 4], [0, 1.0]])),
                               action_low=[-2, 0], action_high=[2, 4])], X)  # fmt: skip
    assert data.sample(Sample(0), rng()).action.tolist() == [[-1, -1], [1, 1], [0, -0.5]]
    assert data.spec.actions[0].low == (-2, 0)


def test_what_no_dataset_gives_is_refused():
    with pytest.raises(UsageError, match="a dataset cannot give priority"):
        two().sample(Sample(4, priority=0.6), rng())


def test_filters_follow_a_file_behind_a_colon(tmp_path):
    file = tmp_path / "a.hdf5"
    file.touch()
    assert split_filter(f"{file}:train") == (str(file), "train") and split_filter(file) == (str(file), "")
    odd = tmp_path / "a:b"
    odd.touch()
    assert split_filter(odd) == (str(odd), "")


def test_files_are_loaded_by_filter(tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.hdf5", "w") as h5:
        for i, e in enumerate((episode("", 1, 3), episode("", 2, 2))):
            for name, column in e.columns.items():
                h5[f"data/demo_{i}/{name}"] = column
        h5["mask/train"] = np.array([b"demo_1"])
    batch = load([f"{tmp_path}/a.hdf5:train"], X).sample(Sample(0), rng())
    assert first(batch.obs["state"]) == [200, 201]
    with pytest.raises(DatasetError, match="has no filter 'valid'; it has train"):
        load([f"{tmp_path}/a.hdf5:valid"])
