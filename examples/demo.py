"""The whole path in one run: train an arm in simulation, score it, deploy it to a twin that differs from training.

    python examples/demo.py [--seed 0] [--out runs/demo]

Leaves in the folder: policy.safetensors, curves.png, reach.mp4, deployed.hdf5 and summary.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import poise
from poise.policies.film import film
from poise.policies.progress import Progress

TASK = "reach/fr3"
# an arm as no world in training was: 40 ms late, all links, damping and friction 10 % up, all gains 10 % down
TWIN = "twin:fr3?latency=0.04&mass=1.1&damping=1.1&friction=1.1&friction_loss=0.25&gain=0.9"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--steps", type=int, help="environment steps of training; the recipe's by default")
    options = parser.parse_args()
    out = _free_folder(options.out)
    began = time.monotonic()
    settings = {"seed": options.seed, **({"steps": options.steps} if options.steps else {})}

    print(f"1. Train {TASK} with PPO in randomized worlds (folder {out})", flush=True)
    with Progress() as progress:
        run = poise.train("ppo", TASK, out, settings=settings, progress=progress)

    print("2. Score it on 200 fresh episodes, and film three", flush=True)
    policy = poise.load_policy(run.policy)
    score = poise.evaluate(policy, TASK, episodes=200, seed=1000 + options.seed, randomize="default")
    video = film(policy, TASK, out / "reach.mp4", episodes=3, seed=1000 + options.seed, randomize="default")

    print(f"3. Deploy it to {TWIN}", flush=True)
    deployed = poise.deploy(run.policy, TWIN, episodes=50, seed=options.seed, record=out / "deployed.hdf5")

    summary = {
        "seed": options.seed,
        "steps": run.steps,
        "training seconds": round(run.seconds, 1),
        "evaluation success": score.success_rate,
        "deployment success": deployed["success_rate"],
        "commands sent": deployed["commands"],
        "clipped by the supervisor": deployed["clipped"],
        "rejected by the supervisor": deployed["rejected"],
        "out of limits by the twin's count": deployed["out_of_limit"],
        "seconds in all": round(time.monotonic() - began, 1),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print()
    for name, value in summary.items():
        shown = f"{100 * value:.1f} %" if name.endswith("success") else value
        print(f"{name:<36}{shown}")
    for what, path in (("policy", run.policy), ("learning curves", out / "curves.png"), ("video", video),
                       ("recording of the arm", out / "deployed.hdf5")):  # fmt: skip
        print(f"{what:<36}{path}")


def _free_folder(wanted: Path) -> Path:
    path, n = wanted, 2
    while (path / "config.json").exists():
        path, n = wanted.with_name(f"{wanted.name}-{n}"), n + 1
    return path


if __name__ == "__main__":
    main()
