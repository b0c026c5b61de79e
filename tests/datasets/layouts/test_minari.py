"""Minari's layout: what minari writes is read, what we write minari loads, and any log comes back."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest

from equal_logs import assert_equal_logs
from poise.datasets.layouts import minari
from poise.datasets.log import Episode
from poise.datasets.offline import load
from poise.datasets.open_log import open_log
from poise.errors import DatasetError
from small_logs import episode, log

THEIRS = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, minari
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
box = spaces.Box(-np.inf, np.inf, (2,), np.float32)
image = spaces.Box(0, 255, (32, 40, 3), np.uint8)
observation = spaces.Dict({"pos": box, "seen": spaces.Tuple((image, spaces.Discrete(5))), "words": spaces.Text(9, charset="abc")})
def buffer(i, dict_space):
    T = 3 + i
    rows = np.arange(T + 1)
    pos = np.stack([rows, -rows], 1).astype(np.float32) + i
    pictures = np.broadcast_to((20 * rows[:, None, None, None]).astype(np.uint8), (T + 1, 32, 40, 3)).copy()
    words = ["abc"[:r % 3] for r in rows]
    obs = {"pos": pos, "seen": (pictures, rows % 5), "words": words} if dict_space else pos
    return EpisodeBuffer(id=i, seed=7, options={"hard": True}, observations=obs, actions=np.full((T, 1), 2.0 * i, np.float32),
        rewards=np.arange(T) / 2, terminations=[False] * (T - 1) + [i == 0], truncations=[False] * (T - 1) + [i == 1],
        infos={"speed": np.arange(T + 1) / 4})
for kind in ("hdf5", "arrow", "parquet"):
    for name, space in (("dict", observation), ("box", box)):
        minari.create_dataset_from_buffers(f"{name}/{kind}-v0", [buffer(i, name == "dict") for i in range(2)], data_format=kind,
            observation_space=space, action_space=spaces.Box(-4, 4, (1,), np.float32), algorithm_name="hand", author={"me"})
"""
OURS = """
import sys, warnings
warnings.simplefilter("ignore")
import minari
data = minari.load_dataset(sys.argv[1])
episodes = list(data.iterate_episodes())
print(data.total_steps, data.total_episodes, data.spec.dataset_id)
print(type(data.observation_space).__name__, data.action_space.low.tolist(), data.action_space.high.tolist())
first = episodes[0]
print({k: v.shape for k, v in first.observations.items()} if isinstance(first.observations, dict) else first.observations.shape)
print(first.rewards.tolist(), first.terminations.tolist(), first.truncations.tolist(), repr(first)[:12])
"""


