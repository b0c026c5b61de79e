"""What an environment step costs SAC, its worlds stepped in turn with learning (sync) or meanwhile (async).

    python tests/benchmarks/bench_collect.py [--task reach/fr3] [--num-envs 64] [--updates 16] [--actors 1]

Both in turns, the best of several, over the second half of a run: steps per second by the wall clock, and the processor
time of a step in the learner's process and in the actors'. The clock says what this machine gave while it had others to
serve; the processor times say what to expect elsewhere: with a core for each process, a step takes as long as the
slower side, instead of both.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from poise.policies.train import train


def measure(collect: str, options: argparse.Namespace) -> dict[str, float]:
    """One run: what a step costs, and what the run's last line says of waiting."""
    settings = {"collect": collect, "actors": options.actors, "num_envs": options.num_envs, "steps": options.steps,
                "updates": options.updates, "learning_starts": 512, "compile": "off", "evaluations": 0, "log_points": 2,
                "checkpoint_seconds": 1e6, "device": options.device, "threads": 1}  # fmt: skip
    looks: list[tuple[int, float, float, float]] = []

    def look(steps: int, total: int, values: Mapping[str, float]) -> None:
        looks.append((steps, time.monotonic(), time.process_time(), children_seconds()))
        told.update({name.partition("/")[2]: x for name, x in values.items() if name.startswith("async/")})

    told: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        train("sac", options.task, Path(folder) / "run", settings=settings, progress=look)
    steps, wall, own, others = (b - a for a, b in zip(looks[0], looks[-1], strict=True))
    return {"steps/s": steps / wall, "learner_us": 1e6 * own / steps, "actors_us": 1e6 * others / steps, **told}


def children_seconds() -> float:
    """Processor time of the processes that this one started and that live."""
    ticks = 0
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user, system
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="reach/fr3")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--updates", type=int, default=16, help="after every step of all worlds")
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--steps", type=int, default=9_600)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logging.disable()
    best: dict[str, dict[str, Any]] = {}
    for _ in range(options.rounds):
        for collect in ("sync", "async"):
            found = measure(collect, options)
            kept = best.setdefault(collect, found)
            best[collect] = {name: (max if name == "steps/s" else min)(x, kept[name]) for name, x in found.items()}
    print(f"{options.task}, {options.num_envs} worlds, {options.updates} updates a step, {os.cpu_count()} cores:")
    for collect, found in best.items():
        print(f"  {collect:5} " + "  ".join(f"{name} {value:.3g}" for name, value in found.items()))
    sync, apart = best["sync"], best["async"]
    slower = max(apart["learner_us"], apart["actors_us"] / options.actors)
    print(f"  async / sync: {apart['steps/s'] / sync['steps/s']:.2f} by this machine's clock, "
          f"{sync['learner_us'] / slower:.2f} with a core for each process")  # fmt: skip


if __name__ == "__main__":
    main()
