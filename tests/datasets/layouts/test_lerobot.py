"""LeRobot's layout: a real copy of v2.1, and v3.0 as its writers leave it, films and all."""

import json
import re
import shutil
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from equal_logs import assert_equal_logs
from poise.batch import Sample
from poise.datasets.layouts import d4rl, minari
from poise.datasets.offline import load
from poise.datasets.open_log import open_log
from poise.errors import DatasetError

REAL = Path(__file__).parents[2] / "data/lerobot_g1"
LENGTHS = {0: 5, 1: 3, 2: 4}
FPS = 10
SIZE = (48, 64)


def columns(index: int, first: int) -> dict:
    """Rows of one episode: the state is 100 episode + frame, the action minus that, the picture 20 episode + 10 frame."""
    frame = np.arange(LENGTHS[index], dtype=np.int64)
    state = np.stack([100.0 * index + frame, np.full(len(frame), 0.5)], 1).astype(np.float32)
    fixed = [pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), 2) for x in (state, -state)]
    return {
        "observation.state": fixed[0],
        "action": fixed[1],
        "next.reward": pa.array((frame + 1).astype(np.float32)),
        "next.done": pa.array((frame == len(frame) - 1) & (index == 1)),
        "timestamp": pa.array((frame / FPS).astype(np.float32)),
        "frame_index": pa.array(frame),
        "episode_index": pa.array(np.full(len(frame), index)),
        "index": pa.array(first + frame),
        "task_index": pa.array(np.zeros(len(frame), np.int64)),
    }


def features(**more) -> dict:
    told = {name: {"dtype": "float32", "shape": [2], "names": None} for name in ("observation.state", "action")}
    told |= {
        name: {"dtype": dtype, "shape": [1], "names": None}
        for name, dtype in (
            ("next.reward", "float32"),
            ("next.done", "bool"),
            ("timestamp", "float32"),
            ("frame_index", "int64"),
            ("episode_index", "int64"),
            ("index", "int64"),
            ("task_index", "int64"),
        )
    }
    return told | more


def v3(root: Path) -> Path:
    """Episodes 0 and 1 in one file of data and of film, episode 2 in the next; a row group an episode."""
    places = {0: (0, 0), 1: (0, LENGTHS[0]), 2: (1, LENGTHS[0] + LENGTHS[1])}
    film = {"dtype": "video", "shape": [3, *SIZE], "names": ["channels", "height", "width"]}
    info = {"codebase_version": "v3.0", "robot_type": "so101", "fps": FPS, "total_episodes": 3, "features": features(**{"observation.images.front": film}),
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "chunks_size": 1000,
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"}  # fmt: skip
    key = "videos/observation.images.front"
    rows = [{"episode_index": i, "tasks": ["lift it"], "length": LENGTHS[i], "data/chunk_index": 0, "data/file_index": file,
             f"{key}/chunk_index": 0, f"{key}/file_index": 0, f"{key}/from_timestamp": first / FPS, "stats/action/min": [0.0]}
            for i, (file, first) in places.items()]  # fmt: skip
    for folder in ("meta/episodes/chunk-000", "data/chunk-000", f"{key}/chunk-000"):
        (root / folder).mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/stats.json").write_text(json.dumps({"action": {"min": [-202.0, -1.0], "max": [0.0, 1.0]}}))
    pq.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    for file in (0, 1):
        tables = [pa.table(columns(i, first)) for i, (of, first) in places.items() if of == file]
        with pq.ParquetWriter(root / f"data/chunk-000/file-00{file}.parquet", tables[0].schema) as writer:
            for table in tables:
                writer.write_table(table)
    out = imageio_ffmpeg.write_frames(
        str(root / f"{key}/chunk-000/file-000.mp4"), SIZE[::-1], fps=FPS, quality=9, macro_block_size=16
    )
    out.send(None)
    for i, length in LENGTHS.items():
        for frame in range(length):
            out.send(np.full((*SIZE, 3), 20 * i + 10 * frame, np.uint8))
    out.close()
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return v3(tmp_path_factory.mktemp("lerobot") / "set")


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "set"))


