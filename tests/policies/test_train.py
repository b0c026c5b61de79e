"""The training loop: what it leaves, how it is interrupted, and what a full disk costs."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import poise
from poise.batch import Step
from poise.errors import RunError
from poise.policies.episode_statistics import EpisodeStatistics
from poise.policies.metrics import MetricMeans, next_multiple

QUICK = {"num_envs": 4, "collect_steps": 8, "hidden": (8, 8), "evaluations": 2, "eval_episodes": 2}


def test_marks_on_the_way_depend_on_the_steps_alone():
    assert [next_multiple(s, 100, 4) for s in (0, 24, 25, 26, 99, 100)] == [25, 25, 50, 50, 100, 125]
    assert next_multiple(5, 100, 0) == float("inf")


def step(reward, terminated, success=None, mask=None) -> Step:
    t = torch.tensor(terminated)
    return Step({}, {}, torch.tensor(reward), t, torch.zeros_like(t),
                None if success is None else torch.tensor(success), None if mask is None else torch.tensor(mask))  # fmt: skip


def test_episode_statistics_by_hand():
    statistics = EpisodeStatistics(2)
    statistics.add(step([1.0, 10.0], [False, False], [False, False]))
    assert statistics.take() == {}
    statistics.add(step([2.0, 20.0], [True, False], [True, True]))
    statistics.add(step([4.0, 40.0], [False, True], [False, False]))
    values = statistics.take()
    assert values == {
        "train/return": (3.0 + 70.0) / 2,
        "train/length": 2.5,
        "train/episodes": 2.0,
        "train/success": 0.5,
    }
    statistics.add(step([8.0, 1.0], [True, False], mask=[True, False]))
    assert statistics.take()["train/return"] == 12.0


def test_episodes_are_counted_as_one_by_one_however_often_one_asks():
    rng = np.random.default_rng(0)
    steps = [Step({}, {}, *(torch.from_numpy(x) for x in (
        rng.normal(size=3).astype(np.float32), rng.random(3) < 0.05, rng.random(3) < 0.05)),
        torch.from_numpy(rng.random(3) < 0.5), torch.from_numpy(rng.random(3) < 0.9) if rng.random() < 0.3 else None,
    ) for _ in range(300)]  # fmt: skip
    expected, total, length = [], np.zeros(3), np.zeros(3)
    for step in steps:
        for world in range(3):
            if step.mask is None or step.mask[world]:
                total[world] += step.reward[world].item()
                length[world] += 1
                if step.done[world]:
                    expected.append((total[world], length[world], bool(step.success[world])))
                    total[world] = length[world] = 0
    assert len(expected) > 30
    rare, often = EpisodeStatistics(3), EpisodeStatistics(3)
    for step in steps:
        rare.add(step)
        often.add(step)
        often.state_dict()  # counts at once
    assert often.state_dict()["return"].tolist() == rare.state_dict()["return"].tolist() == total.tolist()
    returns, lengths, successes = np.mean(expected, axis=0)
    taken = rare.take()
    assert taken == often.take()
    assert taken == pytest.approx({"train/return": returns, "train/length": lengths, "train/success": successes,
                                   "train/episodes": len(expected)})  # fmt: skip
    assert rare.take() == {}


def test_metric_means_by_hand():
    means = MetricMeans()
    assert means.means() == {}
    means.add({"a": torch.tensor(1.0), "b": torch.tensor(4.0)})
    means.add({"a": torch.tensor(2.0), "b": torch.tensor(0.0)})
    assert means.means() == {"a": 1.5, "b": 2.0}
    means.clear()
    assert means.means() == {}


def test_the_python_names_train_evaluate_and_load(tmp_path):
    result = poise.train("ppo", "reach/fr3", tmp_path / "run", settings={**QUICK, "steps": 128})
    assert result.steps == 128 and result.eval is not None and result.eval.episodes == 2
    policy = poise.load_policy(result.policy)
    assert policy.provenance["task"] == "reach/fr3" and policy.provenance["randomize"]["terms"]
    score = poise.evaluate(policy, "reach/fr3", episodes=3, seed=5, randomize="default")
    assert score == poise.evaluate(policy, "reach/fr3", episodes=3, seed=5, randomize="default")
    assert score != poise.evaluate(policy, "reach/fr3", episodes=3, seed=6, randomize="default")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["machine"]["versions"]["mujoco"] and config["run"]["steps"] == 128


def test_evaluating_or_not_changes_nothing_that_training_computes(tmp_path):
    weights = []
    for evaluations in (0, 4):
        settings = {**QUICK, "steps": 128, "evaluations": evaluations}
        result = poise.train("ppo", "reach/fr3", tmp_path / str(evaluations), settings=settings)
        weights.append(poise.load_policy(result.policy).tensors)
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path):
    import shutil

    from poise.policies.train import resume

    first = poise.train("ppo", "reach/fr3", tmp_path / "run", settings={**QUICK, "steps": 128})
    weights = poise.load_policy(first.policy).tensors
    shutil.rmtree(tmp_path / "run" / "checkpoint")
    again = poise.load_policy(resume(tmp_path / "run").policy).tensors
    assert all(torch.equal(weights[k], again[k]) for k in weights)
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps) and steps[0] <= 64


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_last_good_checkpoint(tmp_path, monkeypatch):
    from poise.policies.ppo import PPO

    update, calls = PPO.update, []

    def poisoned(self, batch):
        calls.append(1)
        metrics = update(self, batch)
        return {**metrics, "critic/loss": metrics["critic/loss"] * float("nan")} if len(calls) > 2 else metrics

    monkeypatch.setattr(PPO, "update", poisoned)
    settings = {**QUICK, "steps": 320, "checkpoint_seconds": 0, "log_points": 1, "evaluations": 0}
    with pytest.raises(RunError, match=r"critic/loss is not finite at step \d+.*checkpoint"):
        poise.train("ppo", "reach/fr3", tmp_path / "run", settings=settings)


def test_ctrl_c_saves_and_says_how_to_resume(tmp_path):
    arguments = [sys.executable, "-m", "poise", "train", "ppo", "--task", "reach/fr3", "--out", "run", "--json",
                 "--steps", "100000000", "--set", "num_envs=4", "--set", "checkpoint_seconds=0"]  # fmt: skip
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    while not (tmp_path / "run" / "checkpoint" / "manifest.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "poise train --resume run" in err and "Traceback" not in err
    assert json.loads(out.splitlines()[-1])["error"]["type"] == "Interrupted"
    assert (tmp_path / "run" / "policy.safetensors").exists()


ON_A_SMALL_DISK = """
    set -e
    mount -t tmpfs -o size=3m tmpfs "$1"
    disk=$1; copy=$2; shift 2; code=0
    "$@" || code=$?
    cp -r "$disk/run" "$copy"
    exit $code
"""


def test_a_full_disk_is_one_clear_error_and_the_last_checkpoint_is_good(tmp_path):
    disk, copy = tmp_path / "disk", tmp_path / "copy"
    disk.mkdir()
    settings = {"num_envs": 4, "learning_starts": 200, "batch_size": 16, "hidden": "64,64", "compile": "off",
                "evaluations": 0, "checkpoint_seconds": 0}  # fmt: skip
    command = [sys.executable, "-m", "poise", "train", "sac", "--task", "reach/fr3", "--steps", "40000",
               "--out", str(disk / "run"), *(x for k, v in settings.items() for x in ("--set", f"{k}={v}"))]  # fmt: skip
    # a mount of our own, which ends with the process; without root, inside a user namespace
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    done = subprocess.run([*own, "sh", "-c", ON_A_SMALL_DISK, "sh", str(disk), str(copy), *command],
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "no space is left on the disk" in done.stderr and "resume" in done.stderr and "Traceback" not in done.stderr

    resumed = [sys.executable, "-m", "poise", "train", "--resume", str(copy), "--steps", "1000", "--json"]
    done = subprocess.run(resumed, capture_output=True, text=True, timeout=300)  # on a larger disk
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["steps"] > 1000
