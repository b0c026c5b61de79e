"""Seconds of work on a device: after a warm-up, medians of rounds that end when the device has ended."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

WARM_UPS = 5  # calls: what records itself does so at its fourth


def median_seconds(works: Sequence[Callable[[], object]], device: torch.device, seconds: float) -> list[float]:
    """Median seconds of one call of each work, in turn, for about `seconds` all together."""
    for work in works:
        for _ in range(WARM_UPS):
            work()
    took: list[list[float]] = [[] for _ in works]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(took[0]) < 3:
        for work, rounds in zip(works, took, strict=True):
            rounds.append(_seconds(work, device))
    return [statistics.median(rounds) for rounds in took]


def peak_memory(device: torch.device) -> float:
    """Most memory [MB] that this process has had on a GPU, Warp's and torch's; 0 on a CPU."""
    if device.type != "cuda":
        return 0.0
    free, total = torch.cuda.mem_get_info(device)
    return round((total - free) / 2**20, 1)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.process_time()
        work()
        return time.process_time() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3
