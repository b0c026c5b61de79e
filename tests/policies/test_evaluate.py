"""Evaluation: which steps count in a score, whatever the worlds do at an episode's end, and what the command prints."""

import json

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import poise
from poise.cli import main
from poise.errors import SpecError, UsageError
from poise.policies.evaluate import evaluate, run_round
from poise.policies.policy import Policy
from poise.policies.statistics import aggregate, bootstrap_interval, iqm
from poise.sim.gymnasium_adapter import GymVecEnv


class Alternates:
    """Pushes left and right in turn, and counts in its state how many steps of the episode it has seen."""

    def __init__(self, spec):
        self.spec, self.seen = spec.for_policy_file(), 0

    def initial_state(self, n):
        return {"count": torch.zeros(n, 1, dtype=torch.int64)}

    def act(self, obs, state):
        assert all(x.device.type == "cpu" for x in obs.values())
        self.seen = max(self.seen, int(state["count"].max()))
        return (state["count"] % 2)[:, None], {"count": state["count"] + 1}


def spec_of(task):
    env = poise.make(task)
    env.close()
    return env.spec


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_round_counts_the_first_episode_of_every_world_alone_in_every_reset_mode(mode):
    make = [lambda: gymnasium.make("CartPole-v1", disable_env_checker=True)] * 5
    env = GymVecEnv(SyncVectorEnv(make, autoreset_mode=mode), name="CartPole-v1")
    policy = Alternates(env.spec)
    returns, lengths, success = run_round(policy, env, seed=3)
    assert success is None and torch.equal(returns, lengths), "CartPole pays 1 a step"
    assert returns.min() >= 8 and policy.seen + 1 >= returns.max()
    assert torch.equal(run_round(policy, env, seed=3)[0], returns), "the seed fixes every episode"
    env.close()


def test_the_state_of_a_policy_starts_anew_with_every_episode_and_round(monkeypatch):
    monkeypatch.setattr("poise.policies.evaluate.MOST_WORLDS", 2)
    policy = Alternates(spec_of("gym:CartPole-v1"))
    result = evaluate(policy, "gym:CartPole-v1", episodes=6, seed=1)
    assert policy.seen == result.return_max - 1, "no state outlived an episode"


def test_what_an_evaluation_says_follows_from_its_returns():
    result = evaluate(Alternates(spec_of("gym:CartPole-v1")), "gym:CartPole-v1", episodes=12, seed=2)
    returns = np.array(result.returns)
    assert len(returns) == result.episodes == 12
    assert result.return_mean == returns.mean() and result.return_iqm == iqm(returns)
    assert (result.iqm_low, result.iqm_high) == bootstrap_interval([returns], iqm, seed=2)
    assert result.return_low <= result.return_mean <= result.return_high
    assert (result.success_rate, result.success_low, result.success_high) == (None, None, None)
    assert "returns" not in result.to_json() and result.to_json(returns=True)["returns"] == returns.tolist()


def test_a_success_rate_comes_with_its_interval():
    class Still(Alternates):
        def act(self, obs, state):
            return torch.zeros(len(obs["state"]), 1, self.spec.action_dim), state

    result = evaluate(Still(spec_of("reach/fr3")), "reach/fr3", episodes=4)
    assert result.success_rate == 0.0 == result.success_low
    assert result.success_high == pytest.approx(0.4899, abs=1e-4)  # Wilson: z² / (4 + z²)


def test_what_cannot_be_scored_is_refused():
    policy = Alternates(spec_of("gym:CartPole-v1"))
    with pytest.raises(UsageError, match="episodes = 0"):
        evaluate(policy, "gym:CartPole-v1", episodes=0)
    with pytest.raises(SpecError, match="does not fit gym:Pendulum-v1"):
        evaluate(policy, "gym:Pendulum-v1", episodes=1)


# ---- on the command line -----------------------------------------------------------------------


@pytest.fixture
def policies(tmp_path):
    """Two files of policies of CartPole, one that always pushes left and one that leans against the pole."""
    spec, paths = spec_of("gym:CartPole-v1"), []
    for name, row in (("left", [0.0, 0.0, 0.0, 0.0]), ("leans", [0.0, 0.0, 1.0, 0.5])):
        tensors = {"actor.0.weight": torch.tensor([[0.0] * 4, row]), "actor.0.bias": torch.zeros(2)}
        network = {"kind": "mlp", "groups": ["state"], "hidden": [], "activation": "relu", "head": "argmax"}
        policy = Policy(spec, "test", network, tensors, {"task": "gym:CartPole-v1"})
        paths.append(str(tmp_path / f"{name}.safetensors"))
        policy.save(paths[-1])
    return paths


def call(capsys, *arguments):
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_eval_prints_intervals_and_gives_every_return_when_asked(capsys, policies):
    code, out, err = call(capsys, "eval", policies[1], "--episodes", "8", "--returns", "--json")
    assert code == 0, err
    assert "IQM" in out and out.count("95 % interval") == 2
    score = json.loads(out.splitlines()[-1])["eval"]
    assert np.mean(score["returns"]) == score["return_mean"] > 100
    assert score["return_low"] <= score["return_mean"] <= score["return_high"]


def test_eval_of_several_policies_aggregates_over_them(capsys, policies):
    code, out, err = call(capsys, "eval", *policies, "--episodes", "8", "--returns", "--json")
    assert code == 0, err
    assert "worst run" in out and "left.safetensors" in out.split("worst run")[1]
    result = json.loads(out.splitlines()[-1])
    assert result["aggregate"] == aggregate([e["returns"] for e in result["evals"]], 1000).to_json()
    assert result["aggregate"]["worst_mean"] < 12 < result["aggregate"]["return_mean"]


def test_several_policies_are_of_one_task_and_are_not_filmed(capsys, policies, tmp_path):
    code, _, err = call(capsys, "eval", *policies, "--video", "x.mp4")
    assert code == 2 and "--video films one policy" in err
    policy = poise.load_policy(policies[0])
    policy.provenance["task"] = "gym:Acrobot-v1"
    policy.save(tmp_path / "other.safetensors")
    code, _, err = call(capsys, "eval", policies[1], str(tmp_path / "other.safetensors"))
    assert code == 2 and "one score needs one task" in err


def test_eval_films_a_policy_of_choices(capsys, policies, tmp_path):
    code, out, err = call(
        capsys, "eval", policies[0], "--episodes", "2", "--video", "pole.mp4", "--video-episodes", "1"
    )
    assert code == 0, err
    assert (tmp_path / "pole.mp4").stat().st_size > 1000 and "pole.mp4" in out
