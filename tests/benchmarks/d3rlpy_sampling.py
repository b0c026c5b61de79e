"""d3rlpy's sampling of transitions from a file, for bench_data.py; runs in an environment of its own, without Poise.

python d3rlpy_sampling.py EPISODES.npz BATCH_SIZE
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from d3rlpy.dataset import MDPDataset


def anonymous() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


torch.set_num_threads(1)
stdout, sys.stdout = sys.stdout, sys.stderr  # which it logs to
before = anonymous()
arrays = np.load(sys.argv[1])
data = MDPDataset(arrays["observations"], arrays["actions"], arrays["rewards"], arrays["terminals"], arrays["timeouts"])
for line in sys.stdin:
    start = time.process_time()
    if line == "held\n":
        print(anonymous() - before, file=stdout, flush=True)
        continue
    for _ in range(int(line)):
        data.sample_transition_batch(int(sys.argv[2]))
    print(time.process_time() - start, file=stdout, flush=True)
