"""What demonstrations are worth on lift/fr3: imitated, and beside online experience whose reward is sparse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import poise
from poise.policies.collect import collect

EXAMPLE, SPARSE = Path(__file__).parents[2] / "examples" / "lift.py", "lift/fr3?reward=sparse"


def run(folder, *options: str) -> dict:
    command = [sys.executable, "-P", str(EXAMPLE), "--out", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return json.loads((folder / "summary.json").read_text())


def test_the_rehearsal_of_the_example_leaves_what_it_promises(tmp_path):
    summary = run(tmp_path / "lift", "--quick", "--randomize", "none", "--noise", "0.05")
    assert summary["demonstrations"] == 4 and summary["episodes scored"] == 4
    assert (tmp_path / "lift" / "policy.safetensors").stat().st_size > 1000


@pytest.mark.learning
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("randomize", ["none", "default"])
def test_200_episodes_of_the_expert_are_enough_to_lift_the_cube(tmp_path, randomize):
    summary = run(tmp_path / "lift", "--randomize", randomize)
    assert summary["success"] >= 0.9 and summary["episodes scored"] == 400 and summary["demonstrations"] == 200


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_20_demonstrations_make_a_sparse_reward_learnable(tmp_path, seed):
    collect(SPARSE, tmp_path / "demos.hdf5", episodes=20, only_success=True)
    settings = {"seed": seed, "steps": 100_000, "evaluations": 0, "randomize": "none", "compile": "off", "threads": 1}
    rates = {}
    for name, demos in (("with", [tmp_path / "demos.hdf5"]), ("without", [])):
        result = poise.train("sac/demos", SPARSE, tmp_path / name, settings=settings, demos=demos)
        rates[name] = poise.evaluate(poise.load_policy(result.policy), SPARSE, 200, 1000 + seed).success_rate
    print(seed, rates)
    assert rates["with"] >= 0.8 and rates["without"] < 0.2
