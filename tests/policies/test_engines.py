"""Which engine a run takes, and runs on Warp's CPU device."""

import json

import pytest
import torch

from poise.policies import engines
from poise.policies.engines import choose_engine
from poise.policies.recipes import training_recipe
from poise.policies.run_settings import RunSettings
from poise.policies.train import resume, train

FEW = {"num_envs": 8, "collect_steps": 10, "steps": 160, "evaluations": 1, "eval_episodes": 2, "device": "cpu"}


def run(**settings) -> RunSettings:
    chosen = training_recipe("ppo", "reach/fr3", settings).run
    assert isinstance(chosen, RunSettings)
    return chosen


@pytest.fixture
def gpu(monkeypatch):
    """As if there were one that can be used."""
    monkeypatch.setattr(engines, "gpu_lack", lambda: "")


@pytest.mark.parametrize("settings, task, randomize, name, why", [
    ({"num_envs": 1024}, "reach/fr3", "default", "warp", "1024 worlds"),
    ({"num_envs": 255}, "reach/fr3", "default", "cpu", "fewer than 256"),
    ({"num_envs": 1024, "device": "cpu"}, "reach/fr3", "default", "cpu", "device is cpu"),
    ({"num_envs": 1024, "engine": "cpu"}, "reach/fr3", "default", "cpu", "asked for"),
    ({"num_envs": 1024}, "gym:Hopper-v5", "default", "cpu", "its own simulator"),
    ({"num_envs": 1024}, "reach/fr3", "adr", "cpu", "adapt"),
    ({"num_envs": 1024}, "reach/planar", "none", "cpu", "pictures"),
])  # fmt: skip
def test_auto_takes_the_gpu_where_it_serves(gpu, settings, task, randomize, name, why):
    chosen = choose_engine(run(**settings), task, randomize)
    assert chosen.name == name and why in chosen.why


def test_auto_says_what_the_gpu_lacks(monkeypatch):
    monkeypatch.setattr(engines, "gpu_lack", lambda: "the driver is too old")
    assert str(choose_engine(run(num_envs=512), "reach/fr3", "none")) == (
        "engine cpu: chosen by auto, since the driver is too old"
    )


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_a_run_on_warp_goes_on_where_it_was_stopped(algorithm, tmp_path):
    settings = {**FEW, "engine": "warp"}
    if algorithm == "sac":
        settings |= {"learning_starts": 80, "batch_size": 16, "collect_steps": 1, "hidden": (16,), "capacity": 1000}
    whole = train(algorithm, "reach/planar-state", tmp_path / "whole", settings=settings)
    train(algorithm, "reach/planar-state", tmp_path / "half", settings={**settings, "steps": 80})
    again = resume(tmp_path / "half", steps=160)
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    assert config["engine"] == "warp" and again.steps == whole.steps == 160
    ours, theirs = _tensors(again.policy), _tensors(whole.policy)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


def _tensors(path):
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.learning
def test_ppo_learns_on_warp_what_the_cpu_engine_confirms(tmp_path):
    settings = {"engine": "warp", "device": "cpu", "num_envs": 64, "steps": 100_000, "evaluations": 2}
    result = train("ppo", "reach/planar-state", tmp_path / "run", settings=settings)
    assert result.eval is not None and result.eval.success_rate is not None
    assert result.eval.success_rate >= 0.8
