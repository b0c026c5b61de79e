"""Exact resume: a run killed at random moments ends with the very tensors of one that was never disturbed."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from poise.policies.policy_file import read_policy

PPO = {"num_envs": 8, "collect_steps": 16, "evaluations": 3, "eval_episodes": 2}
SAC = {"num_envs": 2, "learning_starts": 200, "batch_size": 32, "hidden": "32,32", "capacity": 1500,
       "compile": "off", "evaluations": 3, "eval_episodes": 2}  # fmt: skip
DQN = {"num_envs": 2, "learning_starts": 200, "batch_size": 16, "hidden": "32,32", "capacity": 1000, "n_step": 3,
       "prioritized": "true", "target_every": 70, "evaluations": 3, "eval_episodes": 2}  # fmt: skip
CATCH = {**DQN, "conv": "[8,8,4],[8,4,2]", "hidden": "32", "collect_steps": 2, "dueling": "true", "tau": 0.01}
CASES = {
    "dqn-cartpole": ("dqn", "gym:CartPole-v1", DQN),
    "dqn-catch": ("dqn/nature", "gym:poise/Catch-v0", CATCH),
    "ppo-reach": ("ppo", "reach/fr3", {**PPO, "hidden": "32,32"}),
    "sac-reach": ("sac", "reach/fr3", SAC),
    "sac-large-reach": (
        "sac",
        "reach/fr3",
        {
            **SAC,
            "norm": "layer",
            "critic": "categorical",
            "policy_delay": 3,
            "normalize_rewards": "true",
            "noise_hold": 4,
        },
    ),
    "sac-cartpole": ("sac", "gym:CartPole-v1", {**SAC, "num_envs": 1}),
    "ppo-cheetah": ("ppo", "gym:HalfCheetah-v5", {**PPO, "hidden": "32,32"}),
    "sac-cheetah": ("sac", "gym:HalfCheetah-v5", {**SAC, "num_envs": 1}),
}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "poise", "train", *arguments]


def fresh(algorithm: str, task: str, settings: dict, out, steps: int, seconds_between_checkpoints: float) -> list[str]:
    settings = {**settings, "checkpoint_seconds": seconds_between_checkpoints, "log_points": 20}
    sets = [x for k, v in settings.items() for x in ("--set", f"{k}={v}")]
    return command(algorithm, "--task", task, "--steps", str(steps), "--seed", "3", "--out", str(out), *sets)


def run(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def kill_until_done(arguments: list[str], out, kills: int, seed: int) -> int:
    """Start, kill after a random time once it trains, resume, …; the number of kills that hit."""
    rng, hits = random.Random(seed), 0
    manifest = out / "checkpoint" / "manifest.json"
    while True:
        before = manifest.read_bytes() if manifest.exists() else b""
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if hits < kills:
            while process.poll() is None and (manifest.read_bytes() if manifest.exists() else b"") == before:
                time.sleep(0.01)  # it goes on training once a checkpoint of its own is there
            time.sleep(rng.uniform(0.0, 0.5))
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                hits += 1
        _, errors = process.communicate()
        if process.returncode == 0:
            return hits
        assert process.returncode == -signal.SIGKILL, errors
        arguments = command("--resume", str(out))


def assert_same_run(a, b, steps: int) -> None:
    first, second = read_policy(a / "policy.safetensors"), read_policy(b / "policy.safetensors")
    assert sorted(first.tensors) == sorted(second.tensors)
    for name, tensor in first.tensors.items():
        assert tensor.tobytes() == second.tensors[name].tobytes(), f"{name} differs"
    assert first.provenance["steps"] == second.provenance["steps"] >= steps
    assert first.evaluation == second.evaluation
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (a, b)]
    for one, two in zip(*lines, strict=True):
        one.pop("seconds", None), two.pop("seconds", None)
        assert one == two


@pytest.mark.parametrize("case", CASES)
def test_a_killed_and_resumed_run_equals_an_undisturbed_one(tmp_path, case):
    algorithm, task, settings = CASES[case]
    steps = 8 * 16 * 20 if algorithm == "ppo" else 1600
    run(fresh(algorithm, task, settings, tmp_path / "whole", steps, 3600))
    hits = kill_until_done(fresh(algorithm, task, settings, tmp_path / "killed", steps, 0.1), tmp_path / "killed", 2, 1)
    assert hits > 0, "the run ended before it could be killed"
    assert_same_run(tmp_path / "whole", tmp_path / "killed", steps)


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", CASES)
def test_twenty_kills_leave_no_trace(tmp_path, case):
    algorithm, task, settings = CASES[case]
    steps = 8 * 16 * 400 if algorithm == "ppo" else 12_000
    run(fresh(algorithm, task, settings, tmp_path / "whole", steps, 3600))
    hits = kill_until_done(
        fresh(algorithm, task, settings, tmp_path / "killed", steps, 0.1), tmp_path / "killed", 20, 7
    )
    print(f"{case}: {hits} kills")
    assert hits == 20
    assert_same_run(tmp_path / "whole", tmp_path / "killed", steps)


ADAPTIVE = {
    "terms": [
        {"name": "damping", "what": "joint_damping", "target": "*", "range": [0.5, 1.5]},
        {"name": "latency", "what": "action_latency", "range": [0.0, 0.1], "operation": "set"},
    ],
    "adr": {"queue": 1, "measure": "return", "t_low": -1001.0, "t_high": -1000.0},  # always outward
}


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_ranges_that_adapt_are_resumed_with_all_that_moves_them(tmp_path, algorithm):
    (tmp_path / "adaptive.json").write_text(json.dumps(ADAPTIVE))
    settings = {**(PPO if algorithm == "ppo" else SAC), "hidden": "32,32", "randomize": tmp_path / "adaptive.json"}
    whole, killed, steps = tmp_path / "whole", tmp_path / "killed", 8 * 16 * 40 if algorithm == "ppo" else 1600
    run(fresh(algorithm, "reach/planar-state", settings, whole, steps, 3600))
    assert kill_until_done(fresh(algorithm, "reach/planar-state", settings, killed, steps, 0.1), killed, 1, 1)
    assert_same_run(whole, killed, steps)
    entropies = {json.loads(line).get("adr/entropy") for line in (whole / "metrics.jsonl").read_text().splitlines()}
    assert len(entropies - {None}) > 3  # the bounds move
    found = (whole / "adr.json").read_text()
    assert found == (killed / "adr.json").read_text()
    assert read_policy(whole / "policy.safetensors").provenance["randomize"] == json.loads(found)