def run(code, root, *told):
    done = subprocess.run([sys.executable, "-c", code, *told], cwd=root, capture_output=True, text=True, timeout=120,
                          env={"MINARI_DATASETS_PATH": str(root), "HOME": str(root), "PATH": "/usr/bin:/bin"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    root = tmp_path_factory.mktemp("minari")
    run(THEIRS, root)
    return root


@pytest.mark.parametrize("kind", ["hdf5", "arrow", "parquet"])
def test_what_minari_writes_of_a_box_is_read(theirs, kind):
    with open_log(theirs / f"box/{kind}-v0") as found:
        assert (found.layout, [e.steps for e in found.episodes]) == ("minari", [3, 4])
        second = found.episodes[1].columns
        np.testing.assert_array_equal(second["obs/state"][:], [[1, 1], [2, 0], [3, -1], [4, -2]])
        np.testing.assert_array_equal(second["next_obs/state"][:], [[2, 0], [3, -1], [4, -2], [5, -3]])
        np.testing.assert_array_equal(second["rewards"][:], [0, 0.5, 1, 1.5])
        np.testing.assert_array_equal(second["truncations"][:], [0, 0, 0, 1])
        np.testing.assert_array_equal(found.episodes[0].columns["terminations"][:], [0, 0, 1])
        np.testing.assert_array_equal(second["infos/speed"][:], [0, 0.25, 0.5, 0.75])
        np.testing.assert_array_equal(second["next_infos/speed"][-1:], [1.0])
        assert found.episodes[0].attributes["seed"] == 7
        assert (found.attributes["action_low"], found.attributes["action_high"]) == ([-4], [4])


@pytest.mark.parametrize("kind", ["hdf5", "arrow", "parquet"])
def test_what_minari_writes_of_a_dict_is_read_pictures_decoded(theirs, kind):
    with open_log(theirs / f"dict/{kind}-v0") as found:
        columns = found.episodes[0].columns
        assert columns["obs/seen/_index_0"].shape == (3, 32, 40, 3)
        assert np.abs(columns["next_obs/seen/_index_0"][2].astype(int) - 60).max() <= 2  # as lossy as JPEG is
        np.testing.assert_array_equal(columns["obs/seen/_index_1"][:], [0, 1, 2])
        assert list(columns["next_obs/words"][:]) == ["a", "ab", ""]
        assert any("JPEG" in note for note in found.notes)


def test_actions_in_the_files_units_are_scaled_for_training(theirs):
    from poise.batch import Sample

    batch = load([theirs / "box/hdf5-v0"]).sample(Sample(0), np.random.default_rng(0))
    np.testing.assert_array_equal(batch.action[:, 0], [0, 0, 0, 0.5, 0.5, 0.5, 0.5])


def test_what_minari_wrote_comes_back_through_us(theirs, tmp_path):
    with open_log(theirs / "dict/hdf5-v0") as found:
        minari.write(tmp_path / "again-v0", found)
        with open_log(tmp_path / "again-v0") as again:
            assert_equal_logs(found, again)
            assert json.loads((tmp_path / "again-v0/data/metadata.json").read_text())["author"] == ["me"]


def test_minari_loads_what_we_write(tmp_path):
    given = log(episode("a", 1, 3), episode("b", 2, 4, end="u", without=["truncations"]))
    given = replace(given, episodes=[replace(e, columns={n: c for n, c in e.columns.items() if n != "truncations"})
                                     for e in given.episodes])  # fmt: skip
    lines = minari.write(tmp_path / "poise/mine-v3", given)
    assert lines == ["truncations mark the ends of episodes that did not terminate, which the log has no column for"]
    shown = run(OURS, tmp_path, "poise/mine-v3")
    assert shown[0].replace("poise/", "") == "7 2 mine-v3"
    assert shown[1] == "Dict [-1.0, -1.0] [1.0, 1.0]"
    assert shown[2] == "{'x': (4, 2), 'y': (4,)}"
    assert shown[3] == "[1.0, 2.0, 3.0] [False, False, True] [False, False, False] EpisodeData("
    with open_log(tmp_path / "poise/mine-v3") as found:
        assert_equal_logs(given, found)


def test_any_log_comes_back_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (4, 40, 36, 3), np.uint8)
    first = episode("demo_7", 1, 3, states=np.eye(3), dones=np.array([0, 0, 1], np.uint8),
                    **{"obs/front": pictures[:3], "next_obs/front": pictures[1:], "infos/a/b": np.arange(3),
                       "obs/text": np.array(["x", "é", ""], object)})  # fmt: skip
    second = episode("demo_2", 2, 2, end="u", known=False, states=np.eye(2), dones=np.zeros(2, np.uint8),
                     **{"obs/front": pictures[:2, :32, :32], "infos/a/b": np.arange(2), "next_obs/x": np.ones((2, 2)),
                        "next_obs/y": np.ones(2), "obs/text": np.array(["", "y"], object)})  # fmt: skip
    second = Episode(second.name, second.columns, {"success": np.bool_(True)})
    given = log(first, second, episode("demo_9", 3, 0, states=np.eye(0, 2), dones=np.zeros(0, np.uint8)), env_args="{}")
    given = replace(given, episodes=given.episodes[:2], filters={"train": ("demo_2",)}, extras={"w": np.eye(2)})
    lines = " ".join(minari.write(tmp_path / "any-v0", given))
    assert "next_obs/x is not what the next row of obs/x says" in lines
    assert "obs/front differ in shape or type" in lines and "dones, states stand under infos/poise" in lines
    with open_log(tmp_path / "any-v0") as found:
        assert_equal_logs(given, found)
        np.testing.assert_array_equal(found.extras["w"], np.eye(2))


def test_choices_are_discrete(tmp_path):
    given = log(episode("a", 1, 3, actions=np.array([0, 2, 1])))
    minari.write(tmp_path / "a-v0", given)
    space = json.loads(json.loads((tmp_path / "a-v0/data/metadata.json").read_text())["action_space"])
    assert space == {"type": "Discrete", "dtype": "int64", "start": 0, "n": 3}


def test_what_is_not_known_is_left_out_and_said(tmp_path):
    given = log(episode("a", 1, 3, known=False, without=["rewards", "terminations", "truncations"]))
    lines = " ".join(minari.write(tmp_path / "a-v0", given))
    assert (
        "does not know rewards, terminations, truncations" in lines and "no observation after the last action" in lines
    )
    with open_log(tmp_path / "a-v0") as found:
        assert_equal_logs(given, found)
        assert found.notes == (
            "observations of some episodes have no last row: what followed the last action is unknown",
        )


@pytest.mark.parametrize("path, message", [("mine", "called NAME-v0"), ("x y-v0", "called NAME-v0"), ("", "exists")])
def test_a_name_that_minari_would_not_take_is_refused(tmp_path, path, message):
    with pytest.raises(DatasetError, match=message):
        minari.write(tmp_path / path, log(episode("a", 1, 3)))


@pytest.mark.parametrize("what, message", [
    ("short", "rewards has shape (2,), and there are 3 actions"),
    ("observations", "obs/x has 9 rows, expected 4"),
    ("stray", "stands where episode_<number>/<array> should"),
    ("space", "observation_space is no space that Minari 0.5 writes: its type is 'Graph'"),
    ("format", "data_format is 'zarr'; Poise reads hdf5, arrow and parquet"),
    ("cut", "is no complete HDF5 file"),
    ("kept", "poise.json, which Poise wrote, is damaged"),
])  # fmt: skip
def test_what_is_damaged_is_refused(tmp_path, what, message):
    minari.write(tmp_path / "a-v0", log(episode("a", 1, 3)))
    file, text = tmp_path / "a-v0/data/main_data.hdf5", tmp_path / "a-v0/data/metadata.json"
    metadata = json.loads(text.read_text())
    if what == "cut":
        file.write_bytes(file.read_bytes()[:-400])
    else:
        with h5py.File(file, "r+") as h5:
            for name, values in {"short": ("episode_0/rewards", np.zeros(2)), "stray": ("notes", np.zeros(2)),
                                 "observations": ("episode_0/observations/x", np.zeros((9, 2)))}.items():  # fmt: skip
                if name == what:
                    h5.pop(values[0], None)
                    h5[values[0]] = values[1]
    if what == "space":
        metadata["observation_space"] = json.dumps({"type": "Graph"})
    if what == "format":
        metadata["data_format"] = "zarr"
    if what == "kept":
        (tmp_path / "a-v0/data/poise.json").write_text("{}")
    text.write_text(json.dumps(metadata))
    with pytest.raises(DatasetError, match=re.escape(message)):
        open_log(tmp_path / "a-v0")


def test_pictures_that_are_none_are_refused_when_they_are_looked_at(theirs, tmp_path):
    import shutil

    shutil.copytree(theirs / "dict/hdf5-v0", tmp_path / "a-v0")
    with h5py.File(tmp_path / "a-v0/data/main_data.hdf5", "r+") as h5:
        place = h5["episode_0/observations/seen"]
        shape = place["_index_0"].shape
        del place["_index_0"]
        place["_index_0"] = np.zeros((shape[0], 90), np.uint8)
    with (
        open_log(tmp_path / "a-v0") as found,
        pytest.raises(DatasetError, match="picture 0 of seen/_index_0 is no JPEG"),
    ):
        found.episodes[0].columns["obs/seen/_index_0"][:]


def test_without_pyarrow_the_error_says_how_to_get_it(theirs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DatasetError, match=re.escape("pip install 'poise[lerobot]'")):
        open_log(theirs / "box/parquet-v0")
