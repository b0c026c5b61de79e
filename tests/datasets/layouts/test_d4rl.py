"""D4RL's layout: where its episodes end, its shapes, its chunks, and any log through it and back."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from equal_logs import assert_equal_logs
from poise.datasets.layouts import d4rl
from poise.datasets.log import Episode
from poise.datasets.offline import load
from poise.datasets.open_log import detect, open_log
from poise.errors import DatasetError, UsageError
from small_logs import episode, log

DATA = Path(__file__).parents[2] / "data"
ROWS = 10


def file(tmp_path, name="some.hdf5", **arrays):
    """A file of ten rows whose observation is the row's number; None leaves an array out, __ is a slash."""
    rows = np.arange(ROWS)
    found = {
        "observations": np.stack([rows, -rows], 1).astype(np.float32),
        "actions": (rows[:, None] / 10).astype(np.float32),
        "rewards": rows.astype(np.float32),
        "terminals": rows == 3,
        "timeouts": rows == 7,
    } | arrays
    with h5py.File(tmp_path / name, "w") as h5:
        for key, value in found.items():
            if value is not None:
                h5[key.replace("__", "/")] = value
    return tmp_path / name


def steps(opened):
    return [e.steps for e in opened.episodes]


def test_episodes_end_at_terminals_and_at_timeouts(tmp_path):
    with open_log(file(tmp_path)) as found:
        assert (found.layout, steps(found)) == ("d4rl", [4, 4, 2])
        second = found.episodes[1].columns
        np.testing.assert_array_equal(second["obs/state"][:], [[4, -4], [5, -5], [6, -6], [7, -7]])
        np.testing.assert_array_equal(second["truncations"][:], [0, 0, 0, 1])
        np.testing.assert_array_equal(found.episodes[0].columns["terminations"][:], [0, 0, 0, 1])
        assert "next_obs/state" not in second
        assert found.notes == ("the last row is marked as no end: the last episode counts as cut off there",)


def test_without_timeouts_episodes_end_where_the_next_observation_is_not_the_next_row(tmp_path):
    rows = np.arange(ROWS)
    after = np.stack([rows + 1, -rows - 1], 1).astype(np.float32)
    after[5] = 99  # a time limit that nothing else tells
    with open_log(file(tmp_path, timeouts=None, next_observations=after)) as found:
        assert steps(found) == [4, 2, 4]
        assert "at 1 terminals and at 1 other rows" in found.notes[0]
        assert "truncations" not in found.episodes[0].columns
        np.testing.assert_array_equal(found.episodes[1].columns["next_obs/state"][:], [[5, -5], [99, 99]])


def test_nan_in_both_is_no_break(tmp_path):
    rows = np.arange(ROWS)
    observations = np.stack([rows, -rows], 1).astype(np.float32)
    observations[6] = np.nan
    after = np.append(observations[1:], observations[:1], 0)
    with open_log(file(tmp_path, timeouts=None, observations=observations, next_observations=after)) as found:
        assert steps(found) == [4, 6]


def test_a_told_horizon_counts_from_each_terminal(tmp_path):
    path = file(tmp_path, timeouts=None)
    with open_log(path, "d4rl?horizon=3") as found:
        assert steps(found) == [3, 1, 3, 3]
        assert "after 3 steps, as told" in found.notes[0]
    with open_log(path) as found:
        assert steps(found) == [4, 6]
        assert "say --layout 'd4rl?horizon=STEPS'" in found.notes[0]


@pytest.mark.parametrize("layout, message", [("d4rl?horizon=no", "horizon=no should be a number of steps"),
                                             ("d4rl?horizn=3", "unknown option of layout d4rl 'horizn'; did you mean horizon")])  # fmt: skip
