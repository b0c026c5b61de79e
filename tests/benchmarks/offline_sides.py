"""Sides of `poise bench learners` for what learns from files: ours in this process, d3rlpy's in one of its own.

Both see 10,000 random steps in episodes of 1,000. `whole` is the loop of a fit, a batch drawn for every update; without
it, batches drawn beforehand are learned from again and again, so that the updates alone are compared.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from poise.datasets.offline import load
from poise.errors import UsageError
from poise.policies.offline_core import DataFacts
from poise.policies.recipes import recipe

Side = Callable[[int], float]  # makes so many updates, gives CPU-milliseconds for one

STEPS, EPISODE, KEPT = 10_000, 1_000, 32
PEER = Path(__file__).parents[2] / ".venv-peers" / "bin" / "python"  # what `make peers` makes


def fit_side(algorithm: str, settings: Mapping[str, Any], sizes: tuple[int, int], whole: bool) -> Callable[[], Side]:
    """Updates of a recipe on data with so many observations and actions."""

    def make_side() -> Side:
        chosen = recipe(algorithm, None, {"normalize_obs": False, **settings})
        with tempfile.TemporaryDirectory() as folder:
            data = load([_random_file(Path(folder), *sizes)])
        facts = DataFacts(returns=(0.0, 1000.0))
        learner = chosen.learner(data.spec, chosen.settings, facts, 0, planned_steps=1_000_000)
        request, rng = learner.request, np.random.default_rng(0)
        batches = [data.sample(request, rng) for _ in range(KEPT)]

        def run(count: int) -> float:
            start = time.process_time()
            for i in range(count):
                learner.update(data.sample(request, rng) if whole else batches[i % KEPT])
            return 1000.0 * (time.process_time() - start) / count

        return run

    return make_side


def d3rlpy_side(algorithm: str, sizes: tuple[int, int], batch_size: int, whole: bool) -> Callable[[], Side]:
    """Updates of d3rlpy's learner of that name, with its own defaults."""

    def make_side() -> Side:
        python = Path(os.environ.get("POISE_D3RLPY", PEER))
        if not python.exists():
            raise UsageError(f"this compares with d3rlpy 2.8.1, which pins an old Gymnasium and so has an environment "
                             f"of its own, not found at {python}: `make peers` makes it; POISE_D3RLPY names the Python "
                             f"of another one")  # fmt: skip
        words = [algorithm, *sizes, batch_size, int(whole)]
        peer = subprocess.Popen([python, Path(__file__).with_name("d3rlpy_peer.py"), *map(str, words)], text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
        assert peer.stdin is not None and peer.stdout is not None
        ask, answer = peer.stdin, peer.stdout
        while (line := answer.readline()) != "ready\n":
            if not line:
                raise UsageError(f"d3rlpy did not start; see what `{python} -c 'import d3rlpy'` says")

        def run(count: int) -> float:
            ask.write(f"{count}\n")
            ask.flush()
            return float(answer.readline())

        return run

    return make_side


def _random_file(folder: Path, obs_dim: int, action_dim: int) -> str:
    """Steps that mean nothing, in D4RL's layout."""
    rng = torch.Generator().manual_seed(0)
    path, ends = folder / "random.hdf5", np.arange(STEPS) % EPISODE == EPISODE - 1
    with h5py.File(path, "w") as h5:
        h5["observations"] = torch.randn(STEPS, obs_dim, generator=rng).numpy()
        h5["next_observations"] = torch.randn(STEPS, obs_dim, generator=rng).numpy()
        h5["actions"] = (2.0 * torch.rand(STEPS, action_dim, generator=rng) - 1.0).numpy()
        h5["rewards"] = torch.randn(STEPS, generator=rng).numpy()
        h5["terminals"] = np.zeros(STEPS, bool)
        h5["timeouts"] = ends
    return str(path)
