"""The whole path in one run: train an arm in simulation, score it, deploy it to a twin that differs from training.

    python examples/demo.py [--seed 0] [--out runs/demo] [--quick]

Leaves in the folder: policy.safetensors, curves.png, reach.mp4, deployed.hdf5 and summary.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import poise
from poise.errors import PoiseError
from poise.policies.film import film
from poise.policies.progress import Progress

TASK = "reach/fr3"
# An arm as no world in training was: 40 ms late, with all links, damping and friction 10 % up and all gains 10 % down.
# The model has no dry friction of its own; the twin gets some, so that there is something to scale.
TWIN = "twin:fr3?latency=0.04&mass=1.1&damping=1.1&friction=1.1&friction_loss=0.25&gain=0.9"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--quick", action="store_true", help="a rehearsal in seconds: little training, few episodes")
    options = parser.parse_args()
    out = _free_folder(options.out)
    settings = {"seed": options.seed, **({"steps": 20_000} if options.quick else {})}
    scored, filmed, deployed = (8, 1, 2) if options.quick else (200, 3, 50)
    began = time.monotonic()

    print(f"1. Train {TASK} with PPO in randomized worlds (folder {out})", flush=True)
    with Progress() as progress:
        run = poise.train("ppo", TASK, out, settings=settings, progress=progress)

    print(f"2. Score it on {scored} fresh episodes, and film {filmed}", flush=True)
    policy = poise.load_policy(run.policy)
    score = poise.evaluate(policy, TASK, episodes=scored, seed=1000 + options.seed, randomize="default")
    try:
        video = film(policy, TASK, out / "reach.mp4", episodes=filmed, seed=1000 + options.seed, randomize="default")
    except PoiseError as error:  # a machine without OpenGL can do all the rest
        video = f"none: {error}"

    print(f"3. Deploy it to {TWIN}", flush=True)
    with Progress() as progress:
        arm = poise.deploy(run.policy, TWIN, episodes=deployed, seed=options.seed, record=out / "deployed.hdf5",
                           progress=progress.episodes(deployed))  # fmt: skip

    summary = {
        "seed": options.seed,
        "training steps": run.steps,
        "training seconds": round(run.seconds, 1),
        "evaluation success": score.success_rate,
        "evaluation episodes": score.episodes,
        "deployment success": arm["success_rate"],
        "deployment episodes": arm["episodes"],
        "commands sent to the arm": arm["commands"],
        "clipped by the supervisor": arm["clipped"],
        "rejected by the supervisor": arm["rejected"],
        "out of limits by the twin's own count": arm["out_of_limit"],
        "seconds in all": round(time.monotonic() - began, 1),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print()
    for name, value in summary.items():
        print(f"{name:<40}{f'{100 * value:.1f} %' if name.endswith('success') else value}")
    for what, path in (("policy", run.policy), ("learning curves", out / "curves.png"), ("video", video),
                       ("recording of the arm", out / "deployed.hdf5")):  # fmt: skip
        print(f"{what:<40}{path}")


def _free_folder(wanted: Path) -> Path:
    path, n = wanted, 2
    while (path / "config.json").exists():
        path, n = wanted.with_name(f"{wanted.name}-{n}"), n + 1
    return path


if __name__ == "__main__":
    main()
