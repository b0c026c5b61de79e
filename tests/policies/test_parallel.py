"""Several processes of one run: together they compute what one would, in updates and from start to end."""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import parallel_cases as cases
import pytest
import torch

import poise
from poise.errors import RunError, UsageError
from poise.policies.checkpoint import load_checkpoint, save_checkpoint
from poise.policies.follower_folder import FollowerFolder
from poise.policies.metrics import together
from poise.policies.parallel import Group, require_same
from poise.policies.policy_file import read_policy
from poise.policies.processes import place_of_torchrun, require_same_size
from poise.policies.sac import SAC, SACConfig
from poise.policies.train import resume


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """What two processes make of every case: (rank 0's, rank 1's) by "case/name"."""
    folder = tmp_path_factory.mktemp("halves")
    outs = [folder / f"{rank}.npz" for rank in range(cases.HALVES)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    running = [subprocess.Popen([sys.executable, "-W", "error", cases.__file__, str(rank), str(folder / "meeting"), str(out)],
                                env=environment) for rank, out in enumerate(outs)]  # fmt: skip
    assert [process.wait(300) for process in running] == [0, 0]
    return [dict(np.load(out)) for out in outs]


@pytest.mark.parametrize("case", cases.CASES)
def test_two_processes_with_half_the_batch_each_do_what_one_does_with_all_of_it(halves, case):
    whole = cases.CASES[case](cases.ALONE)
    for name, expected in whole.items():
        first, second = (half[f"{case}/{name}"] for half in halves)
        if name in cases.OWN:
            first = np.concatenate([first, second])
        else:
            assert np.array_equal(first, second), f"{name} differs between the processes"
        np.testing.assert_allclose(first, expected.detach().numpy(), rtol=1e-5, atol=1e-5, err_msg=name)


# ---- whole runs ------------------------------------------------------------------------------------------------------

RUN = {"num_envs": 8, "hidden": "16,16", "evaluations": 1, "eval_episodes": 2, "log_points": 4, "processes": 2}


def train(out, steps: int, **settings) -> list[str]:
    sets = [x for key, value in {**RUN, **settings}.items() for x in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "poise", "train", "ppo", "--task", "reach/planar-state", "--steps", str(steps),
            "--out", str(out), *sets]  # fmt: skip


def processes_of(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@contextlib.contextmanager
def ended(process: subprocess.Popen):
    """The process, which ends with the test whatever becomes of it."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition, seconds: float = 240.0):
    """What `condition` returns, once that is something."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(0.01)
    return found


def test_a_process_that_is_killed_ends_the_run_with_one_error_and_resuming_finishes_it(tmp_path):
    out = tmp_path / "run"
    command = train(out, 10**7, checkpoint_seconds=0, evaluations=0)
    with ended(subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)) as parent:
        until((out / "checkpoint" / "manifest.json").exists)
        first, second = processes_of(parent.pid)
        os.kill(second, signal.SIGKILL)
        said, errors = parent.communicate(timeout=60)
    assert (parent.returncode, said) == (1, "")
    assert f"process 1 of 2 ({second}) was killed by SIGKILL" in errors.splitlines()[-1] and "Traceback" not in errors
    until(lambda: not os.path.exists(f"/proc/{first}"), 10.0)

    steps = json.loads((out / "checkpoint" / "manifest.json").read_text())["info"]["steps"]
    seen = []
    result = resume(out, steps=steps + 400, progress=lambda *news: seen.append(news))
    assert result.steps >= steps + 400 and seen[-1][:2] == (result.steps, steps + 400)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == result.steps
    episodes = sum(line.get("train/episodes", 0.0) for line in lines)
    assert episodes == 8 * (result.steps // 8 // 50)  # of both processes' worlds, from before the kill and after
    mine, theirs = (json.loads((out / "checkpoint" / of / "manifest.json").read_text()) for of in ("", "process-1"))
    assert mine["info"]["steps"] == theirs["info"]["steps"] == result.steps
    policy = poise.load_policy(result.policy)
    assert policy.provenance["steps"] == result.steps and policy.provenance["config"]["run"]["processes"] == 2


@pytest.mark.learning
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_a_killed_and_resumed_run_of_two_processes_equals_an_undisturbed_one(tmp_path, algorithm):
    sac = {"learning_starts": 400, "batch_size": 32, "capacity": 1000, "compile": "off"}
    settings, steps = ({}, 4000) if algorithm == "ppo" else (sac, 2400)
    made = {}
    for name, wait in (("whole", 3600), ("killed", 0)):
        command = train(tmp_path / name, steps, checkpoint_seconds=wait, **settings)
        command[4] = algorithm
        with ended(subprocess.Popen(command, stdout=subprocess.DEVNULL)) as process:
            if name == "killed":
                until((tmp_path / name / "checkpoint" / "manifest.json").exists)
                time.sleep(0.5)
                process.kill()
            assert process.wait() in (0, -signal.SIGKILL)
        if name == "killed":
            until(lambda: not holds_lock(tmp_path / "killed" / "lock"))
            resume(tmp_path / name)
        made[name] = read_policy(tmp_path / name / "policy.safetensors").tensors
    for name, tensor in made["whole"].items():
        assert tensor.tobytes() == made["killed"][name].tobytes(), f"{name} differs"


def holds_lock(path) -> bool:
    """Whether a process trains there."""
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


# ---- refusals, and the parts -----------------------------------------------------------------------------------------


def test_what_cannot_be_shared_is_refused_before_anything_starts(tmp_path, monkeypatch):
    for algorithm, settings, message in (
        ("dqn", {"processes": 2, "num_envs": 2}, "processes = 2: expected 1 for dqn; ppo and sac"),
        ("ppo", {"processes": 3, "num_envs": 64}, "num_envs = 64: expected a multiple of processes = 3"),
        ("sac", {"processes": 2, "num_envs": 2, "collect": "async"}, "processes = 2: expected 1 with collect=async"),
    ):
        with pytest.raises(UsageError, match=message):
            poise.train(algorithm, "gym:CartPole-v1", tmp_path / "run", settings=settings)
    group = Group()
    group.size = 2
    for settings, message in (({"batch_size": 255}, "batch_size = 255"), ({"compile": "on"}, "compile = 'on'")):
        with pytest.raises(UsageError, match=message):
            SAC(cases.SPEC, SACConfig(**settings), 4, 0, group=group)
    (
        monkeypatch.setenv("RANK", "0"),
        monkeypatch.setenv("WORLD_SIZE", "4"),
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1"),
    )
    with pytest.raises(UsageError, match="processes = 2: torchrun started 4"):
        place_of_torchrun(2)
    with pytest.raises(RunError, match="was begun by 2 processes and would go on with 4"):
        require_same_size({"processes": 2}, 4)


def test_networks_that_have_drifted_apart_are_told():
    group = Group()
    group.size, group.told = 2, lambda value: [value, [*value[:-1], 0]]
    with pytest.raises(RunError, match="the networks of the 2 processes are no longer the same"):
        require_same(group, {"networks": {"a": torch.ones(2)}})


def test_metrics_of_processes_are_weighted_by_episodes_summed_or_averaged():
    first = {"train/return": 1.0, "train/episodes": 3.0, "train/bad_worlds": 1.0, "alpha": 0.2}
    second = {"train/return": 5.0, "train/episodes": 1.0, "train/bad_worlds": 2.0, "alpha": 0.4}
    both = together([first, second])
    assert both == pytest.approx({"train/return": 2.0, "train/episodes": 4.0, "train/bad_worlds": 3.0, "alpha": 0.3})
    assert together([{"train/bad_worlds": 1.0}, second])["train/return"] == 5.0
    assert together([first]) is first


@pytest.mark.parametrize("task", ["reach/planar-state", "gym:Pendulum-v1"])
def test_the_worlds_of_two_halves_are_those_of_the_whole(task):
    whole, half = poise.make(task, 4, 0, "default"), poise.make(task, 2, 0, "default")
    everyone, second = whole.reset(3), half.reset(3, worlds=np.arange(2, 4))
    for group, values in everyone.items():
        assert torch.equal(values[2:], second[group])
    state = half.state_dict()
    again = poise.make(task, 2, 0, "default")
    for group, values in again.load_state_dict(state).items():
        assert torch.equal(values, second[group])
    for env in (whole, half, again):
        env.close()


def test_of_two_checkpoints_the_one_that_belongs_to_the_run_is_taken(tmp_path):
    leader, own = tmp_path / "checkpoint", tmp_path / "checkpoint" / "process-1"
    folder = FollowerFolder(tmp_path, 1)
    assert not folder.has_checkpoint()
    for steps in (10, 20):
        save_checkpoint(own, {"x": torch.tensor(steps)}, None, {"steps": steps}, keep_before=True)
        if steps == 10:  # the run was killed before the leader's second
            save_checkpoint(leader, {}, None, {"steps": steps})
    assert folder.has_checkpoint()
    state, info = load_checkpoint(own, None)
    assert (state["x"].item(), info["steps"]) == (10, 10)
    save_checkpoint(leader, {}, None, {"steps": 30})
    with pytest.raises(RunError, match="holds no checkpoint of step 30"):
        folder.has_checkpoint()
