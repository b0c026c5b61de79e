"""Episodes of ACT and ALOHA, a file each."""

from __future__ import annotations

import io
import os

import h5py
import numpy as np
import pytest
from PIL import Image

from poise.datasets.layouts import act
from poise.datasets.log_spec import spec_of
from poise.datasets.open_log import open_log
from poise.errors import DatasetError


def write(folder, number: int, steps=4, cameras=True, coded=False):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(number)
    with h5py.File(folder / f"episode_{number}.hdf5", "w") as h5:
        h5.attrs["sim"] = True
        h5["observations/qpos"], h5["observations/qvel"] = rng.normal(size=(steps, 3)), rng.normal(size=(steps, 3))
        h5["action"] = rng.normal(size=(steps, 3))
        frames = rng.integers(0, 256, (steps, 6, 8, 3), dtype=np.uint8)
        if coded:
            h5["observations/images/top"] = padded([png(frame[..., ::-1]) for frame in frames])
            h5["compress_len"] = np.zeros((1, steps))
        elif cameras:
            h5.create_dataset("observations/images/top", data=frames, chunks=(1, 6, 8, 3))
    return frames


def png(frame) -> bytes:
    with io.BytesIO() as out:
        Image.fromarray(np.ascontiguousarray(frame)).save(out, "PNG")
        return out.getvalue()


def padded(codes: list[bytes]) -> np.ndarray:
    longest = max(len(code) for code in codes) + 5
    return np.stack([np.frombuffer(code.ljust(longest, b"\0"), np.uint8) for code in codes])


def test_a_folder_is_read_in_order_of_the_numbers_with_the_range_of_its_actions(tmp_path):
    frames = {i: write(tmp_path / "set", i, steps=3 + i) for i in (10, 0, 2)}
    with open_log(tmp_path / "set") as log:
        assert (log.layout, [e.name for e in log.episodes]) == ("act", ["demo_0", "demo_2", "demo_10"])
        assert [e.steps for e in log.episodes] == [3, 5, 13]
        assert set(log.episodes[0].columns) == {"obs/qpos", "obs/qvel", "obs/top", "actions"}
        assert np.array_equal(log["demo_2"].columns["obs/top"][1:3], frames[2][1:3])
        assert bool(log["demo_2"].attributes["sim"]) is True
        every = np.concatenate([e.columns["actions"][:] for e in log.episodes])
        term = spec_of(log).actions[0]
        assert np.array_equal(term.low, every.min(axis=0)) and np.array_equal(term.high, every.max(axis=0))
        assert any("8 numbers have no file, the first episode_1.hdf5" in note for note in log.notes)
    with pytest.raises(DatasetError, match="its log has been closed"):
        log.episodes[0].columns["actions"][:]


def test_one_file_alone_is_an_episode(tmp_path):
    write(tmp_path, 7)
    with open_log(tmp_path / "episode_7.hdf5") as log:
        assert (log.layout, log.steps) == ("act", 4)


def test_coded_pictures_come_out_as_opencv_gives_them(tmp_path):
    frames = write(tmp_path / "set", 0, coded=True)
    with open_log(tmp_path / "set") as log:
        top = log.episodes[0].columns["obs/top"]
        assert top.shape == frames.shape and np.array_equal(top[:], frames) and np.array_equal(top[2], frames[2])
        assert "compress_len" in log.episodes[0].attributes


def test_more_files_than_are_open_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(act, "OPEN", 2)
    for i in range(5):
        write(tmp_path / "set", i, cameras=False)
    with open_log(tmp_path / "set") as log:
        first = [e.columns["actions"][0] for e in log.episodes]
        assert np.array_equal(first, [e.columns["actions"][0] for e in log.episodes])
        assert len({row.tobytes() for row in first}) == 5


def test_what_is_no_such_episode_is_refused(tmp_path):
    write(tmp_path / "set", 0)
    os.symlink(tmp_path / "set" / "episode_0.hdf5", tmp_path / "set" / "episode_1.hdf5")
    assert len(open_log(tmp_path / "set").episodes) == 2, "a link inside the folder"
    (tmp_path / "out").mkdir()
    os.symlink(tmp_path / "set" / "episode_0.hdf5", tmp_path / "out" / "episode_0.hdf5")
    with pytest.raises(DatasetError, match="a link out of its folder"):
        open_log(tmp_path / "out", "act")
    with h5py.File(tmp_path / "set" / "episode_0.hdf5", "r+") as h5:
        del h5["observations/qpos"]
        h5["observations/qpos"] = np.zeros((3, 3))
    with pytest.raises(DatasetError, match=r"observations/qpos is \(3, 3\), where there are 4 actions"):
        open_log(tmp_path / "set")
    os.truncate(tmp_path / "set" / "episode_0.hdf5", 4000)
    with pytest.raises(DatasetError, match="no complete HDF5 file"):
        open_log(tmp_path / "set", "act")
