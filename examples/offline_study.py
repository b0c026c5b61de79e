"""Offline learners on data sets like D4RL's, made from your own SAC runs: which of them beats imitation, and where.

    python examples/offline_study.py RUNS OUT [--tasks Hopper Walker2d HalfCheetah] [--algorithms bc td3_bc iql]
                                     [--data medium-replay medium expert random] [--seeds 3] [--steps 50000]
                                     [--medium 33]

RUNS holds, for every task, the run folder of SAC and policy files of it on the way, named after their steps:

    RUNS/Hopper/                        the run folder, with its checkpoint and replay
    RUNS/Hopper-at/15000.safetensors    its policy after 15,000 steps; …/30000.safetensors, and so on

Of these the best is the expert, and the earliest that scores --medium or more is medium:

    random         uniform actions                       medium-replay  all that the run saw up to medium
    medium         medium's policy, with noise           expert         the expert's policy, with noise

A score is 100 (return - random) / (expert - random), both returns measured here. The script may be stopped at any
moment and goes on where it was: OUT holds the data, a run folder for every fit, and table.md, which is written anew
after each of them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import poise
from poise.errors import PoiseError
from poise.policies.collect import collect
from poise.policies.fit import resume_fit
from poise.policies.progress import Progress
from poise.policies.run_replay import write_run

DATA = ("medium-replay", "medium", "expert", "random")
NOISE = 0.1  # standard deviation of what the executed actions of medium and expert are apart from the policy's
SCORED = 20  # episodes that a policy of RUNS is scored on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", nargs="+", default=["Hopper", "Walker2d", "HalfCheetah"])
    parser.add_argument("--algorithms", nargs="+", default=["bc", "td3_bc", "iql"])
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=DATA)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50_000, help="updates of one fit (50000)")
    parser.add_argument("--rows", type=int, default=100_000, help="steps of a data set, about; the replay as it is")
    parser.add_argument("--medium", type=float, default=33.0, help="score from which a policy is medium (33)")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, and do nothing more")
    options = parser.parse_args()
    if not options.table:
        facts = {task: prepare(task, options) for task in options.tasks}
        # the first seed of everything comes first, so that the table fills evenly
        for seed in range(options.seeds):
            for task in options.tasks:
                for data in options.data:
                    for algorithm in options.algorithms:
                        fit_one(task, data, algorithm, seed, facts[task]["ends"], options)
                        write_table(options)
    print(write_table(options))


# ---- the data --------------------------------------------------------------------------------------------------------


def prepare(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """Scores of the policies of a task, and its data sets, as far as they are not there yet."""
    folder = options.out / task
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "facts.json"
    if not path.exists():
        path.write_text(json.dumps(_facts(task, options), indent=2))
    facts = json.loads(path.read_text())
    for data in options.data:
        if not (folder / f"{data}.hdf5").exists():
            _make(task, data, facts, options)
    return facts


def _facts(task: str, options: argparse.Namespace) -> dict[str, Any]:
    """What random actions and every policy of the run return, and which of these are medium and expert."""
    files = sorted((options.runs / f"{task}-at").glob("*.safetensors"), key=lambda file: int(file.stem))
    if not files:
        raise SystemExit(f"no policy files in {options.runs / f'{task}-at'}: expected STEPS.safetensors")
    probe = options.out / task / "probe.hdf5"
    probe.unlink(missing_ok=True)
    print(f"{task}: scoring {len(files)} policies", flush=True)
    drawn = collect(f"{task}-v5", probe, "random", episodes=100, seed=1)
    probe.unlink()
    policies = []
    for file in files:
        scored = poise.evaluate(poise.load_policy(file), f"{task}-v5", SCORED, seed=1)
        policies.append({"steps": int(file.stem), "return": scored.return_mean, "length": scored.length_mean})
    low, high = drawn.return_mean, max(p["return"] for p in policies)
    medium = next(p for p in policies if 100.0 * (p["return"] - low) / (high - low) >= options.medium)
    expert = max(policies, key=lambda p: p["return"])
    return {"ends": [low, high], "random": {"return": low, "length": drawn.steps / drawn.episodes},
            "medium": medium, "expert": expert, "policies": policies}  # fmt: skip


def _make(task: str, data: str, facts: dict[str, Any], options: argparse.Namespace) -> None:
    """One data set, under another name until it is whole."""
    path, part = options.out / task / f"{data}.hdf5", options.out / task / f"{data}.part.hdf5"
    part.unlink(missing_ok=True)
    if data == "medium-replay":
        write_run(options.runs / task, part, first=facts["medium"]["steps"])
    else:
        acting = facts[data]
        policy = "random" if data == "random" else options.runs / f"{task}-at" / f"{acting['steps']}.safetensors"
        episodes = max(1, round(options.rows / acting["length"]))
        noise = 0.0 if data == "random" else NOISE
        collect(f"{task}-v5", part, str(policy), episodes, noise=noise, seed=2)
    part.rename(path)
    print(f"{task}: {path}", flush=True)


# ---- the fits --------------------------------------------------------------------------------------------------------


def fit_one(task: str, data: str, algorithm: str, seed: int, ends: list[float], options: argparse.Namespace) -> None:
    """Fit, or go on fitting, unless it is done or another process is at it."""
    out = _run_folder(task, data, algorithm, seed, options)
    if (out / "done").exists():
        return
    print(f"{task} {data} {algorithm} seed {seed}", flush=True)
    try:
        with Progress() as progress:
            if (out / "config.json").exists():
                result = resume_fit(out, progress=progress)
            else:
                settings = {"steps": options.steps, "seed": seed, "evaluations": 10, "eval_episodes": 10,
                            "log_points": 50}  # fmt: skip
                if data == "random" and algorithm.startswith("iql"):
                    settings["scale_rewards"] = False  # nothing there is worth a scale
                result = poise.fit(algorithm, [str(options.out / task / f"{data}.hdf5")], f"{task}-v5", out,
                                   settings=settings, progress=progress)  # fmt: skip
    except PoiseError as error:
        if "another process" not in str(error):
            raise
        return
    (out / "done").write_text(f"{result.seconds:.0f} s\n")
    last, best = scores(out, ends)
    print(f"  last {last:.1f}, best {best:.1f}, {result.seconds:.0f} s", flush=True)


def scores(run: Path, ends: list[float]) -> tuple[float, float]:
    """Normalized score of the last evaluation of a fit, and of the best."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    returns = np.array([line["eval/return"] for line in lines if "eval/return" in line])
    normalized = 100.0 * (returns - ends[0]) / (ends[1] - ends[0])
    return float(normalized[-1]), float(normalized.max())


