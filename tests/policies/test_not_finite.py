"""NaN in training: no learner trains on, and no checkpoint or policy file holds one."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import poise
from poise.errors import RunError
from poise.policies import train as training
from poise.policies.metrics import not_finite
from poise.policies.policy_file import read_policy
from poise.policies.recipes import recipe, recipes_of
from poise.policies.run_settings import RunSettings

SMALL = {
    "a2c": {"hidden": "8"},
    "actor_critic": {"hidden": "8", "episodes": 4},
    "reinforce": {"hidden": "8", "episodes": 4},
    "dqn": {"hidden": "8", "batch_size": 8, "learning_starts": 8, "capacity": 64, "epsilon_steps": 0},
    "ppo": {"collect_steps": 16, "hidden": "8", "minibatches": 2},
    "ppo/lstm": {"collect_steps": 16, "hidden": "8", "lstm": 4, "sequence": 8, "minibatches": 2},
    "sac": {"hidden": "8,8", "batch_size": 8, "learning_starts": 8, "capacity": 64, "compile": "off"},
}
RUN = {"steps": 2000, "num_envs": 4, "evaluations": 1, "eval_episodes": 1, "log_points": 500, "checkpoint_seconds": 0,
       "threads": 1}  # fmt: skip
LEARNERS = sorted(name for name in recipes_of(RunSettings) if name not in ("dqn/nature", "dqn/2013", "sac/pixels"))


@pytest.fixture
def poison(monkeypatch):
    """From the third update on, one reward of every batch is NaN."""

    def wrap(learner):
        update, calls = learner.update, []

        def poisoned(batch):
            calls.append(1)
            if len(calls) > 2:
                reward = batch.reward.clone()
                reward.view(-1)[0] = float("nan")
                batch = dataclasses.replace(batch, reward=reward)
            return update(batch)

        learner.update = poisoned
        return learner

    def poisoned_recipe(*arguments):
        chosen = recipe(*arguments)
        return dataclasses.replace(chosen, learner=lambda *a, **k: wrap(chosen.learner(*a, **k)))

    monkeypatch.setattr(training, "training_recipe", poisoned_recipe)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_poisoned_batch_stops_every_learner_and_leaves_a_sound_checkpoint(name, tmp_path, poison):
    task = "gym:CartPole-v1" if name.startswith("dqn") else "gym:InvertedPendulum-v5"
    settings = {**RUN, **(SMALL.get(name) or SMALL[name.partition("/")[0]])}
    with pytest.raises(RunError, match=r"is not finite at step \d+; the run stops; last good checkpoint: .*checkpoint"):
        poise.train(name, task, tmp_path / "run", settings=settings)
    assert not (tmp_path / "run" / "policy.safetensors").exists()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) < 400, "it stopped early"
    assert all(np.isfinite(list(json.loads(line).values())).all() for line in lines)


def test_the_named_checkpoint_is_finite_and_goes_on(tmp_path, poison, monkeypatch):
    settings = {**RUN, **SMALL["ppo"]}
    with pytest.raises(RunError):
        poise.train("ppo", "gym:InvertedPendulum-v5", tmp_path / "run", settings=settings)
    monkeypatch.undo()
    result = training.resume(tmp_path / "run", steps=640)
    assert all(np.isfinite(x).all() for x in read_policy(result.policy).tensors.values())


def test_weights_that_are_not_finite_are_not_saved_though_every_loss_was(tmp_path, monkeypatch):
    def broken_recipe(*arguments):
        chosen = recipe(*arguments)

        def make(*a, **k):
            learner = chosen.learner(*a, **k)
            update, calls = learner.update, []

            def last(batch):
                metrics = update(batch)
                calls.append(1)
                if len(calls) == 3:
                    learner.networks.log_std.fill_(float("inf"))
                return metrics

            learner.update = last
            return learner

        return dataclasses.replace(chosen, learner=make)

    monkeypatch.setattr(training, "training_recipe", broken_recipe)
    settings = {**RUN, **SMALL["ppo"], "log_points": 1, "evaluations": 0, "steps": 192}
    with pytest.raises(RunError, match="of the learner is not finite"):
        poise.train("ppo", "gym:InvertedPendulum-v5", tmp_path / "run", settings=settings)


def test_what_is_not_finite_is_named_by_its_path():
    assert not_finite({"a": 1.0, "b": {"c": [torch.ones(2), np.zeros(2)]}, "n": 3, "t": "nan", "none": None}) == ""
    assert not_finite({"a": 1.0, "b": {"c": [torch.ones(2), np.array([1.0, np.nan])]}}) == "b/c/1"
    assert not_finite({"x": torch.tensor([1.0, float("inf")])}) == "x"
    assert not_finite({"x": float("-inf")}) == "x"


def test_worlds_that_broke_are_counted_in_the_metrics(tmp_path, monkeypatch):
    import gymnasium

    class Breaks(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

        def reset(self, *, seed=None, options=None):
            self.steps = 0
            return np.zeros(2, np.float32), {}

        def step(self, action):
            self.steps += 1
            return np.zeros(2, np.float32), float("nan") if self.steps == 30 else 1.0, False, self.steps == 50, {}

    monkeypatch.setitem(gymnasium.registry, "Breaks-v0", gymnasium.envs.registration.EnvSpec("Breaks-v0", Breaks))
    settings = {**RUN, **SMALL["ppo"], "steps": 256, "log_points": 4, "evaluations": 0}
    poise.train("ppo", "gym:Breaks-v0", tmp_path / "run", settings=settings)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["train/bad_worlds"] for line in lines] == [0.0, 4.0, 4.0, 8.0]
