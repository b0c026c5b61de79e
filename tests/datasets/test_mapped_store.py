"""A dataset that stays in its files gives what one in memory gives, to the bit, and holds next to nothing."""

import os
import subprocess
import sys
from dataclasses import fields

import h5py
import numpy as np
import pytest
import torch

from poise.batch import Sample
from poise.datasets.memory_store import memory_allowed
from poise.datasets.offline import load
from poise.errors import DatasetError, UsageError

REQUESTS = [
    Sample(64),
    Sample(0, length=3, obs_horizon=2),
    Sample(64, imitation=True, action_horizon=4),
    Sample(64, n_step=3, discount=0.9, next_action=True, mc_return=True),
    Sample(64, goal="future", imitation=True),
]


def write(path, lengths, known=True, dtype=np.float32, **creation) -> str:
    rng = np.random.default_rng(len(lengths))
    with h5py.File(path, "w") as h5:
        for i, steps in enumerate(lengths):
            x, y = rng.normal(size=(steps + 1, 3)).astype(dtype), rng.normal(size=(steps + 1,)).astype(np.float64)
            pixels = rng.integers(0, 256, (steps + 1, 4, 5, 3), np.uint8)
            last = np.arange(steps) == steps - 1
            found = {"obs/x": x[:-1], "obs/y": y[:-1], "obs/front": pixels[:-1], "rewards": rng.normal(size=steps),
                     "actions": rng.uniform(-1, 1, (steps, 2)), "terminations": last & (i % 2 == 0),
                     "truncations": last & (i % 2 == 1)}  # fmt: skip
            if known:
                found |= {"next_obs/x": x[1:], "next_obs/y": y[1:], "next_obs/front": pixels[1:]}
            for name, column in found.items():
                h5.create_dataset(f"data/demo_{i}/{name}", data=column, **creation)
    return str(path)


def assert_same(a, b) -> None:
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        for one, other in zip(x.values(), y.values(), strict=True) if isinstance(x, dict) else [(x, y)]:
            assert (one is None) == (other is None), f.name
            if one is not None:
                assert one.dtype == other.dtype and one.numpy().tobytes() == other.numpy().tobytes(), f.name


@pytest.mark.parametrize("request_", REQUESTS)
def test_mapped_and_in_memory_are_the_same_to_the_bit(tmp_path, request_):
    one = write(tmp_path / "one.hdf5", [5, 1, 8, 3])
    other = write(tmp_path / "other.hdf5", [4, 6], dtype=np.float64)
    for files in ([one], [one, other]):
        weights = None if len(files) == 1 else [1, 2]
        held, mapped = load(files, weights=weights), load(files, weights=weights, memory=0)
        divided = load(files, weights=weights, memory="1K")
        assert held.in_files == () and divided.in_files == ("obs/front",)
        assert mapped.in_files == ("action", "obs/state", "obs/front")
        a, b, c = (np.random.default_rng(5) for _ in range(3))
        for _ in range(3):
            batch = held.sample(request_, a)
            assert_same(batch, mapped.sample(request_, b))
            assert_same(batch, divided.sample(request_, c))


def test_without_successors_too(tmp_path):
    file = write(tmp_path / "one.hdf5", [5, 2, 8, 3], known=False)
    for request in (Sample(64), Sample(0, n_step=3), Sample(0, length=4)):
        a, b = np.random.default_rng(5), np.random.default_rng(5)
        assert_same(load([file]).sample(request, a), load([file], memory=0).sample(request, b))


@pytest.mark.parametrize("creation", [{"chunks": True}, {"compression": "gzip"}])
def test_what_has_no_place_in_the_file_is_refused_with_the_way_out(tmp_path, creation):
    file = write(tmp_path / "one.hdf5", [5], **creation)
    with h5py.File(file, "r+") as h5:
        del h5["data/demo_0/obs/y"]
        h5["data/demo_0/obs/y"] = np.zeros(5)
    load([file])
    with pytest.raises(DatasetError, match=r"chunked or compressed.*--memory.*poise data convert .*one.hdf5 OUT.hdf5"):
        load([file], memory=0)


def test_keys_without_numbers_are_nothing_in_either(tmp_path):
    file = write(tmp_path / "one.hdf5", [5, 4], known=False)
    with h5py.File(file, "r+") as h5:
        for i, steps in ((0, 5), (1, 4)):
            h5[f"data/demo_{i}/obs/left"] = np.zeros((steps, 0))
    a, b = np.random.default_rng(5), np.random.default_rng(5)
    assert_same(load([file]).sample(Sample(8), a), load([file], memory=0).sample(Sample(8), b))


def test_numbers_that_are_not_finite_are_found_in_the_file(tmp_path):
    file = write(tmp_path / "one.hdf5", [5])
    with h5py.File(file, "r+") as h5:
        h5["data/demo_0/obs/y"][3] = np.nan
    with pytest.raises(DatasetError, match="demo_0: obs/y holds nan at step 3"):
        load([file], memory=0)


def test_memory_is_told_in_bytes():
    cpu = torch.device("cpu")
    assert memory_allowed("2K", cpu) == 2048 and memory_allowed("1.5M", cpu) == 3 << 19 and memory_allowed(7, cpu) == 7
    assert memory_allowed(None, cpu) > 1 << 20
    with pytest.raises(UsageError, match="such as 500M or 2G, not 'much'"):
        memory_allowed("much", cpu)


HOLDS = """
import sys, numpy as np
from poise.batch import Sample
from poise.datasets.offline import load
anon = lambda: next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("RssAnon"))
data = load([sys.argv[1]], memory="4M")
rng = np.random.default_rng(0)
data.sample(Sample(32), rng)
before = anon()
for _ in range(200):
    data.sample(Sample(32), rng)
print(anon() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="asks Linux what a process holds")
def test_what_is_read_is_not_held(tmp_path):
    with h5py.File(tmp_path / "big.hdf5", "w") as h5:
        pixels = np.random.default_rng(0).integers(0, 256, (2000, 84, 84, 3), np.uint8)  # 42 MB
        group = h5.create_group("data/demo_0")
        for name, column in {"obs/front": pixels, "actions": np.zeros((2000, 1)), "rewards": np.zeros(2000),
                             "terminations": np.zeros(2000, bool), "truncations": np.zeros(2000, bool)}.items():  # fmt: skip
            group[name] = column
    done = subprocess.run(
        [sys.executable, "-P", "-c", HOLDS, str(tmp_path / "big.hdf5")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8 * 1024  # kB, after reading 270 MB
