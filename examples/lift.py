"""A cube lifted by imitation: an expert's episodes in randomized worlds, a policy fitted to them, and its score.

    python examples/lift.py [--task lift/fr3] [--seed 0] [--out runs/lift] [--randomize default] [--quick]

The expert is disturbed while it shows (noise on what is executed) and what it meant is learned: the policy sees how to
come back from where the expert alone would never have been (DART, arXiv 1703.09327). Leaves in the folder:
demos.hdf5, policy.safetensors and summary.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import poise
from poise.policies.collect import collect
from poise.policies.progress import Progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="lift/fr3", help="lift/ROBOT or pick-place/ROBOT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/lift"))
    parser.add_argument("--randomize", default="default", help="what differs between worlds: none, default or a file")
    parser.add_argument("--noise", type=float, default=0.15, help="deviation of what disturbs the expert's actions")
    parser.add_argument("--quick", action="store_true", help="a rehearsal in seconds: few episodes, little fitting")
    options = parser.parse_args()
    episodes, steps, scored = (4, 200, 4) if options.quick else (200, 20_000, 400)
    began, demos = time.process_time(), options.out / "demos.hdf5"

    print(f"1. Collect {episodes} episodes of the expert that succeed (folder {options.out})", flush=True)
    with Progress() as progress:
        shown = collect(options.task, demos, episodes=episodes, noise=options.noise, randomize=options.randomize,
                        only_success=True, seed=options.seed, progress=progress.episodes(episodes))  # fmt: skip

    print("2. Fit a policy to what the expert meant", flush=True)
    settings = {"steps": steps, "seed": options.seed, "label": "actions_asked", "evaluations": 0}
    with Progress() as progress:
        run = poise.fit("bc", [str(demos)], options.task, options.out, settings=settings, progress=progress)

    print(f"3. Score it on {scored} fresh episodes", flush=True)
    score = poise.evaluate(poise.load_policy(run.policy), options.task, scored, 1000 + options.seed, options.randomize)

    summary = {
        "seed": options.seed,
        "randomize": options.randomize,
        "demonstrations": shown.episodes,
        "of episodes tried": shown.tried,
        "steps of demonstrations": shown.steps,
        "updates": run.steps,
        "success": score.success_rate,
        "success, 95 % interval": [score.success_low, score.success_high],
        "episodes scored": score.episodes,
        "CPU-seconds in all": round(time.process_time() - began, 1),
    }
    (options.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print()
    for name, value in summary.items():
        print(f"{name:<28}{value}")
    print(f"{'policy':<28}{run.policy}")


if __name__ == "__main__":
    main()
