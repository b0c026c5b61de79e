"""Conversion there and back gives the same arrays, and a conversion that fails leaves nothing."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest

from poise.cli import main
from poise.datasets.convert import convert
from poise.datasets.open_log import LAYOUTS, layout, open_log
from poise.errors import DatasetError, UsageError
from poise.policies.collect import collect

WRITABLE = [name for name in LAYOUTS if hasattr(layout(name), "write")]


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    path = tmp_path_factory.mktemp("demos") / "reach.hdf5"
    collect("reach/fr3", path, episodes=3)
    return str(path)


def arrays(path, of=None):
    with open_log(path, of) as log:
        return [(e.name, {name: np.asarray(column[:]) for name, column in e.columns.items()}) for e in log.episodes]


@pytest.mark.parametrize("to", [name for name in WRITABLE if name != "robomimic"])
def test_a_file_comes_back_from_every_layout_with_equal_arrays(demos, to):
    convert(demos, "there-v0", to)
    convert("there-v0", "back.hdf5", "robomimic")
    before, after = arrays(demos), arrays("back.hdf5")
    assert [name for name, _ in before] == [name for name, _ in after]
    for (_, a), (_, b) in zip(before, after, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype and np.array_equal(a[name], b[name]), name


def test_one_filter_alone_can_be_converted(demos):
    assert main(["data", "split", demos, "--valid", "0.34", "--out", "split.hdf5"]) == 0
    convert("split.hdf5", "valid.hdf5", "d4rl", filter="valid")
    assert len(arrays("valid.hdf5")) == 1


def test_what_is_there_is_never_overwritten_and_what_fails_leaves_nothing(demos, monkeypatch):
    open("there", "w").close()
    with pytest.raises(DatasetError, match="there exists"):
        convert(demos, "there", "d4rl")

    def refuse(path, log):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(layout("d4rl"), "write", refuse)
    with pytest.raises(DatasetError, match=r"cannot write .*No space left on device; nothing was left there"):
        convert(demos, "new", "d4rl")
    assert sorted(os.listdir()) == ["there"]


def test_an_unknown_layout_lists_those_there_are(demos, capsys):
    with pytest.raises(UsageError, match="unknown layout 'd4r'"):
        convert(demos, "out", "d4r")
    assert main(["data", "convert", demos, "out.hdf5", "--to", "d4rl"]) == 0
    assert "out.hdf5: written as d4rl" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["d4rl", "npz", "robomimic"])
def test_columns_of_other_lengths_than_the_actions_are_not_converted(layout, tmp_path):
    with h5py.File("short.hdf5", "w") as h5:
        demo = h5.create_group("data/demo_0")
        demo.attrs["num_samples"] = 3
        demo["actions"], demo["obs/x"], demo["rewards"] = np.zeros((3, 1)), np.zeros((2, 3)), np.zeros(3)
    with pytest.raises(DatasetError, match=r"demo_0: obs/x is \(2, 3\), where there are 3 actions"):
        convert("short.hdf5", "out", layout)
