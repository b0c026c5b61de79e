"""Arrays in an npz: ours and other libraries' forms, and archives that lie."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from poise.datasets.layouts import npz
from poise.datasets.log import Episode, Log
from poise.datasets.open_log import open_log
from poise.errors import DatasetError


def column(log, name: str, episode: int = 0):
    return np.asarray(log.episodes[episode].columns[name][:])


def test_any_log_comes_back_to_the_bit(tmp_path):
    first = {"obs/x": np.arange(6, dtype=np.float32).reshape(2, 3), "actions": np.ones((2, 1)), "odd": np.zeros((2, 4))}
    second = {"obs/x": np.ones((3, 3), np.float32), "actions": np.zeros((3, 1)), "odd": np.zeros((3, 5), np.int8)}
    log = Log(tmp_path, "robomimic", [Episode("demo_3", first, {"success": True}), Episode("demo_7", second)],
              {"env_args": "{}"}, {"train": ("demo_3",)}, {"metadata/w": np.arange(4)})  # fmt: skip
    npz.write(tmp_path / "a.npz", log)
    again = open_log(tmp_path / "a.npz")
    assert [e.name for e in again.episodes] == ["demo_3", "demo_7"] and again.filters == {"train": ("demo_3",)}
    assert again.attributes == {"env_args": "{}"} and again.extras["metadata/w"].tolist() == [0, 1, 2, 3]
    for i, columns in enumerate((first, second)):
        assert again.episodes[i].columns.keys() == columns.keys()
        for name, values in columns.items():
            assert column(again, name, i).dtype == values.dtype and np.array_equal(column(again, name, i), values)
    assert again.episodes[0].attributes == {"success": True}


def test_imitations_trajectories_keep_their_last_observation_and_their_infos_stay_closed(tmp_path):
    obs = np.arange(14, dtype=np.float32).reshape(7, 2)  # two trajectories of 2 and 3 steps
    np.savez(tmp_path / "a.npz", obs=obs, acts=np.arange(5), rews=np.ones(5), indices=np.array([2]),
             terminal=np.array([True, False]), infos=np.array([{}] * 5, object))  # fmt: skip
    log = open_log(tmp_path / "a.npz")
    assert [e.steps for e in log.episodes] == [2, 3]
    assert (
        column(log, "obs/state", 1).tolist() == obs[3:6].tolist()
        and column(log, "next_obs/state", 1).tolist() == obs[4:7].tolist()
    )
    assert column(log, "terminations").tolist() == [False, True] and column(log, "truncations", 1).tolist() == [
        False,
        False,
        True,
    ]
    assert any("infos is a pickle of Python objects" in note for note in log.notes)


def test_ogbenchs_last_rows_are_successors_and_no_steps(tmp_path):
    np.savez(tmp_path / "a.npz", observations=np.arange(5.0)[:, None], actions=np.zeros((5, 1)),
             terminals=np.array([0, 0, 1, 0, 1]), qpos=np.arange(5.0)[:, None], qvel=np.zeros((5, 1)))  # fmt: skip
    log = open_log(tmp_path / "a.npz")
    assert [e.steps for e in log.episodes] == [2, 1]
    assert column(log, "next_obs/state").ravel().tolist() == [1.0, 2.0] and column(log, "truncations").tolist() == [
        False,
        True,
    ]
    assert column(log, "terminations").tolist() == [False, False]


def test_flat_arrays_are_cut_at_their_ends(tmp_path):
    np.savez(tmp_path / "a.npz", observations=np.zeros((5, 2)), actions=np.zeros((5, 1)), rewards=np.arange(5.0),
             terminals=np.array([0, 1, 0, 0, 0]), timeouts=np.array([0, 0, 0, 1, 0]))  # fmt: skip
    log = open_log(tmp_path / "a.npz")
    assert [e.steps for e in log.episodes] == [2, 2, 1] and column(log, "rewards", 1).tolist() == [2.0, 3.0]
    assert any("cut off there" in note for note in log.notes)


def test_no_object_is_ever_made_and_no_size_is_believed(tmp_path):
    np.savez(tmp_path / "a.npz", actions=np.array([{"a": 1}], object))
    with pytest.raises(DatasetError, match="expected arrays of actions"):
        open_log(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
        told = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 8), }"
        archive.writestr("actions.npy", header + told.ljust(117) + b"\n" + b"\0" * 64)
    with pytest.raises(DatasetError, match="actions says type float64 and shape"):
        open_log(tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "c.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("actions.npy", b"\0" * 300_000_000)
        (info,) = archive.infolist()
    assert info.compress_size < 400_000
    with pytest.raises(DatasetError, match=r"damaged|would be"):
        open_log(tmp_path / "c.npz")