def change(copy: Path, **told) -> None:
    info = json.loads((copy / "meta/info.json").read_text())
    (copy / "meta/info.json").write_text(json.dumps(info | told))


def test_a_real_incomplete_copy_is_read_with_a_note():
    with open_log(REAL) as found:
        assert (found.layout, [(e.name, e.steps) for e in found.episodes]) == ("lerobot", [("demo_2", 343)])
        assert found.notes[:2] == ("the metadata says 100 episodes, and 1 are there",
                                   "observation.images.cam_high is left out: 1 of 1 films are not there")  # fmt: skip
        assert found.episodes[0].columns["obs/state"].shape == (343, 26)
        assert found.episodes[0].attributes["task"] == "Pick up the yellow bottle on the table."
        assert found.attributes["control_dt"] == pytest.approx(1 / 30)


def test_actions_in_radians_are_scaled_by_what_the_files_say_they_range_over():
    data = load([REAL])
    batch = data.sample(Sample(0, imitation=True), np.random.default_rng(0))
    with open_log(REAL) as found:
        raw = found.episodes[0].columns["actions"][:]
    low, high = (np.asarray(x) for x in (data.spec.actions[0].low, data.spec.actions[0].high))
    np.testing.assert_allclose(low + (batch.action.numpy() + 1) / 2 * (high - low), raw, atol=1e-6)
    assert data.spec.control_dt == pytest.approx(1 / 30)


def test_the_episodes_of_v3_are_found_in_files_of_several(made):
    with open_log(made) as found:
        assert [e.steps for e in found.episodes] == [5, 3, 4]
        for i, episode in enumerate(found.episodes):
            np.testing.assert_array_equal(episode.columns["obs/state"][:, 0], 100 * i + np.arange(LENGTHS[i]))
            np.testing.assert_array_equal(episode.columns["actions"][1:3, 0], -100 * i - np.arange(1, 3))
        second = found.episodes[1].columns
        np.testing.assert_array_equal(second["rewards"][:], [1, 2, 3])
        assert (second["terminations"][:].tolist(), second["truncations"][:].tolist()) == (
            [False, False, True],
            [False] * 3,
        )
        assert found.episodes[2].columns["truncations"][:].tolist() == [False, False, False, True]
        assert (found.attributes["action_low"].tolist(), found.attributes["action_high"].tolist()) == (
            [-202, -1],
            [0, 1],
        )
        assert not any(name.startswith("next_obs/") for name in second)


def test_frames_of_a_film_are_those_of_the_step(made):
    with open_log(made) as found:
        for i, episode in enumerate(found.episodes):
            camera = episode.columns["obs/front"]
            assert camera.shape == (LENGTHS[i], *SIZE, 3)
            assert np.abs(camera[:].astype(int).mean((1, 2, 3)) - 20 * i - 10 * np.arange(LENGTHS[i])).max() < 4
            assert abs(int(camera[1:2].mean()) - 20 * i - 10) < 4


def test_a_set_converts_to_d4rl_and_minari_and_back(made, tmp_path):
    with open_log(made) as found:
        d4rl.write(tmp_path / "a.hdf5", found)
        minari.write(tmp_path / "a-v0", found)
        for path in ("a.hdf5", "a-v0"):
            with open_log(tmp_path / path) as again:
                assert_equal_logs(found, again)


