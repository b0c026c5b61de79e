"""What SAC learns in how many steps, through the public API: Pendulum in either precision, HalfCheetah, the recipe
sac/large beside the plain one, and a reach that only a camera can solve. CartPole is in test_sac_discrete.py."""

import json

import numpy as np
import pytest
import torch

import poise
from poise.errors import UsageError

HAS_BF16 = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
PRECISION = "bf16" if HAS_BF16 else "fp32"  # of the long checks, whose bars hold in either


def learn(algorithm: str, task: str, folder, seed: int, episodes: int = 20, **settings):
    """The evaluation of the last policy on fresh episodes, and the CPU-seconds that training took."""
    settings = {"seed": seed, "threads": 1, "evaluations": 0, **settings}
    result = poise.train(algorithm, task, folder, settings=settings)
    randomize = "default" if task.startswith("reach/") else "none"
    policy = poise.load_policy(result.policy)
    score = poise.evaluate(policy, task, episodes, seed=1000 + seed, randomize=randomize)
    print(f"{algorithm} {task} seed {seed} {settings}: {score} in {result.seconds:.0f} s")
    return score


@pytest.mark.learning
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pendulum_in_10_000_steps(seed, precision, tmp_path):
    if precision == "bf16" and not HAS_BF16:
        with pytest.raises(UsageError, match="no avx512_bf16"):
            poise.train("sac", "gym:Pendulum-v1", tmp_path / "run", settings={"precision": precision})
        return
    score = learn("sac", "gym:Pendulum-v1", tmp_path / "run", seed, precision=precision)
    assert score.return_mean >= -220, score  # upright all the time scores about -150, a random policy -1200


@pytest.mark.learning
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pendulum_in_as_many_steps_where_actors_collect_them_meanwhile(seed, tmp_path):
    score = learn("sac", "gym:Pendulum-v1", tmp_path / "run", seed, collect="async", actors=1)
    assert score.return_mean >= -220, score
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    print({name: value for name, value in last.items() if name.startswith("async/")})
    assert last["async/staleness_max"] <= 4  # versions, max_lead rows with an update each


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(7200)
def test_halfcheetah_in_100_000_steps(tmp_path):
    scores = [learn("sac", "gym:HalfCheetah-v5", tmp_path / str(seed), seed, steps=100_000, precision=PRECISION)
              for seed in (0, 1)]  # fmt: skip
    assert np.mean([score.return_mean for score in scores]) >= 3500


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("task", ["gym:HalfCheetah-v5", "gym:Walker2d-v5"])
def test_the_large_recipe_beats_the_plain_one_at_100_000_steps(task, tmp_path):
    means = {}
    for algorithm in ("sac", "sac/large"):
        scores = [learn(algorithm, task, tmp_path / algorithm.replace("/", "-") / str(seed), seed, 20, steps=100_000,
                        precision=PRECISION) for seed in (0, 1)]  # fmt: skip
        means[algorithm] = float(np.mean([score.return_mean for score in scores]))
    print(task, means)
    assert means["sac/large"] > means["sac"]


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_reach_that_only_a_camera_can_solve(tmp_path):
    score = learn("sac/pixels", "reach/planar", tmp_path / "run", 0, 100, precision=PRECISION)
    assert score.success_rate is not None and score.success_rate >= 0.8, score
