"""Raw robosuite demonstrations of three generations."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from poise.datasets.convert import convert
from poise.datasets.open_log import open_log
from poise.errors import DatasetError


def write(path, generation: str):
    with h5py.File(path, "w") as h5:
        data = h5.create_group("data")
        data.attrs.update({"env": "Lift", "date": "2020-1-1", "time": "12:00", "repository_version": generation})
        demo = data.create_group("demo_1")
        demo.attrs["model_file"] = "<mujoco/>" if generation == "1.4.0" else "model_1.xml"
        demo["states"] = np.random.default_rng(0).normal(size=(5, 7))
        if generation == "0.1.0":
            demo["joint_velocities"], demo["left_dpos"] = np.zeros((5, 7)), np.zeros((5, 0))
        else:
            data.attrs["env_info"] = "{}"
            demo["actions"] = np.ones((5, 4))
    return path


@pytest.mark.parametrize("generation", ["0.1.0", "1.0.0", "1.4.0"])
def test_every_generation_is_read_and_comes_back_by_way_of_robomimic(tmp_path, generation):
    write(tmp_path / "a.hdf5", generation)
    convert(tmp_path / "a.hdf5", tmp_path / "b.hdf5", "robomimic")
    convert(tmp_path / "b.hdf5", tmp_path / "c.hdf5", "robosuite")
    with open_log(tmp_path / "a.hdf5") as a, open_log(tmp_path / "c.hdf5") as c:
        assert a.layout == c.layout == "robosuite" and a.attributes == c.attributes
        assert a.episodes[0].name == "demo_1" and a.episodes[0].steps == 5
        assert a.episodes[0].attributes == c.episodes[0].attributes
        for name, values in a.episodes[0].columns.items():
            assert np.array_equal(values[:], c.episodes[0].columns[name][:])
        assert any("models/" in note for note in a.notes) == (generation != "1.4.0")


def test_a_log_without_states_is_no_raw_demonstration(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as h5:
        demo = h5.create_group("data/demo_0")
        demo.attrs["num_samples"], demo["actions"] = 2, np.zeros((2, 1))
    with pytest.raises(DatasetError, match="states of a simulator, and there are none"):
        convert(tmp_path / "a.hdf5", tmp_path / "b.hdf5", "robosuite")
