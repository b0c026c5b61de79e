"""Pickles are read as data: arrays come out, and nothing that a pickle asks for is run."""

from __future__ import annotations

import os
import pickle
import struct

import numpy as np
import pytest

from poise.datasets.open_log import open_log
from poise.datasets.plain_pickle import read_pickle
from poise.errors import DatasetError


class Runs:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "i8", "u1", "?", "S3", "U2", "c8"])
def test_arrays_come_out_as_they_went_in(tmp_path, protocol, dtype):
    array = np.asfortranarray(np.arange(12).reshape(3, 4).astype(dtype))
    content = [{"a": array, "b": [array[0], np.float32(2.5)], "c": "text", "d": (1, 2.0, None, True)}]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol))
    (again,) = read_pickle(tmp_path / "a.pkl")
    assert np.array_equal(again["a"], array) and again["a"].dtype == array.dtype
    assert np.array_equal(again["b"][0], array[0]) and again["b"][1] == 2.5
    assert again["c"] == "text" and again["d"] == [1, 2.0, None, True]


@pytest.mark.parametrize(
    "evil", [Runs(os.system, "touch pwned"), Runs(eval, "1"), Runs(open, "pwned", "w"), Runs(os.remove, "x"), np.array([{}], object)]
)  # fmt: skip
def test_nothing_is_run(tmp_path, evil):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([{"actions": evil}]))
    with pytest.raises(DatasetError, match=r"refused|no pickle of plain arrays"):
        open_log(tmp_path / "a.pkl")
    assert not os.path.exists("pwned")


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x80\x04" + b"]" + b"r" + struct.pack("<I", 2**32 - 1) + b".",  # a memo's number
        b"\x80\x04" + b"\x8e" + struct.pack("<Q", 2**62) + b"x.",  # a text of 4 exabytes
        b"\x80\x04" + b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",  # a number of 2 GB
        b"\x80\x04" + b"](" * 100_000 + b"e" * 100_000 + b".",  # lists in lists
        b"\x80\x04cnumpy\nndarray\n(I1000000000\ntR.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04.",
        b"\x80\x63.",
        b"",
    ],
)
def test_a_bomb_is_refused_at_once(tmp_path, bomb):
    (tmp_path / "a.pkl").write_bytes(bomb)
    with pytest.raises(DatasetError):
        open_log(tmp_path / "a.pkl", "pickled")


def test_lists_that_repeat_each_other_do_not_explode(tmp_path):
    bomb: list = [0]
    for _ in range(11):
        bomb = [bomb] * 10
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(bomb))
    with pytest.raises(DatasetError, match="without end"):
        read_pickle(tmp_path / "a.pkl")


def test_a_list_of_paths_becomes_episodes_whose_ends_are_of_unknown_kind(tmp_path):
    path = {"observation": np.zeros((3, 2)), "action": np.ones((3, 1)), "reward": np.arange(3.0), "terminal": np.array([0, 0, 1]),
            "next_observation": np.zeros((3, 2)), "image_obs": [], "init_state_dict": {"qpos": np.zeros(5)}}  # fmt: skip
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([path, path]))
    log = open_log(tmp_path / "a.pkl")
    first = log.episodes[0]
    assert log.layout == "pickled" and len(log.episodes) == 2
    assert set(first.columns) == {"obs/state", "actions", "rewards", "dones", "next_obs/state"}
    assert first.attributes["init_state_dict/qpos"].shape == (5,) and any("--ends" in note for note in log.notes)