def _run_folder(task: str, data: str, algorithm: str, seed: int, options: argparse.Namespace) -> Path:
    return options.out / task / f"{data}-{algorithm.replace('/', '-')}-{seed}"


# ---- the table -------------------------------------------------------------------------------------------------------


def write_table(options: argparse.Namespace) -> str:
    """Scores of the fits that are done, by task and data, as markdown: mean (worst) over seeds, last and best."""
    lines = [f"| data set | {' | '.join(f'{a}, last | {a}, best' for a in options.algorithms)} |",
             f"|---|{'---|' * (2 * len(options.algorithms))}"]  # fmt: skip
    for task in options.tasks:
        facts = json.loads((options.out / task / "facts.json").read_text())
        for data in options.data:
            cells = [cell for a in options.algorithms for cell in _cells(task, data, a, facts["ends"], options)]
            lines.append(f"| {task} {data} | {' | '.join(cells)} |")
    lines += ["", *(_origin(task, options) for task in options.tasks)]
    text = "\n".join(lines) + "\n"
    (options.out / "table.md").write_text(text)
    return text


def _cells(task: str, data: str, algorithm: str, ends: list[float], options: argparse.Namespace) -> tuple[str, str]:
    folders = [_run_folder(task, data, algorithm, seed, options) for seed in range(options.seeds)]
    done = np.array([scores(folder, ends) for folder in folders if (folder / "done").exists()])
    if len(done) == 0:
        return "–", "–"
    seeds = "" if len(done) == options.seeds else f", {len(done)} seeds"
    last, best = (f"{mean:.1f} ({worst:.1f}{seeds})" for mean, worst in zip(done.mean(0), done.min(0), strict=True))
    return last, best


def _origin(task: str, options: argparse.Namespace) -> str:
    facts = json.loads((options.out / task / "facts.json").read_text())
    (low, high), medium, expert = facts["ends"], facts["medium"], facts["expert"]
    score = 100.0 * (medium["return"] - low) / (high - low)
    return (f"{task}-v5: random {low:.0f}, expert {high:.0f} (after {expert['steps']:,} steps), "
            f"medium {medium['return']:.0f} (after {medium['steps']:,} steps, score {score:.0f}).  ")  # fmt: skip


if __name__ == "__main__":
    main()
