"""Robomimic's layout: what people's files do, what our own hold, and robomimic's loader on what we write."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from poise.datasets.convert import convert
from poise.datasets.layouts import robomimic
from poise.datasets.log import Episode, Log
from poise.datasets.open_log import detect, open_log
from poise.errors import DatasetError


def write(path, lengths=(3, 4), **attributes):
    """A small file as robomimic itself writes them; returns its path."""
    with h5py.File(path, "w") as h5:
        data = h5.create_group("data")
        data.attrs.update(
            {"env_args": json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}}), "total": sum(lengths)}
        )
        data.attrs.update(attributes)
        for i, t in enumerate(lengths):
            demo = data.create_group(f"demo_{i}")
            demo.attrs.update({"num_samples": t, "model_file": "<mujoco/>"})
            rng = np.random.default_rng(i)
            demo["actions"], demo["rewards"] = rng.uniform(-1, 1, (t, 2)), np.zeros(t)
            demo["dones"], demo["states"] = np.eye(t, dtype=np.int64)[-1], rng.normal(size=(t, 5))
            for group in ("obs", "next_obs"):
                demo[f"{group}/pos"], demo[f"{group}/pic"] = (
                    rng.normal(size=(t, 3)),
                    rng.integers(0, 255, (t, 4, 4, 3), np.uint8),
                )
        h5["mask/train"] = np.array([b"demo_0"])
    return path


def content(log):
    columns = {(e.name, k): np.asarray(c[:]) for e in log.episodes for k, c in e.columns.items()}
    return (
        columns,
        dict(log.attributes),
        [dict(e.attributes) for e in log.episodes],
        dict(log.filters),
        dict(log.extras),
    )


def test_a_file_is_read_and_written_again_to_the_bit(tmp_path):
    with open_log(write(tmp_path / "a.hdf5")) as log:
        assert log.layout == "robomimic" and log.steps == 7 and log.filters == {"train": ("demo_0",)}
        assert robomimic.write(tmp_path / "b.hdf5", log) == []
        before = content(log)
    with open_log(tmp_path / "b.hdf5") as log:
        columns, *others = content(log)
        assert [*others] == [*before[1:]] and columns.keys() == before[0].keys()
        for name, values in columns.items():
            assert values.dtype == before[0][name].dtype and np.array_equal(values, before[0][name])
    with h5py.File(tmp_path / "b.hdf5") as h5:
        assert h5["data/demo_0/actions"].id.get_offset() is not None  # contiguous: it can be mapped


def test_episodes_are_in_order_of_their_numbers_whatever_hdf5_says(tmp_path):
    with open_log(write(tmp_path / "a.hdf5", (1,) * 12)) as log:
        assert [e.name for e in log.episodes] == [f"demo_{i}" for i in range(12)]


def test_isaac_lab_leaves_out_rewards_and_nests_states(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as h5:
        h5.create_group("data").attrs.update(
            {"env_args": json.dumps({"env_name": "Isaac-Stack", "type": 2}), "total": 99}
        )
        for i in (0, 2, 6):
            demo = h5.create_group(f"data/demo_{i}")
            demo.attrs.update({"num_samples": 4, "success": True})
            demo["actions"] = np.zeros((4, 7), np.float32)
            demo["states/articulation/robot/joint_position"] = np.zeros((4, 9), np.float32)
            demo["initial_state/articulation/robot/joint_position"] = np.ones((1, 9), np.float32)
            demo["obs/datagen_info/eef_pose/tcp"] = np.zeros((4, 4, 4), np.float32)
    with open_log(tmp_path / "a.hdf5") as log:
        first = log.episodes[0]
        assert [e.name for e in log.episodes] == ["demo_0", "demo_2", "demo_6"]
        assert "rewards" not in first.columns and "dones" not in first.columns and bool(first.attributes["success"])
        assert first.columns["obs/datagen_info/eef_pose/tcp"].shape == (4, 4, 4)
        assert first.attributes["initial_state/articulation/robot/joint_position"].shape == (1, 9)
        assert any("total 99, and has 12" in note for note in log.notes)
        robomimic.write(tmp_path / "b.hdf5", log)
        before = content(log)
    with open_log(tmp_path / "b.hdf5") as log:
        assert content(log)[0].keys() == before[0].keys()
        assert np.array_equal(
            *(c[2][0]["initial_state/articulation/robot/joint_position"] for c in (before, content(log)))
        )


def test_liberos_pictures_are_said_to_be_upside_down_and_an_empty_file_to_be_empty(tmp_path):
    with open_log(write(tmp_path / "a.hdf5", macros_image_convention="opengl", bddl_file_name="a.bddl")) as log:
        assert any("upside down" in note for note in log.notes)
    with open_log(write(tmp_path / "b.hdf5", ())) as log:
        assert log.episodes == [] and "there is no episode in it" in log.notes


def test_a_wrong_num_samples_is_noted_and_an_odd_name_refused(tmp_path):
    with h5py.File(write(tmp_path / "a.hdf5"), "r+") as h5:
        h5["data/demo_1"].attrs["num_samples"] = 400
    with open_log(tmp_path / "a.hdf5") as log:
        assert log["demo_1"].steps == 4 and "demo_1 says num_samples 400, and has 4 steps" in log.notes
    with h5py.File(tmp_path / "a.hdf5", "r+") as h5:
        h5.move("data/demo_1", "data/episode_one")
    with pytest.raises(DatasetError, match="'episode_one' is no name of an episode; expected demo_0"):
        open_log(tmp_path / "a.hdf5")


def test_what_robomimic_insists_on_is_added_said_and_taken_out_again(tmp_path):
    columns = {"obs/x": np.zeros((2, 3)), "actions": np.zeros((2, 1)), "terminations": np.array([False, True]),
               "truncations": np.array([False, False])}  # fmt: skip
    odd = {
        "note": None,
        "list": [1, 2.5, "x"],
        "big": np.zeros(20_000),
        "init/qpos": np.arange(2.0),
        "init/t": np.int8(3),
    }
    log = Log(
        tmp_path,
        "npz",
        [Episode("first", columns, odd)],
        {"source": "lab"},
        {"good": ("first",)},
        {"a/b": np.arange(3)},
    )
    said = "\n".join(robomimic.write(tmp_path / "a.hdf5", log))
    assert (
        "no env_args" in said and "dones are terminations" in said and "poise_name" in said and "poise_extras" in said
    )
    with h5py.File(tmp_path / "a.hdf5") as h5:
        assert h5["data/demo_0/dones"][:].tolist() == [0, 1] and h5["mask/good"][:].tolist() == [b"demo_0"]
    with open_log(tmp_path / "a.hdf5") as again:
        (episode,) = again.episodes
        assert (
            episode.name == "first"
            and set(episode.columns) == set(columns)
            and dict(again.attributes) == {"source": "lab"}
        )
        assert episode.attributes["init/qpos"].tolist() == [0.0, 1.0] and episode.attributes["init/t"] == 3
        assert episode.attributes["note"] is None and episode.attributes["list"] == [1, 2.5, "x"]
        assert np.array_equal(episode.attributes["big"], np.zeros(20_000)) and again.filters == {"good": ("first",)}
        assert again.extras["a/b"].tolist() == [0, 1, 2]


def test_a_file_of_ours_is_of_this_layout_and_links_out_of_it_are_refused(tmp_path):
    write(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "b.hdf5", "w") as h5:
        h5["data"] = h5py.ExternalLink("a.hdf5", "data")
    with pytest.raises(DatasetError, match="of no layout"):
        detect(tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r+") as h5:
        h5["data/demo_0/elsewhere"] = h5py.ExternalLink("b.hdf5", "data")
    with pytest.raises(DatasetError, match="elsewhere is a link"):
        open_log(tmp_path / "a.hdf5")


def test_robomimics_own_loader_reads_what_we_write(tmp_path):
    from robomimic.utils.dataset import SequenceDataset

    convert(write(tmp_path / "a.hdf5"), tmp_path / "b.hdf5", "robomimic")
    theirs = SequenceDataset(
        str(tmp_path / "b.hdf5"), obs_keys=("pos",), dataset_keys=("actions", "rewards", "dones"), seq_length=3,
        frame_stack=1, pad_seq_length=True, pad_frame_stack=True, get_pad_mask=True, hdf5_cache_mode=None,
        hdf5_use_swmr=False, load_next_obs=True,
    )  # fmt: skip
    with open_log(tmp_path / "b.hdf5") as log:
        assert len(theirs) == log.steps
        second = log["demo_1"].columns
        assert np.array_equal(theirs[3]["actions"], second["actions"][:3])
        assert np.array_equal(theirs[5]["next_obs"]["pos"], second["next_obs/pos"][:][[2, 3, 3]])
        assert theirs[5]["pad_mask"].ravel().tolist() == [True, True, False]
    theirs.close_and_delete_hdf5_handle()


def test_a_list_of_a_kind_that_hdf5_does_not_have_is_refused_before_hdf5_crashes_on_it(tmp_path):
    """One bit of the type's kind: the library follows it to no function at all."""
    path = write(tmp_path / "a.hdf5", note="some text")
    with h5py.File(path) as h5:
        kind = h5["data"].attrs.get_id("note").get_type().encode()[2:6]
    data = path.read_bytes()
    assert kind[1] & 0x0F == 1 and kind in data
    path.write_bytes(data.replace(kind, kind[:1] + bytes([kind[1] | 4]) + kind[2:]))
    with pytest.raises(DatasetError, match="is a list of lists of any length"):
        open_log(path, "robomimic")
