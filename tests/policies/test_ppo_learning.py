"""What PPO learns in how many steps, through the public API: the three objectives, and memory where it is needed.

Every check prints its figures: run with -s.
"""

import json

import numpy as np
import pytest

import poise

PENDULUM, HOPPER, HIDDEN = "gym:InvertedPendulum-v5", "gym:Hopper-v5", "gym:poise/CartPoleHidden-v0"


def learn(algorithm: str, task: str, folder, seed: int, **settings):
    """Mean returns of the last and the best policy over 20 fresh episodes, and the run's log."""
    settings = {"seed": seed, "threads": 1, "evaluations": 5, **settings}
    result = poise.train(algorithm, task, folder, settings=settings)
    last, best = (
        poise.evaluate(poise.load_policy(folder / f"{name}.safetensors"), task, 20, seed=1000 + seed).return_mean
        for name in ("policy", "best")
    )
    print(f"{algorithm} {task} {settings}: last {last:.0f}, best {best:.0f} in {result.seconds:.0f} s")
    return last, best, [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def share_near(log, target: float) -> float:
    """How many of the updates in a log have a divergence within a factor of three of the target."""
    seen = np.array([line["policy/kl"] for line in log if "policy/kl" in line])
    return float(((seen >= target / 3) & (seen <= 3 * target)).mean())


@pytest.mark.learning
@pytest.mark.timeout(900)
@pytest.mark.parametrize("algorithm", ["ppo/mujoco", "ppo/kl", "ppo/fixed_kl"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_objective_balances_the_pendulum_in_75_000_steps(algorithm, seed, tmp_path):
    last, _, _ = learn(algorithm, PENDULUM, tmp_path / "run", seed, steps=75_000)
    assert last >= 950  # of 1000


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_hopper_hops_after_300_000_steps(tmp_path):
    scores = [learn("ppo/mujoco", HOPPER, tmp_path / str(seed), seed, steps=300_000)[0] for seed in (0, 1, 2)]
    assert np.mean(scores) >= 1000, scores


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_adaptive_penalty_keeps_the_divergence_near_its_target(tmp_path):
    """And every line of the log is one update: 146 of them."""
    last, _, log = learn("ppo/kl", HOPPER, tmp_path / "run", 0, steps=300_000)
    share = share_near(log, 0.01)
    print(f"divergence within a factor of three of the target: {100 * share:.0f} % of the updates")
    assert share >= 0.8 and last >= 1000


@pytest.mark.learning
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_lstm_balances_a_pole_whose_velocities_are_hidden_and_a_perceptron_does_not(seed, tmp_path):
    recurrent, _, _ = learn("ppo/lstm", HIDDEN, tmp_path / "lstm", seed)
    blind, _, _ = learn("ppo/lstm", HIDDEN, tmp_path / "blind", seed, lstm=0, sequence=0)
    assert recurrent >= 450 > blind
