"""SAC solves Pendulum-v1 within 10,000 steps, through the public API."""

import pytest

import poise

# a policy that keeps the pendulum upright scores about -150, a random one -1200
SETTINGS = {"num_envs": 1, "steps": 10_000, "learning_rate": 1e-3, "learning_starts": 500, "capacity": 10_000,
            "evaluations": 0}  # fmt: skip


@pytest.mark.learning
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pendulum_in_10_000_steps(seed, tmp_path):
    result = poise.train("sac", "gym:Pendulum-v1", tmp_path / "run", settings={**SETTINGS, "seed": seed})
    score = poise.evaluate(poise.load_policy(result.policy), "gym:Pendulum-v1", episodes=20, seed=1000 + seed)
    assert score.return_mean >= -220, score
