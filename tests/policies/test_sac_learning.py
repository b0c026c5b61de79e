"""SAC solves Pendulum-v1 within 10,000 steps in either precision, through the public API."""

import pytest
import torch

import poise
from poise.errors import UsageError


@pytest.mark.learning
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pendulum_in_10_000_steps(seed, precision, tmp_path):
    if precision == "bf16" and not torch.cpu.get_capabilities().get("avx512_bf16", False):
        with pytest.raises(UsageError, match="no avx512_bf16"):
            poise.train("sac", "gym:Pendulum-v1", tmp_path / "run", settings={"precision": precision})
        return
    settings = {"seed": seed, "precision": precision, "evaluations": 0}
    result = poise.train("sac", "gym:Pendulum-v1", tmp_path / "run", settings=settings)
    score = poise.evaluate(poise.load_policy(result.policy), "gym:Pendulum-v1", episodes=20, seed=1000 + seed)
    # upright all the time scores about -150, a random policy -1200
    assert score.return_mean >= -220, score
    print(precision, seed, score)
