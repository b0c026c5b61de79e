"""Episodes on disk: the layout, to the bit; and that a kill or a full disk costs nothing that was finished."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
import torch

from poise.batch import Sample
from poise.datasets.episodes import EpisodeFile, EpisodeWriter, environment
from poise.datasets.offline import load
from poise.errors import DatasetError
from poise.spec import ActionTerm, ObsTerm, Spec

SPEC = Spec({"state": (ObsTerm("joint_pos", (2,), "robot", "rad"), ObsTerm("target", (1,), "goal", "m"))},
            (ActionTerm("arm", "control", low=(-1.0, -1.0), high=(1.0, 1.0)),), 0.05)  # fmt: skip
ENV = environment("reach/fr3", robot="twin:fr3")


def episode(steps=5, seed=0, arm=True):
    rng = np.random.default_rng(seed)
    frames = rng.normal(size=(steps + 1, 3)).astype(np.float32)
    ends = np.arange(steps) == steps - 1
    data = {"obs": {"state": frames[:-1]}, "next_obs": {"state": frames[1:]},
            "actions": rng.uniform(-1, 1, (steps, 2)).astype(np.float32), "rewards": rng.normal(size=steps),
            "terminations": np.zeros(steps), "truncations": ends}  # fmt: skip
    if arm:
        data |= {"actions_asked": rng.normal(size=(steps, 2)), "joint_pos_target": rng.normal(size=(steps, 2)),
                 "verdict": rng.integers(0, 3, steps), "t_mono": np.arange(steps) * 0.05,
                 "t_device": np.arange(steps) * 0.05}  # fmt: skip
    return data


def test_what_is_written_is_read_back_to_the_bit(tmp_path):
    path = tmp_path / "deep" / "out.hdf5"
    with EpisodeWriter(path, SPEC, ENV, {"seed": 3}) as writer:
        for i in range(12):
            writer.add(episode(3 + i, seed=i), ("success",) if i % 2 else ("failure",), success=bool(i % 2))
    with EpisodeFile(path) as file:
        assert len(file) == 12 and file.names == [f"demo_{i}" for i in range(12)]
        assert (file.spec, file.env_args, file.provenance) == (SPEC, ENV, {"seed": 3})
        assert file.filter("all") == file.names and file.filter("success") == file.names[1::2]
        for i, name in enumerate(file.names):
            read, wrote = file[name], episode(3 + i, seed=i)
            assert read["attributes"]["num_samples"] == 3 + i and read["attributes"]["success"] == bool(i % 2)
            for group in ("obs", "next_obs"):
                assert np.array_equal(read[group]["state"], wrote[group]["state"])
            for key in set(wrote) - {"obs", "next_obs"}:
                assert np.array_equal(read[key], np.asarray(wrote[key]).astype(read[key].dtype)), key
            assert read["dones"].tolist() == [0] * (2 + i) + [1]
            assert read["t_mono"].dtype == read["joint_pos_target"].dtype == np.float64
            assert read["actions"].dtype == np.float32 and read["dones"].dtype == read["verdict"].dtype == np.uint8
    assert os.listdir(tmp_path / "deep") == ["out.hdf5"], "no hidden files stay behind"


def test_pictures_stay_uint8_and_choices_whole_numbers(tmp_path):
    spec = Spec({"front": (ObsTerm("front", (4, 4, 3), "camera", dtype="uint8"),)},
                (ActionTerm("choice", "discrete", n=5),), 0.05)  # fmt: skip
    frames = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3)).astype(np.uint8)
    data = {"obs": {"front": frames[:-1]}, "next_obs": {"front": frames[1:]}, "actions": np.array([[4], [0], [2]]),
            "rewards": np.zeros(3), "terminations": np.zeros(3), "truncations": np.zeros(3)}  # fmt: skip
    with EpisodeWriter(tmp_path / "out.hdf5", spec, ENV) as writer:
        writer.add(data)
        with pytest.raises(DatasetError, match="'front' should be uint8, got float64"):
            writer.add({**data, "obs": {"front": frames[:-1] / 255.0}})
    batch = load([tmp_path / "out.hdf5"]).sample(Sample(0), np.random.default_rng(0))
    assert batch.obs["front"].dtype == torch.uint8 and torch.equal(batch.obs["front"], torch.from_numpy(frames[:-1]))
    assert batch.action.tolist() == [[4], [0], [2]]


def test_a_robomimic_reader_finds_what_it_looks_for(tmp_path):
    """The very look-ups of robomimic's SequenceDataset and env metadata (robomimic 0.3: utils/dataset.py, file_utils.py)."""
    path = tmp_path / "out.hdf5"
    with EpisodeWriter(path, SPEC, ENV) as writer:
        for i in range(11):
            writer.add(episode(4, seed=i))
    with h5py.File(path, "r", swmr=True, libver="latest") as f:
        env_meta = json.loads(f["data"].attrs["env_args"])
        assert {"env_name", "type", "env_kwargs"} <= set(env_meta) and env_meta["type"] == 2
        demos = [elem.decode("utf-8") for elem in np.array(f["mask/all"][:])]
        inds = np.argsort([int(elem[5:]) for elem in list(f["data"].keys())])
        assert sorted(demos) == sorted(list(f["data"].keys())[i] for i in inds)
        assert f["data"].attrs["total"] == sum(f[f"data/{ep}"].attrs["num_samples"] for ep in demos) == 44
        for ep in demos:
            for key in ("actions", "rewards", "dones", "obs/state", "next_obs/state"):
                dataset = f[f"data/{ep}/{key}"]
                assert len(dataset[()]) == 4
                assert dataset.chunks is None and dataset.id.get_offset() is not None, (
                    "contiguous: can be memory-mapped"
                )


