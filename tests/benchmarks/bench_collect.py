"""Environment steps per second of SAC, its worlds stepped in turn with learning (sync) or meanwhile (async).

    python tests/benchmarks/bench_collect.py [--task reach/fr3] [--num-envs 64] [--updates 16] [--actors 1]

Both in turns, best of several, by the wall clock from the first step on. Processor time beside it: of the learner's
process, and of the actors with their start. How far async gains depends on the cores that are free beside the learner.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from poise.policies.train import train


def measure(collect: str, options: argparse.Namespace) -> dict[str, float]:
    """One run: steps per second, processor seconds of both sides, and what the run's last line says of waiting."""
    settings = {"collect": collect, "actors": options.actors, "num_envs": options.num_envs, "steps": options.steps,
                "updates": options.updates, "learning_starts": 512, "compile": "off", "evaluations": 0, "log_points": 1,
                "checkpoint_seconds": 1e6, "device": options.device, "threads": 1}  # fmt: skip
    children, own = _children(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run = train("sac", options.task, Path(folder) / "run", settings=settings)
        last = json.loads((Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    told = {name.partition("/")[2]: value for name, value in last.items() if name.startswith("async/")}
    return {"steps_per_second": run.steps / run.seconds, "learner_cpu": time.process_time() - own,
            "actors_cpu": _children() - children, **told}  # fmt: skip


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="reach/fr3")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--updates", type=int, default=16, help="after every step of all worlds")
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6_400)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logging.disable()
    best: dict[str, dict[str, Any]] = {}
    for _ in range(options.rounds):
        for collect in ("sync", "async"):
            found = measure(collect, options)
            if collect not in best or found["steps_per_second"] > best[collect]["steps_per_second"]:
                best[collect] = found
    print(f"{options.task}, {options.num_envs} worlds, {options.updates} updates a step, {os.cpu_count()} cores:")
    for collect, found in best.items():
        print(f"  {collect:5} " + "  ".join(f"{name} {value:.3g}" for name, value in found.items()))
    ratio = best["async"]["steps_per_second"] / best["sync"]["steps_per_second"]
    print(f"  async / sync: {ratio:.2f}")


if __name__ == "__main__":
    main()
