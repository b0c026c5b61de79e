"""Splits share no episode, leave nobody empty, and change a file as a whole or not at all."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from poise.cli import main
from poise.datasets.open_log import open_log
from poise.datasets.split import best, grouped, split, write_filters
from poise.errors import DatasetError, UsageError


def write(path: str, returns: list[float]) -> str:
    with h5py.File(path, "w") as h5:
        for i, total in enumerate(returns):
            demo = h5.create_group(f"data/demo_{i}")
            demo.attrs["num_samples"] = 2
            demo["actions"], demo["rewards"] = np.zeros((2, 1)), np.array([0.0, total])
            demo["obs/x"] = demo["next_obs/x"] = np.zeros((2, 3))
    return path


def test_every_episode_is_in_one_of_the_two_and_the_seed_says_which():
    with open_log(write("a.hdf5", [0.0] * 10)) as log:
        filters = split(log, 0.3, seed=4)
        assert filters == split(log, 0.3, seed=4) != split(log, 0.3, seed=5)
    assert len(filters["valid"]) == 3 and len(filters["train"]) == 7
    assert sorted({*filters["train"], *filters["valid"]}) == [f"demo_{i}" for i in range(10)]


@pytest.mark.parametrize(("episodes", "share", "held"), [(2, 0.01, 1), (2, 0.99, 1), (100, 0.1, 10), (3, 0.5, 2)])
def test_neither_side_is_ever_empty(episodes, share, held):
    with open_log(write("a.hdf5", [0.0] * episodes)) as log:
        assert len(split(log, share)["valid"]) == held


def test_what_cannot_be_split_is_refused():
    with open_log(write("a.hdf5", [1.0])) as log:
        with pytest.raises(DatasetError, match="has 1 episode to split; it takes two"):
            split(log, 0.1)
        with pytest.raises(UsageError, match="between 0 and 1, not at 1"):
            split(log, 1.0)
        with pytest.raises(DatasetError, match="no filter 'human'"):
            split(log, 0.1, of="human")


def test_the_best_are_those_with_the_highest_returns():
    with open_log(write("a.hdf5", [3.0, 9.0, 1.0, 7.0, 5.0])) as log:
        assert best(log, 0.4) == {"top_40": ("demo_1", "demo_3")}
        assert best(log, 0.01, name="one") == {"one": ("demo_1",)}


def test_filters_go_into_the_file_or_into_a_copy_and_are_never_overwritten():
    write("a.hdf5", [0.0] * 4)
    write_filters("a.hdf5", {"train": ("demo_0", "demo_2")}, "b.hdf5")
    with open_log("a.hdf5") as one, open_log("b.hdf5") as other:
        assert one.filters == {} and other.filters == {"train": ("demo_0", "demo_2")}
    write_filters("a.hdf5", {"train": ("demo_1",)})
    with open_log("a.hdf5") as log:
        assert [e.name for e in log.filtered("train")] == ["demo_1"]
    with pytest.raises(DatasetError, match="has a filter 'train' already"):
        write_filters("a.hdf5", {"train": ("demo_0",)})


def test_the_command_splits_and_tells_how_to_use_it(capsys):
    write("a.hdf5", [0.0] * 10)
    assert main(["data", "split", "a.hdf5", "--valid", "0.2"]) == 0
    assert "valid: 2 episodes" in (out := capsys.readouterr().out) and "a.hdf5:train" in out
    assert main(["data", "split", "a.hdf5", "--best", "0.5", "--filter", "train"]) == 0
    with open_log("a.hdf5") as log:
        assert len(log.filters["top_50"]) == 4


def test_episodes_are_divided_by_return_length_success_and_any_attribute():
    write("a.hdf5", [3.0, 9.0, 1.0, 7.0, 5.0])
    with h5py.File("a.hdf5", "r+") as h5:
        for i, (won, who) in enumerate(zip([0, 1, 0, 1, 1], ["ann", "bo b", "ann", "bo b", "ann"], strict=True)):
            h5[f"data/demo_{i}"].attrs["success"], h5[f"data/demo_{i}"].attrs["operator"] = bool(won), who
    with open_log("a.hdf5") as log:
        parts = grouped(log, "return", parts=2)
        assert parts == {"return_1": ("demo_0", "demo_2", "demo_4"), "return_2": ("demo_1", "demo_3")}
        assert {name: len(members) for name, members in grouped(log, "length").items()} == {
            "length_1": 2, "length_2": 2, "length_3": 1}  # fmt: skip
        assert grouped(log, "success") == {"failure": ("demo_0", "demo_2"), "success": ("demo_1", "demo_3", "demo_4")}
        assert grouped(log, "operator") == {"operator_ann": ("demo_0", "demo_2", "demo_4"),
                                            "operator_bo-b": ("demo_1", "demo_3")}  # fmt: skip
        with pytest.raises(DatasetError, match=r"demo_0 has no attribute 'mood'; it has .*operator"):
            grouped(log, "mood")
        with pytest.raises(DatasetError, match="num_samples has 1 value over 5 episodes"):
            grouped(log, "num_samples")
        with pytest.raises(DatasetError, match="5 episodes, too few for 6 parts"):
            grouped(log, "return", parts=6)
        with pytest.raises(UsageError, match="2 parts or more, not 1"):
            grouped(log, "return", parts=1)
    assert main(["data", "split", "a.hdf5", "--by", "success"]) == 0
    with open_log("a.hdf5") as log:
        assert log.filters["failure"] == ("demo_0", "demo_2")
        assert grouped(log, "operator", of="success") == {
            "success_operator_bo-b": ("demo_1", "demo_3"), "success_operator_ann": ("demo_4",)}  # fmt: skip