def test_the_contiguous_data_can_be_memory_mapped(tmp_path):
    with EpisodeWriter(tmp_path / "out.hdf5", SPEC, ENV) as writer:
        writer.add(episode(), ())
    with h5py.File(tmp_path / "out.hdf5") as f:
        dataset = f["data/demo_0/obs/state"]
        mapped = np.memmap(tmp_path / "out.hdf5", dataset.dtype, "r", dataset.id.get_offset(), dataset.shape)
        assert np.array_equal(mapped, episode()["obs"]["state"])


def test_the_file_is_whole_after_every_episode_without_closing(tmp_path):
    writer = EpisodeWriter(tmp_path / "out.hdf5", SPEC, ENV)
    for i in range(5):
        with EpisodeFile(tmp_path / "out.hdf5") as file:
            assert len(file) == i
        writer.add(episode(seed=i))
    with EpisodeFile(tmp_path / "out.hdf5") as file:
        assert np.array_equal(file["demo_4"]["obs"]["state"], episode(seed=4)["obs"]["state"])


def test_a_writer_killed_at_any_moment_leaves_a_readable_file(tmp_path):
    code = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from test_episodes import episode, SPEC, ENV, EpisodeWriter
writer = EpisodeWriter(sys.argv[1], SPEC, ENV)
print("started", flush=True)
for i in range(100_000):
    writer.add(episode(50, seed=i))
"""
    rng = np.random.default_rng(0)
    for k in range(4):
        path = tmp_path / f"{k}.hdf5"
        process = subprocess.Popen([sys.executable, "-c", code, str(path), os.path.dirname(__file__)], stdout=subprocess.PIPE)  # fmt: skip
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.4))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        with EpisodeFile(path) as file:
            assert file.filter("all") == file.names if len(file) else True
            for i, name in list(enumerate(file.names))[-2:]:
                assert np.array_equal(file[name]["obs"]["state"], episode(50, seed=i)["obs"]["state"])


def test_a_full_disk_is_one_clear_error_and_costs_nothing_that_was_finished(tmp_path):
    """The size limit of a process stands in for the disk's: EFBIG where the disk says ENOSPC, on the same calls."""
    code = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from test_episodes import episode, SPEC, ENV, EpisodeWriter, DatasetError
writer = EpisodeWriter(sys.argv[1], SPEC, ENV)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    for i in range(1000):
        writer.add(episode(200, seed=i))
except DatasetError as error:
    print(f"{writer.count}|{error}")
try:
    writer.add(episode())
except DatasetError as error:
    print(error)