def test_a_column_of_pictures_is_decoded(copy):
    import io

    from PIL import Image

    pictures = []
    for value in range(4):
        buffer = io.BytesIO()
        Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(buffer, format="PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": "x.png"})
    file = copy / "data/chunk-000/file-001.parquet"
    table = pq.read_table(file).append_column("observation.image", pa.array(pictures))
    pq.write_table(table, file)
    rows = pq.read_table(copy / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[2:]
    pq.write_table(pa.Table.from_pylist(rows), copy / "meta/episodes/chunk-000/file-000.parquet")
    (copy / "data/chunk-000/file-000.parquet").unlink()
    change(
        copy,
        features=features(
            **{"observation.image": {"dtype": "image", "shape": [4, 6, 3], "names": ["height", "width", "channels"]}}
        ),
        total_episodes=1,
    )
    with open_log(copy) as found:
        assert found.episodes[0].columns["obs/image"][1:3].max((1, 2, 3)).tolist() == [1, 2]


def test_without_statistics_the_data_say_what_actions_range_over(copy):
    (copy / "meta/stats.json").unlink()
    with open_log(copy) as found:
        assert found.attributes["action_low"].tolist() == [-203, -1.5]  # what never moves has a width of 2
        assert found.attributes["action_high"].tolist() == [0, 0.5]


def test_episodes_whose_file_is_missing_are_left_out_and_said(copy):
    (copy / "data/chunk-000/file-000.parquet").unlink()
    with open_log(copy) as found:
        assert [e.name for e in found.episodes] == ["demo_2"]
        assert found.notes[0] == "the metadata says 3 episodes, and 1 are there"
    (copy / "data/chunk-000/file-001.parquet").unlink()
    with pytest.raises(DatasetError, match="none of the 3 episodes of meta/ has its data"):
        open_log(copy)


def cut(copy):
    file = copy / "data/chunk-000/file-000.parquet"
    file.write_bytes(file.read_bytes()[:-60])


def pointer(copy):
    (copy / "data/chunk-000/file-000.parquet").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )


def shorter(copy):
    rows = pq.read_table(copy / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    rows[1]["length"] = 7
    pq.write_table(pa.Table.from_pylist(rows), copy / "meta/episodes/chunk-000/file-000.parquet")


def without_action(copy):
    file = copy / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["action"]), file)


@pytest.mark.parametrize("damage, message", [
    (cut, "is no whole parquet file, perhaps of a recording that was never finished"),
    (pointer, "is a pointer of Git LFS and not the data"),
    (shorter, "episode 1 has 3 rows, and 7 by meta/"),
    (without_action, "has no action, which meta/info.json describes"),
    (lambda c: change(c, codebase_version="v1.6"), "is LeRobot v1.6; Poise reads v2.0, v2.1 and v3.0"),
    (lambda c: change(c, data_path="../../etc/{chunk_index}.parquet"), "leads out of the folder"),
    (lambda c: change(c, data_path="data/{chunk_index.__class__}"), "none of the 3 episodes"),
    (lambda c: change(c, data_path="data/{nobody:03d}"), "has no 'nobody' to fill in"),
    (lambda c: change(c, fps=0), "fps of meta/info.json is 0"),
    (lambda c: change(c, features=[]), "should be a description of each column"),
    (lambda c: (c / "meta/info.json").write_text("{"), "is of no layout that Poise knows"),
])  # fmt: skip
def test_what_is_damaged_is_refused(copy, damage, message):
    damage(copy)
    with pytest.raises(DatasetError, match=re.escape(message)):
        open_log(copy)


def test_rows_of_another_size_are_refused_when_they_are_read(copy):
    change(copy, features=features(**{"observation.state": {"dtype": "float32", "shape": [3], "names": None}}))
    with (
        open_log(copy) as found,
        pytest.raises(DatasetError, match=r"has 10 numbers in 5 rows, expected rows of \(3,\)"),
    ):
        found.episodes[0].columns["obs/state"][:]


def test_a_film_that_is_too_short_is_refused_when_it_is_looked_at(copy):
    place = copy / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(place).to_pylist()
    rows[2]["videos/observation.images.front/from_timestamp"] = 1.0
    pq.write_table(pa.Table.from_pylist(rows), place)
    with open_log(copy) as found, pytest.raises(DatasetError, match=r"has 2 frames from .* on, expected 4"):
        found.episodes[2].columns["obs/front"][:]


def test_without_pyarrow_the_error_says_how_to_get_it(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DatasetError, match=re.escape("needs pyarrow: pip install 'poise[lerobot]'")):
        open_log(made)