def test_options_of_the_layout_are_checked(tmp_path, layout, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        open_log(file(tmp_path), layout)


def test_a_trajectory_without_an_end_is_one_episode(tmp_path):
    with open_log(file(tmp_path, terminals=np.zeros(ROWS, bool), timeouts=np.zeros(ROWS, bool))) as found:
        assert steps(found) == [ROWS]
        assert "one trajectory of 10 steps" in found.notes


def test_rewards_and_ends_in_a_column_of_their_own_are_read_and_written_back(tmp_path):
    wide = file(tmp_path, rewards=np.arange(ROWS, dtype=np.float32)[:, None], terminals=(np.arange(ROWS) == 3)[:, None])
    with open_log(wide) as found:
        assert found.episodes[0].columns["rewards"].shape == (4,)
        np.testing.assert_array_equal(found.episodes[1].columns["rewards"][:], [4, 5, 6, 7])
        d4rl.write(tmp_path / "again.hdf5", found)
    with h5py.File(tmp_path / "again.hdf5") as again:
        assert again["rewards"].shape == again["terminals"].shape == (ROWS, 1)
        assert again["timeouts"].shape == (ROWS,)


def test_infos_belong_to_steps_and_metadata_to_the_file(tmp_path):
    path = file(tmp_path, infos__qpos=np.ones((ROWS, 6)), metadata__iteration=7, metadata__algorithm="SAC",
                metadata__policy__fc0__weight=np.eye(ROWS))  # fmt: skip
    with open_log(path) as found:
        assert found.episodes[0].columns["infos/qpos"].shape == (4, 6)
        assert found.extras["metadata/iteration"] == 7
        assert found.extras["metadata/algorithm"] == "SAC"
        assert found.extras["metadata/policy/fc0/weight"].shape == (ROWS, ROWS)


def test_chunks_are_read_one_after_the_other(tmp_path):
    with h5py.File(tmp_path / "chunks.hdf5", "w") as h5:
        for chunk in (10, 2):  # in order of their numbers, not of their names
            for key in ("observations", "actions", "rewards", "terminals"):
                h5[f"virtual/{chunk}/{key}"] = np.full((3, 1) if key[0] in "oa" else 3, chunk, np.float32) * (
                    key != "terminals"
                )
    with open_log(tmp_path / "chunks.hdf5") as found:
        np.testing.assert_array_equal(found.episodes[0].columns["obs/state"][1:5], [[2], [2], [10], [10]])
        assert "the rows of 2 chunks" in found.notes[0]


@pytest.mark.parametrize("change, message", [
    ({"rewards": np.zeros(9)}, "rewards has shape (9,), and there are 10 actions"),
    ({"terminals": np.zeros((10, 2))}, "terminals has shape (10, 2), expected (10,) or (10, 1)"),
    ({"terminals": None}, "has no terminals, so nothing says where its episodes end"),
    ({"next_observations": np.zeros((10, 5))}, "next_observations has shape (10, 5), and observations (10, 2)"),
    ({"metadata__poise__log": "{"}, "what Poise wrote under metadata/poise is damaged"),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, message):
    with pytest.raises(DatasetError, match=re.escape(message)):
        open_log(file(tmp_path, **change))


def test_what_shows_other_files_or_claims_more_than_it_holds_is_refused(tmp_path):
    other = file(tmp_path, "other.hdf5")
    for name, put in {
        "soft": lambda h5: h5.update({"rewards": h5py.SoftLink("/actions")}),
        "external": lambda h5: h5.update({"rewards": h5py.ExternalLink(str(other), "rewards")}),
        "virtual": lambda h5: h5.create_virtual_dataset("rewards", _virtual(other)),
        "bomb": lambda h5: h5.create_dataset("rewards", (1 << 40,), "f4", chunks=(1 << 16,), compression="gzip"),
    }.items():
        path = file(tmp_path, f"{name}.hdf5", rewards=None)
        with h5py.File(path, "r+") as h5:
            put(h5)
        with pytest.raises(DatasetError, match=r"is a link|shows the bytes of other files|never written"):
            open_log(path)


def _virtual(other):
    layout = h5py.VirtualLayout((ROWS,), "f4")
    layout[:] = h5py.VirtualSource(other, "rewards", (ROWS,))
    return layout


def test_any_log_comes_back_from_a_d4rl_file_to_the_bit(tmp_path):
    own = np.array([b"grasp", b"lift", b"lift"])
    first = episode("demo_7", 1, 3, **{"obs/count": np.arange(3), "next_obs/count": np.arange(1, 4), "phase": own})
    second = episode("demo_2", 2, 2, end="u",
                     **{"obs/count": np.arange(2), "next_obs/count": np.arange(1, 3), "infos/only_here": np.eye(2),
                        "words": np.array(["a", "bé"], object), "phase": own[:2]})  # fmt: skip
    empty = episode("demo_9", 3, 0, **{"obs/count": np.arange(0), "next_obs/count": np.arange(0), "phase": own[:0]})
    second = Episode(second.name, second.columns, {"success": np.bool_(True), "model_file": "<mujoco/>"})
    given = log(first, second, empty, env_args='{"type": 2}', bounds=np.array([-1.5, np.nan]), tags=("a", 2, None))
    given = type(given)(given.path, given.layout, given.episodes, given.attributes, {"train": ("demo_2",)})
    lines = d4rl.write(tmp_path / "out.hdf5", given)
    assert "observations are x (2,), y () side by side as float64" in lines
    assert any(line.endswith("phase stand under infos/") for line in lines)
    with open_log(tmp_path / "out.hdf5") as found:
        assert detect(found.path) == "d4rl"
        assert_equal_logs(given, found, attributes=False)
        assert found.attributes["tags"] == ["a", 2, None]
        np.testing.assert_array_equal(found.attributes["bounds"], [-1.5, np.nan])
        assert found.episodes[1].attributes == second.attributes
    with h5py.File(tmp_path / "out.hdf5") as h5:
        np.testing.assert_array_equal(h5["terminals"], [False, False, True, False, False])
        np.testing.assert_array_equal(h5["timeouts"], [False, False, False, False, True])
        np.testing.assert_array_equal(h5["observations"][3], [200.0, 0.5, -200.0])


def test_timeouts_are_made_where_a_log_does_not_keep_truncations_and_not_read_back(tmp_path):
    given = log(episode("a", 1, 3, end="u", without=["truncations"]), episode("b", 2, 2, without=["truncations"]))
    lines = d4rl.write(tmp_path / "out.hdf5", given)
    assert any("timeouts mark the ends of episodes that did not terminate" in line for line in lines)
    with h5py.File(tmp_path / "out.hdf5") as h5:
        np.testing.assert_array_equal(h5["timeouts"], [False, False, True, False, False])
    with open_log(tmp_path / "out.hdf5") as found:
        assert_equal_logs(given, found)


def test_ends_of_unknown_kind_are_not_made_terminals(tmp_path):
    given = log(episode("a", 1, 3, without=["truncations", "terminations", "rewards"], dones=np.array([0, 0, 1])))
    lines = " ".join(d4rl.write(tmp_path / "out.hdf5", given))
    assert "no rewards" in lines and "does not tell terminations from truncations" in lines
    with h5py.File(tmp_path / "out.hdf5") as h5:
        assert "terminals" not in h5 and "timeouts" not in h5
    with open_log(tmp_path / "out.hdf5") as found:
        assert_equal_logs(given, found)


def test_a_log_of_cameras_alone_has_them_flattened_as_observations(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    given = log(episode("a", 1, 3, without=["obs/x", "obs/y", "next_obs/x", "next_obs/y"], **{"obs/front": pictures}))
    d4rl.write(tmp_path / "out.hdf5", given)
    with h5py.File(tmp_path / "out.hdf5") as h5:
        assert h5["observations"].shape == (3, 60) and h5["observations"].dtype == np.uint8
    with open_log(tmp_path / "out.hdf5") as found:
        assert_equal_logs(given, found)


def test_what_a_d4rl_file_cannot_be_made_of_is_refused_and_leaves_nothing(tmp_path):
    for given, message in [
        (log(episode("a", 1, 0)), "holds no step"),
        (log(episode("a", 1, 3, without=["actions"])), "has no actions"),
        (log(episode("a", 1, 3, without=["obs/x", "obs/y"])), "has no observations"),
        (log(episode("a", 1, 3, when=np.array(["2026"] * 3, "M8[Y]"))), "datetime64.* has no place"),
    ]:
        with pytest.raises(DatasetError, match=message):
            d4rl.write(tmp_path / "out.hdf5", given)
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "out.hdf5").write_text("mine")
    with pytest.raises(DatasetError, match="exists"):
        d4rl.write(tmp_path / "out.hdf5", log(episode("a", 1, 3)))


def test_a_last_step_without_a_successor_is_for_imitation_alone(tmp_path):
    import torch

    from poise.batch import Sample

    data = load([file(tmp_path)])
    batch = data.sample(Sample(0), np.random.default_rng(0))
    np.testing.assert_array_equal(batch.obs["state"][:, 0], [0, 1, 2, 3, 4, 5, 6, 8])  # not 7 nor 9
    np.testing.assert_array_equal(batch.next_obs["state"][[0, 1, 2, 4, 5, 6, 7], 0], [1, 2, 3, 5, 6, 7, 9])
    assert batch.terminated.to(torch.int).tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


def test_a_real_file_without_timeouts_opens_and_comes_back(tmp_path):
    with open_log(DATA / "d4rl_push_ball.hdf5") as found:
        assert steps(found) == [2000]
        assert found.episodes[0].columns["obs/state"].shape == (2000, 8)
        d4rl.write(tmp_path / "again.hdf5", found)
        with open_log(tmp_path / "again.hdf5") as again:
            assert_equal_logs(found, again)


def test_rows_that_cannot_be_read_are_named(tmp_path):
    with h5py.File(tmp_path / "some.hdf5", "w") as h5:
        h5["actions"], h5["rewards"], h5["terminals"] = np.zeros((100, 1)), np.zeros(100), np.zeros(100, bool)
        rows = h5.create_dataset(
            "observations",
            data=np.random.default_rng(0).normal(size=(100, 3)),
            chunks=(100, 3),
            compression="gzip",
            fletcher32=True,
        )
        where = rows.id.get_chunk_info(0).byte_offset
    data = bytearray((tmp_path / "some.hdf5").read_bytes())
    data[where + 50] ^= 255
    (tmp_path / "some.hdf5").write_bytes(data)
    with (
        pytest.raises(DatasetError, match="observations cannot be read, the file is damaged"),
        open_log(tmp_path / "some.hdf5") as found,
    ):
        found.episodes[0].columns["obs/state"][:]
