"""The other side of `poise bench learners` for the learners from files: d3rlpy, in an environment of its own.

    python d3rlpy_peer.py ALGORITHM OBS_DIM ACTION_DIM BATCH_SIZE WHOLE

d3rlpy pins an old Gymnasium, so `make peers` gives it a folder of its own; nothing of Poise is imported here. For every
line N on standard input it makes N updates and prints the CPU-milliseconds of one, with the drawing of its batch where
WHOLE is 1.
"""

from __future__ import annotations

import sys
import time
import warnings

import numpy as np
import torch

torch.set_num_threads(1)
warnings.simplefilter("ignore")

import d3rlpy  # type: ignore[import-not-found]  # noqa: E402

CONFIGS = {
    "bc": lambda size: d3rlpy.algos.BCConfig(batch_size=size),
    "td3_bc": lambda size: d3rlpy.algos.TD3PlusBCConfig(batch_size=size),
    "iql": lambda size: d3rlpy.algos.IQLConfig(batch_size=size),
    "cql": lambda size: d3rlpy.algos.CQLConfig(batch_size=size),
}
KEPT = 32  # batches, drawn before the clock runs


def main(algorithm: str, obs_dim: int, action_dim: int, size: int, whole: int) -> None:
    rng = np.random.default_rng(0)
    steps = 10_000
    data = d3rlpy.dataset.MDPDataset(
        rng.standard_normal((steps, obs_dim), dtype=np.float32),
        rng.uniform(-1, 1, (steps, action_dim)).astype(np.float32), rng.standard_normal(steps, dtype=np.float32),
        np.arange(steps) % 1000 == 999,
    )  # fmt: skip
    learner = CONFIGS[algorithm](size).create(device="cpu:0")
    learner.build_with_dataset(data)
    batches = [data.sample_transition_batch(size) for _ in range(KEPT)]
    print("ready", flush=True)
    for line in sys.stdin:
        count, start = int(line), time.process_time()
        for i in range(count):
            learner.update(data.sample_transition_batch(size) if whole else batches[i % KEPT])
        print(1000.0 * (time.process_time() - start) / count, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *(int(word) for word in sys.argv[2:]))
