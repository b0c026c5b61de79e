"""SAC's cost of one environment step against Stable-Baselines3, on HalfCheetah-v5 at equal hyper-parameters.

`python tests/benchmarks/bench_learners.py [seconds]` prints a table; `poise bench learners` shows the same rows.
Two hidden layers of 256, batches of 256, one world, one update a step: the whole loop of either library while it
learns (acting, stepping, storing, sampling, updating). One thread, CPU-seconds, short rounds of every side in turn
in one process, so that a busy or throttled machine slows them alike; a row gives the median of the rounds' ratios.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from poise.errors import UsageError
from poise.policies.sac import SAC, SACConfig
from poise.policies.train import EpisodeStatistics, MetricMeans
from poise.sim.make import make

TASK = "HalfCheetah-v5"
WARM_UP = 1000  # steps of random actions, which count for nobody
BAR = 0.55

Side = Callable[[int], float]  # makes so many steps and updates, gives CPU-milliseconds for one


def _poise_side(compile: str) -> tuple[Side, float]:
    """The training loop of train.py without its folder, and the seconds that the first update took."""
    env = make(f"gym:{TASK}", 1, 0, threads=1)
    learner = SAC(env.spec, SACConfig(learning_starts=WARM_UP, compile=compile), 1, 0)  # type: ignore[arg-type]
    buffer, rng = learner.make_buffer(), np.random.default_rng(0)
    episodes, metrics = EpisodeStatistics(1), MetricMeans()
    obs, steps = env.reset(0), 0

    def run(count: int) -> float:
        nonlocal obs, steps
        start = time.process_time()
        for _ in range(count):
            action, extras, _ = learner.act(obs, {})
            step = env.step(action)
            buffer.add(obs, action, extras, step)
            episodes.add(step)
            obs = step.obs
            steps += 1
            for _ in range(learner.updates_due(steps)):
                metrics.add(learner.update(buffer.sample(learner.request, rng)))
        return 1000.0 * (time.process_time() - start) / count

    run(WARM_UP - 1)
    start = time.monotonic()
    run(1)
    return run, time.monotonic() - start


def _sb3_side() -> Side:
    """`SAC.learn`, timed from step to step, so that what a call to it sets up stays outside."""
    try:
        from stable_baselines3 import SAC as Theirs
        from stable_baselines3.common.callbacks import BaseCallback
    except ImportError:
        raise UsageError("this compares with Stable-Baselines3: pip install 'poise[peers]'") from None

    class Clock(BaseCallback):
        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []

        def _on_step(self) -> bool:
            self.times.append(time.process_time())
            return True

    # its own defaults are the same: 3e-4, tau 0.005, discount 0.99, one update a step, ReLU, automatic temperature
    model = Theirs("MlpPolicy", TASK, learning_starts=WARM_UP, batch_size=256, buffer_size=1_000_000,
                   policy_kwargs={"net_arch": [256, 256]}, seed=0, device="cpu")  # fmt: skip

    def run(count: int) -> float:
        clock = Clock()
        model.learn(count + 1, callback=clock, reset_num_timesteps=False)
        return 1000.0 * (clock.times[-1] - clock.times[0]) / count

    run(WARM_UP)
    return run


def rows(seconds: float = 120.0, steps: int = 40) -> list[dict[str, Any]]:
    """The table, measured for about that long in rounds of so many steps: one dict a line, JSON values only."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        compiled, compile_seconds = _poise_side("on")
        sides = {"compiled": compiled, "eager": _poise_side("off")[0], "stable-baselines3": _sb3_side()}
        costs: dict[str, list[float]] = {name: [] for name in sides}
        for side in sides.values():
            side(steps)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline or len(costs["eager"]) < 3:
            for name, side in sides.items():
                costs[name].append(side(steps))
    finally:
        torch.set_num_threads(threads)
    row = _row("compiled", costs, BAR)
    return [row | {"compile_seconds": round(compile_seconds, 1)}, _row("eager", costs, None)]


def _row(name: str, costs: dict[str, list[float]], bar: float | None) -> dict[str, Any]:
    mine, theirs = costs[name], costs["stable-baselines3"]
    ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
    row: dict[str, Any] = {
        "what": f"sac {name}",
        "cpu_ms_per_step": round(statistics.median(mine), 2),
        "min": round(min(mine), 2),
        "against": "stable-baselines3 sac",
        "against_cpu_ms_per_step": round(statistics.median(theirs), 2),
        "against_min": round(min(theirs), 2),
        "ratio": round(ratio, 3),
    }
    if bar is not None:
        row |= {"bar": bar, "passed": ratio <= bar}
    return row | {"rounds": len(mine)}


if __name__ == "__main__":
    for line in rows(float(sys.argv[1]) if len(sys.argv) > 1 else 120.0):
        print("  ".join(f"{key}={value}" for key, value in line.items()))
