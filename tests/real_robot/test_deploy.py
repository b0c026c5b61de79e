"""deploy: episodes on an arm from a policy file, judged by the task, recorded, refused where it does not fit."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import poise.real_robot.deploy as module
from poise.datasets.episodes import EpisodeFile
from poise.errors import DatasetError, PolicyFileError, SpecError, UsageError
from poise.kinematics import forward_kinematics
from poise.policies.network_document import expected_tensors
from poise.policies.policy_file import PolicyFile, read_policy, write_policy
from poise.real_robot.deploy import deploy
from poise.robots import FR3
from poise.sim.tasks.reach import ARENAS, Reach, reach_spec

TWIN = "twin:fr3?latency=0.04&mass=1.1&damping=1.1&friction=1.1&gain=0.9"


def test_a_deployment_counts_records_and_sums_up(policy_path, tmp_path):
    ended = []
    summary = deploy(policy_path, TWIN, episodes=3, seed=4, record=tmp_path / "out.hdf5", progress=ended.append)
    assert ended == [1, 1, 1]
    json.dumps(summary)
    assert summary["episodes"] == 3 and summary["out_of_limit"] == 0 and summary["task"] == "reach/fr3"
    assert summary["commands"] > 3 * 1000 and summary["recording"] == str(tmp_path / "out.hdf5")
    assert summary["robot_seconds"] > 15.0
    with EpisodeFile(tmp_path / "out.hdf5") as file:
        assert len(file) == 3 and file.filter("all") == ["demo_0", "demo_1", "demo_2"]
        assert file.spec == reach_spec() and file.env_args["env_name"] == "reach/fr3" and file.env_args["type"] == 2
        assert file.provenance["seed"] == 4 and file.provenance["trained"]["task"] == "reach/fr3"
        targets = []
        for name in file.names:
            episode = file[name]
            assert len(episode["actions"]) == 100
            obs, after = episode["obs"]["state"], episode["next_obs"]["state"]
            assert np.array_equal(obs[1:], after[:-1]) and not np.array_equal(obs[-1], after[-1])
            targets.append(obs[0, -3:])
            assert (obs[:, -3:] == obs[0, -3:]).all()
            assert (episode["verdict"] == 0).all()
            np.testing.assert_allclose(episode["actions"], episode["actions_asked"], atol=1e-7)
            assert episode["dones"].tolist() == episode["truncations"].tolist() == [0] * 99 + [1]
            np.testing.assert_allclose(np.diff(episode["t_mono"]), 0.05)
            tool, _ = forward_kinematics(FR3, after[:, :7].astype(float))
            d = np.linalg.norm(tool - targets[-1], axis=1)
            near = np.exp(-((d / 0.05) ** 2)) + 0.5 * np.exp(-((d / 0.015) ** 2))
            expected = near - 2 * d - 0.01 * (episode["actions"] ** 2).sum(1)
            np.testing.assert_allclose(episode["rewards"], expected, atol=2e-3)
        assert np.unique(targets, axis=0).shape == (3, 3)
        assert (np.array(targets) >= ARENAS["fr3"].low).all() and (np.array(targets) <= ARENAS["fr3"].high).all()


def test_the_same_seed_repeats_a_deployment_and_another_does_not(policy_path):
    def figures(seed, **kwargs):
        summary = deploy(policy_path, TWIN, episodes=2, seed=seed, **kwargs)
        return {k: v for k, v in summary.items() if k != "seconds"}

    first = figures(1)
    assert figures(1, in_process=True) == first
    assert figures(2)["return_mean"] != first["return_mean"]


def test_success_is_judged_by_the_true_tool_over_the_last_ten_steps(policy_path, monkeypatch):
    """A task whose target is where the arm is going to stand: with a policy that does nothing it succeeds."""
    still = PolicyFile(*(lambda f: (f.spec, f.algorithm, f.network, {k: 0 * v for k, v in f.tensors.items()},
                                    f.provenance))(read_policy(policy_path)))  # fmt: skip
    write_policy("still.safetensors", still)

    class Here(Reach):
        off = 0.0

        def reset(self, key, params):
            qpos, qvel, memory = super().reset(key, params)
            return qpos, qvel, {**memory, "target_pos": memory["tool_pos"] + [0.0, self.off, 0.0]}

    monkeypatch.setattr(module, "load_task", lambda name: Here())
    assert deploy("still.safetensors", "twin:fr3", episodes=2, in_process=True)["success_rate"] == 1.0
    monkeypatch.setattr(Here, "off", 0.05)
    assert deploy("still.safetensors", "twin:fr3", episodes=2, in_process=True)["success_rate"] == 0.0


def test_a_task_that_ends_by_itself_ends_the_episode(policy_path, monkeypatch, tmp_path):
    class Short(Reach):
        def terminated(self, state):
            return state.time >= 0.5 - 1e-9

    monkeypatch.setattr(module, "load_task", lambda name: Short())
    deploy(policy_path, "twin:fr3", episodes=1, record=tmp_path / "x.hdf5")
    with EpisodeFile(tmp_path / "x.hdf5") as file:
        episode = file["demo_0"]
        assert episode["terminations"].tolist() == [0] * 9 + [1] and not episode["truncations"].any()
        assert len(episode["next_obs"]["state"]) == 10


def test_a_wild_policy_fails_its_episodes_without_harm(wild_policy_path, tmp_path):
    summary = deploy(wild_policy_path, TWIN, episodes=6, record=tmp_path / "wild.hdf5")
    assert summary["episodes"] == 6 and summary["out_of_limit"] == 0 and summary["success_rate"] == 0.0
    assert summary["faults"] > 0 and summary["rejected"] > 0
    assert "workspace" in summary["fault"] or "collision" in summary["fault"]
    with EpisodeFile(tmp_path / "wild.hdf5") as file:
        assert any((file[name]["verdict"] == 2).any() for name in file.names)
        assert file.filter("failure") == file.names


def test_a_duration_runs_for_so_long_on_the_arms_clock(policy_path):
    summary = deploy(policy_path, "twin:fr3", duration=8.0, in_process=True)
    assert summary["episodes"] == 2 and summary["robot_seconds"] >= 8.0


@pytest.mark.parametrize(
    "kwargs", [{"episodes": 0}, {"episodes": -1}, {"duration": 0.0}, {"episodes": 1, "duration": 1.0}]
)
def test_a_deployment_of_no_length_is_refused(policy_path, kwargs):
    with pytest.raises(UsageError, match="positive number of episodes or a duration"):
        deploy(policy_path, "twin:fr3", **kwargs)


def written(path, spec, task="reach/fr3"):
    network = {"kind": "mlp", "groups": ["state"], "hidden": [4], "activation": "elu", "head": "tanh"}
    tensors = {k: np.zeros(s, np.float32) for k, s in expected_tensors(spec, network).items()}
    write_policy(path, PolicyFile(spec, "x", network, tensors, {"task": task} if task else {}))
    return path


def test_a_policy_that_does_not_fit_is_refused_before_anything_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "Robot", None)
    spec = replace(reach_spec(), robot="ur5e", control_dt=0.033)
    path = written(tmp_path / "p.safetensors", spec)
    with pytest.raises(SpecError, match=r"(?s)robot: the policy is for 'ur5e'.*control_dt: 0.033"):
        deploy(path, "twin:fr3", record=tmp_path / "out.hdf5")
    assert not (tmp_path / "out.hdf5").exists()


def test_what_is_missing_or_unknown_is_one_clear_error(tmp_path, policy_path):
    with pytest.raises(PolicyFileError, match="no policy file"):
        deploy(tmp_path / "no.safetensors", "twin:fr3")
    with pytest.raises(UsageError, match="unknown robot family"):
        deploy(policy_path, "twinn:fr3")
    with pytest.raises(UsageError, match="does not say which task"):
        deploy(written(tmp_path / "t.safetensors", reach_spec(), task=None), "twin:fr3")
    with pytest.raises(UsageError, match="unknown task"):
        deploy(policy_path, "twin:fr3", task="reech/fr3")
    (tmp_path / "taken.hdf5").write_text("mine")
    with pytest.raises(DatasetError, match="exists"):
        deploy(policy_path, "twin:fr3", record=tmp_path / "taken.hdf5")
    assert (tmp_path / "taken.hdf5").read_text() == "mine"


def test_a_killed_deployment_leaves_the_finished_episodes(policy_path, tmp_path):
    out = tmp_path / "out.hdf5"
    code = f"from poise.real_robot.deploy import deploy; deploy({policy_path!r}, 'twin:fr3', 1000, record={str(out)!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.05)
        if out.exists():
            with EpisodeFile(out) as file:  # readable at every moment
                if len(file) >= 2:
                    break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with EpisodeFile(out) as file:
        finished = file.filter("all")
        assert len(finished) >= 1 and len(file) - len(finished) <= 1
        for name in finished:
            assert len(file[name]["actions"]) == 100
