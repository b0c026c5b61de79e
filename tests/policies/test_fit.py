"""Fitting to files: exact after a kill, honest about files that changed, and the same policy file as everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from poise.cli import main
from poise.datasets.d4rl_names import normalized_score
from poise.errors import DatasetError, UsageError
from poise.policies.collect import collect
from poise.policies.fit import fit, resume_fit
from poise.policies.policy import load_policy
from poise.policies.train import train

SHORT = {"steps": 200, "evaluations": 0, "checkpoint_seconds": 0.0, "hidden": "32", "batch_size": 32}


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    path = tmp_path_factory.mktemp("demos") / "reach.hdf5"
    collect("reach/fr3", path, episodes=6, noise=0.1)
    return str(path)


def tensors(run) -> dict[str, np.ndarray]:
    return {name: t.numpy() for name, t in load_policy(run.policy).tensors.items()}


def test_a_fit_that_was_cut_short_and_resumed_ends_with_the_very_same_numbers(demos):
    whole = fit("bc", [demos], out="whole", settings={**SHORT, "anneal": False})
    fit("bc", [demos], out="part", settings={**SHORT, "steps": 96, "anneal": False})
    resumed = resume_fit("part", steps=200)
    assert all(np.array_equal(tensor, tensors(resumed)[name]) for name, tensor in tensors(whole).items())


def test_what_was_meant_before_noise_is_learned_where_that_is_asked_for(demos):
    executed, meant = (fit("bc", [demos], out=label, settings={**SHORT, "label": label})
                       for label in ("actions", "actions_asked"))  # fmt: skip
    assert not np.array_equal(tensors(executed)["actor.0.weight"], tensors(meant)["actor.0.weight"])
    with pytest.raises(DatasetError, match=r"demo_0: meant is missing; it has .*actions_asked"):
        fit("bc", [demos], out="none", settings={**SHORT, "label": "meant"})


def test_the_task_is_scored_in_and_the_file_says_what_it_was_fitted_to(demos):
    result = fit("bc", [demos], "reach/fr3", "run", settings={**SHORT, "evaluations": 1, "eval_episodes": 2})
    assert result.eval is not None and result.eval.episodes == 2
    policy = load_policy(result.policy)
    assert policy.provenance["task"] == "reach/fr3" and policy.algorithm == "bc"
    assert len(policy.provenance["config"]["files"]["data"][0]["sha256"]) == 64


def test_held_out_episodes_are_scored_and_never_learned_from(demos):
    collect("reach/fr3", "other.hdf5", episodes=2, seed=9)
    result = fit("bc", [demos], valid=["other.hdf5"], out="run", settings={**SHORT, "log_points": 4})
    lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    errors = [line["valid/action_error"] for line in lines if "valid/action_error" in line]
    assert len(errors) == 4 and errors[-1] < errors[0]
    with h5py.File(demos) as h5:
        mean = np.mean(np.concatenate([h5[f"data/demo_{i}/obs/state"][:] for i in range(6)]), 0)
    assert load_policy(result.policy).tensors["normalizer.mean"].numpy() == pytest.approx(mean, abs=1e-4)


def test_a_file_that_changed_is_refused_at_resume(demos):
    collect("reach/fr3", "mine.hdf5", episodes=1)
    fit("bc", ["mine.hdf5"], out="run", settings=SHORT)
    with h5py.File("mine.hdf5", "r+") as h5:
        h5["data/demo_0/actions"][0] = 0.0
    with pytest.raises(DatasetError, match=r"mine\.hdf5 changed since this run began"):
        resume_fit("run", steps=300)


def test_each_command_points_to_the_other_for_recipes_that_are_not_its_own(demos):
    with pytest.raises(UsageError, match="poise fit bc --data FILE"):
        train("bc", "reach/fr3")
    with pytest.raises(UsageError, match="poise train ppo --task TASK"):
        fit("ppo", [demos])


def test_the_command_fits_resumes_and_ends_with_json(demos, capsys):
    assert (
        main(
            [
                "fit",
                "bc",
                "--data",
                demos,
                "--steps",
                "40",
                "--out",
                "run",
                "--set",
                "evaluations=0",
                "hidden=16",
                "--json",
            ]
        )
        == 0
    )
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["ok"] and said["steps"] == 40 and said["eval"] is None
    assert main(["fit", "--resume", "run", "--steps", "60"]) == 0
    assert "fitted with 60 updates" in capsys.readouterr().out
    assert main(["fit", "--resume", "run", "--data", demos]) == 2
    assert main(["fit", "bc"]) == 2
    with pytest.raises(SystemExit):
        main(["fit", "bc", "--help"])
    assert "batch_size" in capsys.readouterr().out


def test_a_file_that_would_spoil_learning_is_refused_unless_told_to_go_on(demos):
    with h5py.File("bad.hdf5", "w") as copy, h5py.File(demos) as h5:
        h5.copy("data", copy)
        copy["data/demo_0/terminations"][3] = True
    with pytest.raises(DatasetError, match=r"end-inside: demo_0, step 3.*--set check=false"):
        fit("bc", ["bad.hdf5"], out="run", settings=SHORT)
    fit("bc", ["bad.hdf5"], out="told", settings={**SHORT, "check": False})
    with h5py.File("bad.hdf5", "r+") as h5:
        h5["data/demo_0/actions"][3] = np.nan
    with pytest.raises(DatasetError, match="actions holds nan at step 3"):
        fit("bc", ["bad.hdf5"], out="again", settings={**SHORT, "check": False})


def test_returns_are_told_as_d4rls_scores_where_the_data_is_d4rls(demos, tmp_path, capsys):
    named = tmp_path / "hopper-medium-v2.hdf5"
    named.write_bytes(Path(demos).read_bytes())  # what counts is the name
    result = fit("bc", [str(named)], "reach/fr3", "run", settings={**SHORT, "evaluations": 1, "eval_episodes": 2})
    assert result.eval is not None
    expected = normalized_score("hopper-medium-v2", result.eval.return_mean)
    assert result.scores == {"d4rl_score": expected}
    lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["eval/d4rl_score"] for line in lines if "eval/return" in line] == [expected]
    assert load_policy(result.policy).provenance["d4rl_score"] == expected
    told = ["--set", "evaluations=1", "eval_episodes=2", "hidden=16", "d4rl=walker2d-expert-v2", "--json"]
    assert main(["fit", "bc", "--data", demos, "--task", "reach/fr3", "--steps", "20", "--out", "told", *told]) == 0
    out = capsys.readouterr().out
    said = json.loads(out.splitlines()[-1])
    assert said["d4rl_score"] == normalized_score("walker2d-expert-v2", said["eval"]["return_mean"])
    assert "D4RL score:" in out
    with pytest.raises(UsageError, match="no reference returns for carla-town-full-v0"):
        fit("bc", [demos], "reach/fr3", "none", settings={**SHORT, "d4rl": "carla-town-full-v0"})
