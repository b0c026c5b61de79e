"""Which layout a path has: one alone, or a message that says what is there and what each layout expects."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from poise.datasets.open_log import LAYOUTS, detect, open_log
from poise.errors import DatasetError, UsageError


def test_a_path_of_no_layout_is_told_what_it_is_and_what_each_layout_expects(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as h5:
        h5["velocities"] = np.zeros(3)
    with pytest.raises(DatasetError, match="of no layout that Poise knows: it is an HDF5 file of velocities") as error:
        detect(tmp_path / "x.hdf5")
    lines = str(error.value).splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(LAYOUTS) and all(len(line.split()) > 3 for line in lines)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DatasetError, match="a file of 5 bytes that begins with b'hello'"):
        detect(tmp_path / "text")
    with pytest.raises(DatasetError, match=r"a folder of text, x\.hdf5"):
        detect(tmp_path)
    with pytest.raises(DatasetError, match="no such file or folder"):
        detect(tmp_path / "none")


def test_half_a_file_and_a_pointer_of_git_lfs_are_named(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as h5:
        h5["data/demo_0/actions"] = np.zeros((100, 3))
    (tmp_path / "half.hdf5").write_bytes((tmp_path / "x.hdf5").read_bytes()[:1500])
    with pytest.raises(DatasetError, match=r"half\.hdf5 is no complete HDF5 file: .*truncated"):
        open_log(tmp_path / "half.hdf5")
    (tmp_path / "p.hdf5").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    with pytest.raises(DatasetError, match="a pointer of Git LFS"):
        open_log(tmp_path / "p.hdf5")


def test_a_path_of_two_layouts_needs_to_be_told_which(tmp_path):
    with h5py.File(tmp_path / "x.hdf5", "w") as h5:
        h5["observations"], h5["actions"] = np.zeros((3, 2)), np.zeros((3, 1))
        h5["rewards"], h5["terminals"] = np.zeros(3), np.zeros(3, bool)
        h5["data/demo_0/obs/x"], h5["data/demo_0/actions"] = np.zeros((3, 2)), np.zeros((3, 1))
    with pytest.raises(DatasetError, match=r"of several layouts \(robomimic, d4rl\)"):
        open_log(tmp_path / "x.hdf5")
    with open_log(tmp_path / "x.hdf5", "robomimic") as log:
        assert log.layout == "robomimic"
    with pytest.raises(UsageError, match="unknown layout 'robomimics'; did you mean robomimic"):
        open_log(tmp_path / "x.hdf5", "robomimics")
