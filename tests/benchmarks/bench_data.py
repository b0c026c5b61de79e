"""Windows and transitions per CPU-second, against loaders of the robomimic kind and d3rlpy, and what they hold.

`poise bench data [--only NAME] [--seconds S]` prints a table; so does this file by itself. Both sides read the same
file and give the same batches: windows with padding and masks, drawn at random. One thread, CPU-seconds, short rounds
of both sides in turn, so that a busy machine slows them alike; `ratio` is the median of the rounds' ratios. Each side
has a process of its own, as it has in use: what one does to the memory is not the other's gain or loss. `MB` is what
it holds of its own in the end (RssAnon) beyond what it held before it opened the file.

The files are of the size of robomimic's Can-PH: 22,640 steps of 200 episodes with 23 numbers in four keys and 7
actions; of images, 4,434 steps with two cameras of 84 x 84.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import nn

from poise.batch import Sample
from poise.datasets.offline import OfflineDataset, load
from poise.errors import UsageError
from poise.tests.benchmarks.peer_process import PeerProcess, anonymous, interpreter, quiet_stdout, serve
from poise.tests.benchmarks.robomimic_like import SequenceDataset, batches, robomimic_itself
from poise.tests.benchmarks.row_process import rows_apart

Side = Callable[[int], float]  # makes so many batches, gives the CPU-seconds that they took

FLAT = {"object": 14, "robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}
CAMERAS = ("agentview_image", "robot0_eye_in_hand_image")
MAPPING = {"state": list(FLAT)}
WITH_CAMERAS = {**MAPPING, **{camera: [camera] for camera in CAMERAS}}
ALLOWED = 32 << 20  # bytes that a file of ten times as much may take
D3RLPY = "POISE_D3RLPY"  # names the interpreter of an environment with d3rlpy 2.8.1


def write_file(path: Path, episodes: int, steps: int, cameras: bool = False) -> Path:
    """Demonstrations as robomimic writes them: contiguous, float64, images uint8."""
    rng = np.random.default_rng(0)
    lengths = np.diff(np.linspace(0, steps, episodes + 1).astype(int))
    with h5py.File(path, "w") as h5:
        for i, n in enumerate(lengths):
            group = h5.create_group(f"data/demo_{i}")
            group.attrs["num_samples"] = n
            group["actions"] = rng.uniform(-1, 1, (n, 7))
            group["rewards"] = rng.normal(size=n)
            group["terminations"] = np.arange(n) == n - 1
            group["truncations"] = np.zeros(n, bool)
            obs = {key: rng.normal(size=(n + 1, dim)) for key, dim in FLAT.items()}
            obs |= {key: rng.integers(0, 256, (n + 1, 84, 84, 3), np.uint8) for key in CAMERAS if cameras}
            for key, column in obs.items():
                group[f"obs/{key}"], group[f"next_obs/{key}"] = column[:-1], column[1:]
        h5["data"].attrs["total"] = steps
        h5["data"].attrs["env_args"] = json.dumps({"env_name": "PickPlaceCan", "type": 1, "env_kwargs": {}})
    return path


# ---- sides -----------------------------------------------------------------------------------------


def ours(data: OfflineDataset, request: Sample) -> Side:
    rng = np.random.default_rng(0)

    def run(count: int) -> float:
        start = time.process_time()
        for _ in range(count):
            data.sample(request, rng)
        return time.process_time() - start

    return run


def loader(dataset: Any, batch_size: int) -> Side:
    endless = batches(dataset, batch_size)

    def run(count: int) -> float:
        start = time.process_time()
        for _ in range(count):
            next(endless)
        return time.process_time() - start

    return run


def cloning(data: OfflineDataset, request: Sample) -> Side:
    """Behaviour cloning of a 2 x 256 perceptron, written out: what sampling costs where something is learned."""
    rng, dim = np.random.default_rng(0), data.spec.obs_dim()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(dim, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 7))
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    def run(count: int) -> float:
        start = time.process_time()
        for _ in range(count):
            batch = data.sample(request, rng)
            optimizer.zero_grad()
            (network(batch.obs["state"]) - batch.action).square().mean().backward()
            optimizer.step()
        return time.process_time() - start

    return run


def d3rlpy_command(file: Path, batch_size: int) -> list[str]:
    """The side of d3rlpy, which has an environment of its own and reads plain arrays."""
    with h5py.File(file) as h5:
        data: Any = h5["data"]
        demos = [data[name] for name in sorted(data, key=lambda name: int(name[5:]))]
        arrays = {"observations": [np.concatenate([d["obs"][k][()] for k in FLAT], 1) for d in demos],
                  **{theirs: [d[name][()] for d in demos] for theirs, name in
                     (("actions", "actions"), ("rewards", "rewards"), ("terminals", "terminations"),
                      ("timeouts", "truncations"))}}  # fmt: skip
    together = {name: np.concatenate(parts).astype(np.float32) for name, parts in arrays.items()}
    place = file.with_suffix(".npz")
    np.savez(place, allow_pickle=False, **together)
    script = Path(__file__).with_name("d3rlpy_sampling.py")
    return [interpreter(D3RLPY, "d3rlpy==2.8.1"), "-P", str(script), str(place), str(batch_size)]


# ---- rows ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """Two sides over one file, what the ratio of their rates should be at least, and rows a batch."""

    what: str
    file: Callable[[Path], Path]
    batch_size: int
    ours: Callable[[Path], Side]
    theirs: Callable[[Path], Side] | None  # None: d3rlpy
    against: str
    bar: float
    rate: float = 0.0  # that ours should reach, in rows per CPU-second
    share: float = 0.0  # of what theirs holds, that ours may


def low_dim(folder: Path) -> Path:
    return write_file(folder / "low_dim.hdf5", 200, 22_640)


def images(folder: Path) -> Path:
    return write_file(folder / "image.hdf5", 40, 4_434, cameras=True)


def large(folder: Path) -> Path:
    steps = (
        10 * ALLOWED // (4 * 30)
    )  # of as many bytes in memory; in the file, of float64 and with next_obs, 4 times it
    return write_file(folder / "large.hdf5", steps // 1000, steps)


def window(size: int, length: int) -> Sample:
    return Sample(size, length=length, imitation=True)


def flat_pair(length: int, size: int, rate: float, itself: bool = False) -> Pair:
    def theirs(file: Path) -> Side:
        if itself:
            return loader(_itself(str(file), list(FLAT), [], length), size)
        return loader(SequenceDataset(str(file), list(FLAT), length, "all"), size)

    return Pair(f"low-dim T={length} B={size}" + itself * " robomimic", low_dim, size,
                lambda file: ours(load([file], MAPPING), window(size, length)), theirs,
                "robomimic 0.3.0, cache all" if itself else "robomimic-like, cache all", 25.0 if length > 1 else 3.0,
                rate)  # fmt: skip


def image_pair(length: int, cache: str, share: float) -> Pair:
    keys = [*FLAT, *CAMERAS]
    return Pair(f"images T={length} B=16 {cache}", images, 16,
                lambda file: ours(load([file], WITH_CAMERAS, memory="1M"), window(16, length)),
                lambda file: loader(SequenceDataset(str(file), keys, length, cache), 16),
                f"robomimic-like, cache {cache}", 3.0, share=share)  # fmt: skip


def _itself(file: str, keys: list[str], cameras: list[str], length: int) -> Any:
    try:
        return robomimic_itself(file, keys, cameras, length)
    except ImportError:
        raise UsageError("this compares with robomimic itself: pip install --no-deps robomimic==0.3.0 six") from None


PAIRS = [
    flat_pair(10, 100, 1e6),
    flat_pair(10, 1024, 1e6),
    flat_pair(1, 100, 0.0),
    flat_pair(10, 100, 1e6, itself=True),
    image_pair(10, "all", 0.1),
    image_pair(1, "all", 0.1),
    Pair("transitions B=256", low_dim, 256, lambda file: ours(load([file], MAPPING), Sample(256)),
         None, "d3rlpy 2.8.1", 20.0),
    Pair("10 x memory, sampling B=256", large, 256,
         lambda file: ours(load([file], MAPPING, memory=ALLOWED), Sample(256, imitation=True)),
         lambda file: ours(load([file], MAPPING), Sample(256, imitation=True)), "ours in memory", 0.0),
    Pair("10 x memory, cloning B=256", large, 256,
         lambda file: cloning(load([file], MAPPING, memory=ALLOWED), Sample(256, imitation=True)),
         lambda file: cloning(load([file], MAPPING), Sample(256, imitation=True)), "ours in memory", 0.5),
]  # fmt: skip


def measure(pair: Pair, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = pair.file(Path(folder))
        sides = [stack.enter_context(_side(pair, name, file)) for name in ("ours", "theirs")]
        counts = [_calibrated(side.run, seconds / 20) for side in sides]
        rates, spent = [], 0.0
        while spent < seconds or len(rates) < 3:
            took = [side.run(count) for side, count in zip(sides, counts, strict=True)]
            spent += sum(took)
            rates.append([count * pair.batch_size / t for count, t in zip(counts, took, strict=True)])
        held = [side.held() for side in sides]
    mine, theirs = (statistics.median(row[i] for row in rates) for i in (0, 1))
    ratio = statistics.median(row[0] / row[1] for row in rates)
    met = ratio >= pair.bar and mine >= pair.rate and (not pair.share or held[0] <= pair.share * held[1])
    return {"what": pair.what, "ours /CPU-s": mine, "against": pair.against, "theirs /CPU-s": theirs, "ratio": ratio,
            "bar": pair.bar, "ours MB": held[0], "theirs MB": held[1], "met": "yes" if met else "no"}  # fmt: skip


def _side(pair: Pair, name: str, file: Path) -> PeerProcess:
    if name == "theirs" and pair.theirs is None:
        return PeerProcess(d3rlpy_command(file, pair.batch_size), pair.against, own_packages=True)
    return PeerProcess([sys.executable, "-P", __file__, "--side", pair.what, name, str(file)], f"{pair.what}, {name}")


def _serve(what: str, name: str, file: Path) -> None:
    torch.set_num_threads(1)
    pair, stdout = next(pair for pair in PAIRS if pair.what == what), quiet_stdout()
    make = pair.ours if name == "ours" else pair.theirs
    assert make is not None
    _learn_once()
    before = anonymous()
    try:
        run = make(file)
    except UsageError as error:
        print(error, file=stdout, flush=True)
        return
    serve(run, before, sys.stdin, stdout)


def _learn_once() -> None:
    """What torch loads when it first learns anything, 70 MB of torch._dynamo for an optimizer, is not the data's."""
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()


def _calibrated(run: Side, seconds: float) -> int:
    """Batches of one round of about so many CPU-seconds; those made here count for nobody."""
    count = 1
    while (took := run(count)) < seconds / 4:
        count = 2 * count if took < 1e-3 else max(count + 1, round(count * min(10.0, 0.5 * seconds / took)))
    return max(1, round(count * seconds / took))


def rows(only: str = "", seconds: float = 10.0) -> list[dict[str, Any]]:
    return rows_apart(__file__, PAIRS, seconds, only)


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["--side"]:
            _serve(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
        elif sys.argv[1:2] == ["--row"]:
            chosen = next(pair for pair in PAIRS if pair.what == sys.argv[2])
            print(json.dumps(measure(chosen, float(sys.argv[3]))))
        else:
            for line in rows(*sys.argv[1:2]):
                print(line)
    except UsageError as error:
        print(error)
        sys.exit(os.EX_USAGE)
