"""SAC solves Pendulum-v1 within 10,000 steps, through the public API."""

import pytest

import poise


@pytest.mark.learning
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pendulum_in_10_000_steps(seed, tmp_path):
    result = poise.train("sac", "gym:Pendulum-v1", tmp_path / "run", settings={"seed": seed, "evaluations": 0})
    score = poise.evaluate(poise.load_policy(result.policy), "gym:Pendulum-v1", episodes=20, seed=1000 + seed)
    # upright all the time scores about -150, a random policy -1200
    assert score.return_mean >= -220, score
    print(seed, score)
