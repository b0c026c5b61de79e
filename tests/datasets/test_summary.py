"""A summary says what the file holds, and nothing where it holds nothing."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from poise.cli import main
from poise.datasets.log import Episode, Log
from poise.datasets.picture import draw
from poise.datasets.summary import ColumnSummary, summarize
from poise.errors import DatasetError
from poise.policies.collect import collect


def episode(name: str, steps: int, **attributes) -> Episode:
    ramp = np.arange(steps, dtype=np.float32)
    return Episode(name, {"obs/x": np.zeros((steps, 3)), "actions": np.stack([ramp, -ramp], 1), "rewards": ramp},
                   attributes)  # fmt: skip


def test_lengths_returns_ranges_and_success_are_those_of_hand():
    log = Log(Path("a"), "npz", [episode("a", 2, success=True), episode("b", 4, success=False)], filters={"f": ("a",)})
    found = summarize(log)
    assert (found.episodes, found.steps, found.lengths) == (2, 6, (2, 3.0, 4))
    assert found.returns == (1.0, 3.5, 6.0) and found.success_rate == 0.5 and found.filters == {"f": 1}
    assert found.action_low == (0.0, -3.0) and found.action_high == (3.0, 0.0)
    assert found.columns[1] == ColumnSummary("actions", (2,), "float32", 2)


def test_what_a_file_does_not_hold_is_absent():
    found = summarize(Log(Path("a"), "npz", [Episode("a", {"actions": np.zeros((3, 1))})]))
    assert found.returns is None and found.success_rate is None
    empty = summarize(Log(Path("a"), "npz", []))
    assert empty.lengths is None and empty.action_low == ()


def test_info_prints_the_columns_of_a_file(tmp_path, capsys):
    with h5py.File(tmp_path / "a.hdf5", "w") as h5:
        h5["data/demo_0/actions"], h5["data/demo_0/obs/x"] = np.zeros((2, 1)), np.zeros((2, 3))
        h5["data/demo_0"].attrs["num_samples"] = 2
    assert main(["data", "info", str(tmp_path / "a.hdf5"), "--json"]) == 0
    out = capsys.readouterr().out
    assert "1 episodes, 2 steps" in out and "obs/x" in out and '"action_low": [0.0]' in out


def test_a_file_of_ours_says_units_and_where_it_comes_from_and_draws_a_picture(capsys):
    collect("reach/fr3", "a.hdf5", episodes=2, noise=0.1)
    assert main(["data", "info", "a.hdf5", "--plot", "a.png"]) == 0
    out = capsys.readouterr().out
    assert "joint_pos [rad]" in out and "task          reach/fr3" in out and "noise         0.1" in out
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")
    assert main(["data", "info", "a.hdf5", "a.hdf5", "--plot", "a.png"]) == 2


def test_cameras_are_drawn_and_a_log_without_a_step_is_refused():
    rng = np.random.default_rng(0)
    columns = {"obs/cam": rng.integers(0, 255, (9, 16, 16, 3), np.uint8), "actions": rng.normal(size=(9, 2))}
    draw(Log(Path("x"), "npz", [Episode("demo_0", columns)]), "a.png")
    assert Path("a.png").stat().st_size > 10_000
    with pytest.raises(DatasetError, match="no step to draw"):
        draw(Log(Path("x"), "npz", []), "b.png")
