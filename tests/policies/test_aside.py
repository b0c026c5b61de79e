"""Evaluations beside a run: training goes on, the numbers are those of evaluations in turn, and none is lost."""

import json
import os
import signal
import subprocess
import sys

import pytest

import poise
from poise.errors import RunError
from poise.policies.aside import Aside, Asked
from poise.policies.ppo import PPO
from poise.policies.ppo_config import PPOConfig
from poise.policies.train import resume

SLOW = """
import time
from pathlib import Path
from poise.sim.tasks.planar import PlanarReach


def task():
    while Path("slow").exists():  # in the folder that the run works in
        time.sleep(0.01)
    return PlanarReach(camera=False)
"""
SETTINGS = {"num_envs": 4, "collect_steps": 8, "hidden": (8, 8), "eval_episodes": 2, "log_points": 8, "threads": 1}


def lines(folder, prefix="eval/"):
    """(step, values) of the lines that hold metrics of some kind, in the order of writing."""
    found = []
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        values = {k: v for k, v in record.items() if k.startswith(prefix)}
        if values:
            found.append((record["step"], values))
    return found


def test_evaluations_aside_find_the_numbers_of_those_in_turn_and_leave_the_same_policies(tmp_path):
    runs = {}
    for aside in ("on", "off"):
        settings = {**SETTINGS, "steps": 96, "evaluations": 3, "aside": aside}
        runs[aside] = poise.train("ppo", "reach/planar-state", tmp_path / aside, settings=settings)
    on, off = (tmp_path / name for name in runs)
    assert sorted(lines(on), key=lambda line: line[0]) == lines(off) and len(lines(on)) == 3
    assert runs["on"].eval == runs["off"].eval and runs["on"].eval.episodes == 2
    for name in ("policy.safetensors", "best.safetensors"):
        a, b = (poise.load_policy(folder / name) for folder in (on, off))
        assert a.evaluation == b.evaluation and a.provenance["steps"] == b.provenance["steps"]
        assert all((a.tensors[k] == b.tensors[k]).all() for k in a.tensors)
    assert not (on / "evaluating").exists()


def test_training_goes_on_while_an_evaluation_takes_its_time(tmp_path, monkeypatch):
    (tmp_path / "slow_task.py").write_text(SLOW)
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = []

    def progress(steps, total, values):
        if steps >= 96 and (tmp_path / "slow").exists() and not any(k.startswith("eval/") for k in values):
            seen.append(steps)
            if len(seen) == 3:
                (tmp_path / "slow").unlink()
        elif steps == 32:
            (tmp_path / "slow").touch()  # before the first evaluation begins, after the worlds of training were made

    settings = {**SETTINGS, "steps": 256, "evaluations": 4, "aside": "on", "log_points": 8}
    poise.train("ppo", "py:slow_task:task", tmp_path / "run", settings=settings, progress=progress)
    assert len(seen) == 3  # log lines written while the evaluation of step 64 waited
    order = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [step for step, _ in lines(tmp_path / "run")] == [64, 128, 192, 256]
    assert order.index(64) < len(order) - 1 and order != sorted(order)


def test_a_run_that_is_killed_scores_again_what_it_had_not_seen_the_end_of(tmp_path, monkeypatch):
    (tmp_path / "slow_task.py").write_text(SLOW)
    (tmp_path / "go.py").write_text(f"""
import poise, sys
import poise.policies.run
poise.policies.run.CHECKPOINT_SHARE = 1e9
from pathlib import Path
def progress(steps, total, values):
    if steps == 32:
        Path("slow").touch()
    if steps >= 160:
        print("here", flush=True)
        sys.stdin.read()
poise.train("ppo", "py:slow_task:task", "run", progress=progress,
            settings={ ({**SETTINGS, "steps": 256, "evaluations": 4, "aside": "on", "checkpoint_seconds": 0})!r})
""")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    process = subprocess.Popen([sys.executable, "go.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout.readline() == "here\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    manifest = json.loads((tmp_path / "run" / "checkpoint" / "manifest.json").read_text())
    assert [entry["step"] for entry in manifest["info"]["evaluating"]] == [64, 128]
    (tmp_path / "slow").unlink()
    monkeypatch.syspath_prepend(str(tmp_path))
    resume(tmp_path / "run")
    assert [step for step, _ in lines(tmp_path / "run")] == [64, 128, 192, 256]
    assert not (tmp_path / "run" / "evaluating").exists()
    for stream in (process.stdin, process.stdout):
        stream.close()


def test_an_evaluation_that_fails_or_whose_process_dies_stops_the_run_with_its_reason(tmp_path):
    env = poise.make("reach/planar-state")
    policy = PPO(env.spec, PPOConfig(hidden=(8, 8)), 1, seed=0).policy()
    env.close()
    order = {"task": "InvertedPendulum-v5", "episodes": 1, "seed": 0, "threads": 1, "randomize": "none", "torch_threads": 1,
             "videos": 0, "video": ""}  # fmt: skip
    aside = Aside(tmp_path)
    aside.ask(Asked(7, 0.0, policy), order)
    with pytest.raises(
        RunError, match=r"the evaluation of step 7 failed: .*SpecError: this policy does not fit InvertedPendulum-v5"
    ):
        list(aside.answers(wait=True))
    os.kill(aside._child._process.pid, signal.SIGKILL)
    with pytest.raises(RunError, match="the process that evaluates was killed by SIGKILL, at the evaluation of step 7"):
        list(aside.answers(wait=True))
    aside.close()


def test_evaluations_are_filmed_where_that_is_asked_for(tmp_path, monkeypatch):
    filmed = []
    monkeypatch.setattr(
        "poise.policies.film.film", lambda policy, task, path, episodes, *_: filmed.append((path, episodes))
    )
    settings = {**SETTINGS, "steps": 64, "evaluations": 2, "videos": 1}
    poise.train("ppo", "reach/planar-state", tmp_path / "run", settings=settings)
    assert filmed == [(str(tmp_path / "run" / "videos" / f"{step}.mp4"), 1) for step in (32, 64)]