"""
    path = tmp_path / "out.hdf5"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), os.path.dirname(__file__)], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    first, second = done.stdout.splitlines()
    count, message = first.split("|")
    assert int(count) > 3
    assert message.startswith(f"cannot append episode {count} to {path}: File too large; it keeps the {count} episodes")
    assert "cannot append" in second
    with EpisodeFile(path) as file:
        assert len(file) == int(count)
        last = file[file.names[-1]]["obs"]["state"]
        assert np.array_equal(last, episode(200, seed=int(count) - 1)["obs"]["state"])
    assert os.listdir(tmp_path) == ["out.hdf5"]


def test_a_real_full_disk(tmp_path):
    """/dev/full says ENOSPC to every write: the start of a recording is refused as clearly."""
    (tmp_path / ".out.hdf5.writing").symlink_to("/dev/full")
    with pytest.raises(DatasetError, match=r"cannot start .*No space left on device"):
        EpisodeWriter(tmp_path / "out.hdf5", SPEC, ENV)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": np.full((5, 2), 1.5)}, r"leave \[-1, 1\]"),
        ({"actions": np.full((5, 2), np.nan)}, r"leave \[-1, 1\]"),
        ({"rewards": np.zeros(4)}, "rewards has 4 rows where actions have 5"),
        ({"obs": {"state": np.zeros((4, 3))}}, "obs/state has 4 rows"),
        ({"obs": {"state": np.zeros((5, 4))}}, "obs does not fit the spec"),
        ({"next_obs": {}}, "next_obs does not fit the spec"),
        ({"velocity": np.zeros(5)}, "'velocity', which the layout does not"),
        ({"rewards": None}, "rewards is missing"),
        ({k: [] for k in ("actions", "rewards", "terminations", "truncations")}, "without a step"),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(tmp_path, change, message):
    data = {**episode(arm=False), **change}
    with EpisodeWriter(tmp_path / "out.hdf5", SPEC, ENV) as writer:
        with pytest.raises(DatasetError, match=message):
            writer.add({k: v for k, v in data.items() if v is not None})
        writer.add(episode())
    with EpisodeFile(tmp_path / "out.hdf5") as file:
        assert len(file) == 1


def test_bad_files_are_refused_with_what_is_wrong(tmp_path):
    path = tmp_path / "x.hdf5"
    with pytest.raises(DatasetError, match="no recording at"):
        EpisodeFile(path)
    path.write_bytes(b"not hdf5")
    with pytest.raises(DatasetError, match="no complete HDF5 file"):
        EpisodeFile(path)
    with h5py.File(path, "w") as h5:
        h5["observations"] = [1.0]
    with pytest.raises(DatasetError, match="no group 'data'; found observations"):
        EpisodeFile(path)
    good = tmp_path / "good.hdf5"
    with EpisodeWriter(good, SPEC, ENV) as writer:
        writer.add(episode(50))
    path.write_bytes(good.read_bytes()[:2000])
    with pytest.raises(DatasetError, match="no complete HDF5 file"):
        EpisodeFile(path)
    path.write_bytes(good.read_bytes())
    with h5py.File(path, "r+") as h5:
        h5["data"].attrs["poise_format"] = 99
    with pytest.raises(DatasetError, match="poise_format is 99; this Poise reads 1"):
        EpisodeFile(path)
    path.write_bytes(good.read_bytes())
    with h5py.File(path, "r+") as h5:
        del h5["data"].attrs["poise_spec"]
    with pytest.raises(DatasetError, match="header cannot be read"):
        EpisodeFile(path)
    path.write_bytes(good.read_bytes())
    with h5py.File(path, "r+") as h5:
        h5.move("data/demo_0/rewards", "data/demo_0/reward")
    with EpisodeFile(path) as file:
        with pytest.raises(DatasetError, match="demo_0: rewards is missing"):
            file["demo_0"]
        with pytest.raises(DatasetError, match="no episode 'demo_9'"):
            file["demo_9"]
        with pytest.raises(DatasetError, match="no filter 'train'; it has all"):
            file.filter("train")
    with pytest.raises(DatasetError, match="exists"):
        EpisodeWriter(good, SPEC, ENV)


def test_appending_goes_on_where_the_file_ends(tmp_path):
    path = tmp_path / "out.hdf5"
    for start in (0, 2, 4):
        with EpisodeWriter(path, SPEC, ENV, {"seed": start // 4}, append=True) as writer:
            for i in range(start, start + 2):
                writer.add(episode(3 + i, seed=i), ("even",) if i % 2 == 0 else ())
            assert writer.count == start + 2
    with EpisodeFile(path) as file:
        assert file.names == file.filter("all") == [f"demo_{i}" for i in range(6)]
        assert file.filter("even") == file.names[::2] and file.log.attributes["total"] == sum(range(3, 9))
        for i, name in enumerate(file.names):
            assert np.array_equal(file[name]["obs"]["state"], episode(3 + i, seed=i)["obs"]["state"])
        assert "poise_provenance" not in file["demo_3"]["attributes"], "the file's own"
        assert json.loads(file["demo_4"]["attributes"]["poise_provenance"]) == {"seed": 1}
    assert os.listdir(tmp_path) == ["out.hdf5"]


def test_appending_keeps_filters_that_others_made(tmp_path):
    path = tmp_path / "out.hdf5"
    with EpisodeWriter(path, SPEC, ENV) as writer:
        writer.add(episode(), ("all",))
    with h5py.File(path, "r+") as h5:
        del h5["mask/all"]
        h5["mask/all"], h5["mask/train"] = np.array([b"demo_0"]), np.array([b"demo_0"])  # six bytes, fixed length
        h5.move("data/demo_0", "data/demo_9")
        h5["mask/all"][0] = b"demo_9"
    with EpisodeWriter(path, SPEC, ENV, append=True) as writer:
        writer.add(episode(seed=1))
    with EpisodeFile(path) as file:
        assert file.names == file.filter("all") == ["demo_9", "demo_10"]
        assert np.array_equal(file["demo_10"]["obs"]["state"], episode(seed=1)["obs"]["state"])


def test_episodes_of_another_spec_or_environment_and_files_of_others_are_not_appended_to(tmp_path):
    path = tmp_path / "out.hdf5"
    with EpisodeWriter(path, SPEC, ENV) as writer:
        writer.add(episode())
    before = path.read_bytes()
    with pytest.raises(DatasetError, match=r"another Spec.*control_dt: expected 0\.05, found 0\.1"):
        EpisodeWriter(path, Spec(SPEC.observations, SPEC.actions, 0.1), ENV, append=True)
    with pytest.raises(DatasetError, match="cannot take those of"):
        EpisodeWriter(path, SPEC, environment("push/fr3"), append=True)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["out.hdf5"]
    with h5py.File(tmp_path / "other.hdf5", "w") as h5:
        h5["mask"] = h5py.ExternalLink("out.hdf5", "mask")
        h5.create_group("data").attrs["poise_format"] = 1
    with pytest.raises(DatasetError, match="mask is a link"):
        EpisodeWriter(tmp_path / "other.hdf5", SPEC, ENV, append=True)


def test_two_writers_on_one_file_are_refused(tmp_path):
    path = tmp_path / "out.hdf5"
    with EpisodeWriter(path, SPEC, ENV) as writer:
        writer.add(episode())
        with pytest.raises(DatasetError, match="being written by another process"):
            EpisodeWriter(path, SPEC, ENV, append=True)
        writer.add(episode(seed=1))
    with EpisodeWriter(path, SPEC, ENV, append=True) as writer:
        writer.add(episode(seed=2))
    with EpisodeFile(path) as file:
        assert len(file) == 3


def test_appending_that_is_killed_at_any_moment_goes_on_later(tmp_path):
    code = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
from test_episodes import episode, SPEC, ENV, EpisodeWriter
print("started", flush=True)
writer = EpisodeWriter(sys.argv[1], SPEC, ENV, append=True)
for i in range(writer.count, 100_000):
    writer.add(episode(50, seed=i))
"""
    rng, path, counts = np.random.default_rng(1), tmp_path / "out.hdf5", [0]
    with EpisodeWriter(path, SPEC, ENV):
        pass
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code, str(path), os.path.dirname(__file__)], stdout=subprocess.PIPE)  # fmt: skip
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.4))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        with EpisodeFile(path) as file:
            counts.append(len(file))
            assert file.names == [f"demo_{i}" for i in range(len(file))]
            for i, name in list(enumerate(file.names))[-2:]:
                assert np.array_equal(file[name]["obs"]["state"], episode(50, seed=i)["obs"]["state"])
    assert counts == sorted(counts) and counts[-1] > 0, "no episode that was finished is ever lost"
