"""What DQN learns in how many steps, through the public API: CartPole, LunarLander, and Catch from pixels.

A greedy policy of Q-learning swings from one evaluation to the next, so the bars are for the best of the last three.
"""

import json
import time

import numpy as np
import pytest

import poise

LAST = 3  # evaluations that count


def learn(algorithm: str, task: str, folder, seed: int, **settings) -> float:
    """The best of the last evaluations of a run by the recipe; prints them all, and the CPU-seconds."""
    start = time.process_time()
    result = poise.train(algorithm, task, folder, settings={"seed": seed, "threads": 1, **settings})
    lines = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    returns = [line["eval/return"] for line in lines if "eval/return" in line]
    best = max(returns[-LAST:])
    print(f"{algorithm} {task} seed {seed}: last {returns[-1]:.2f}, best of the last {LAST} {best:.2f}, "
          f"{time.process_time() - start:.0f} CPU-s; {' '.join(f'{r:.2f}' for r in returns)}")  # fmt: skip
    return best


@pytest.mark.learning
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cartpole_in_50_000_steps(seed, tmp_path):
    assert learn("dqn", "gym:CartPole-v1", tmp_path / "run", seed) >= 475


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_lunarlander_in_150_000_steps(tmp_path):
    best = [learn("dqn", "gym:LunarLander-v3", tmp_path / str(seed), seed) for seed in (0, 1, 2)]
    print(f"mean {np.mean(best):.1f}")
    assert np.mean(best) >= 200


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_catch_from_pixels_in_40_000_steps(seed, tmp_path):
    assert learn("dqn/nature", "gym:poise/Catch-v0", tmp_path / "run", seed) >= 0.9
