"""The ladder on CartPole-v1: what each rung learns, how much its gradient varies, and what the printed rule does not.

`pytest -m learning tests/policies/test_ladder_learning.py -s` prints the table of docs/results.md.
"""

import time

import numpy as np
import pytest
import torch

from poise.batch import Batch
from poise.policies.recipes import recipe
from poise.policies.reinforce import Reinforce, credit
from poise.sim.make import make

TASK, WORLDS, EPISODES, UPDATES = "gym:CartPole-v1", 16, 16, 100
SEEDS = (0, 1, 2)


class Run:
    """A learner in its worlds, an update at a time."""

    def __init__(self, rung: str, seed: int):
        self.env = make(TASK, WORLDS, seed)
        chosen = recipe(rung, None, {"episodes": EPISODES})
        self.learner = Reinforce(self.env.spec, chosen.settings, WORLDS, seed)
        self.buffer, self.rng = self.learner.make_buffer(), np.random.default_rng(seed)
        self.obs = self.env.reset(seed)

    def collect(self) -> Batch:
        while not self.buffer.ready:
            action, extras, _ = self.learner.act(self.obs, {})
            step = self.env.step(action)
            self.buffer.add(self.obs, action, extras, step)
            self.obs = step.obs
        return self.buffer.sample(self.learner.request, self.rng)


def mean_return(batch: Batch) -> float:
    return batch.reward.sum().item() / len(batch.reward)


def curve(rung: str, seed: int) -> list[float]:
    """Mean return of the episodes of every update."""
    run, returns, start = Run(rung, seed), [], time.process_time()
    for _ in range(UPDATES):
        batch = run.collect()
        returns.append(mean_return(batch))
        run.learner.update(batch)
    hit = next((i + 1 for i in range(4, UPDATES) if np.mean(returns[i - 4 : i + 1]) >= 475), None)
    print(f"\n{rung:<20} seed {seed}: final-10 mean {np.mean(returns[-10:]):5.1f}, 475 at update {hit}, "
          f"{time.process_time() - start:.0f} CPU-s", flush=True)  # fmt: skip
    return returns


def hit(returns: list[float]) -> int:
    return next((i + 1 for i in range(4, UPDATES) if np.mean(returns[i - 4 : i + 1]) >= 475), UPDATES + 1)


@pytest.mark.learning
@pytest.mark.timeout(1200)
def test_rewards_to_go_learn():
    assert sum(np.mean(curve("reinforce/to_go", seed)[-10:]) >= 450 for seed in SEEDS) >= 2


@pytest.mark.learning
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rung", ["reinforce", "actor_critic"])
def test_a_learned_baseline_and_the_actor_critic_learn_within_sixty_updates(rung):
    assert all(hit(curve(rung, seed)) <= 60 for seed in SEEDS)


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rung", ["reinforce/total", "reinforce/discount", "reinforce/mean"])
def test_the_other_rungs_learn_something(rung):
    assert all(np.mean(curve(rung, seed)[-10:]) >= 150 for seed in SEEDS)


def variance(rung: str, seed: int, episodes: int = 128) -> float:
    """Trace of the covariance of one episode's gradient at the start, over so many episodes of the same policy."""
    run, gradients = Run(rung, seed), []
    while len(gradients) < episodes:
        batch = run.collect()
        assert batch.mask is not None
        value = after = None
        if run.learner.config.baseline == "value":
            value, after = (
                run.learner._outputs(run.learner.critic, o["state"])[..., 0] for o in (batch.obs, batch.next_obs)
            )
        psi, _ = credit(batch, value, after, run.learner.config, batch.mask)
        for i, n in enumerate(batch.mask.sum(1).tolist()):
            rows = batch.obs["state"][i, :n], batch.action[i, :n, 0], psi[i, :n]
            gradient, _ = run.learner.gradient(*rows)
            gradients.append(torch.cat([g.flatten() for g in gradient]).clone())
    return torch.stack(gradients).double().var(0).sum().item()


@pytest.mark.learning
@pytest.mark.parametrize("seed", SEEDS)
def test_every_rung_varies_less_than_the_one_below(seed):
    total, to_go, gae = (variance(rung, seed) for rung in ("reinforce/total", "reinforce/to_go", "actor_critic"))
    print(f"\ngradient variance at the start, seed {seed}: total {total:.0f}, to go {to_go:.0f}, GAE {gae:.0f}")
    assert total > 2.5 * to_go and to_go > 2.0 * gae


@pytest.mark.learning
@pytest.mark.parametrize("seed", SEEDS)
def test_the_actor_critic_as_printed_does_not_learn(seed):
    """The slide's update: theta <- alpha dtheta and phi <- beta dphi, in place of steps from where they are."""
    run, returns = Run("reinforce", seed), []
    learner = run.learner
    for _ in range(UPDATES):
        batch = run.collect()
        returns.append(mean_return(batch))
        assert batch.mask is not None
        x, value = batch.obs["state"], learner._outputs(learner.critic, batch.obs["state"])[..., 0]
        psi, target = credit(batch, value, torch.zeros_like(value), learner.config, batch.mask)
        rows = x[batch.mask], batch.action[..., 0][batch.mask], psi[batch.mask] / EPISODES
        gradient, _ = learner.gradient(*rows)
        old = [p.clone() for p in learner.critic]
        learner._fit(x[batch.mask], target[batch.mask])  # for the direction of the critic's step
        for p, g in zip(learner.actor, gradient[:-1], strict=True):
            p.copy_(learner.config.learning_rate * g)
        for p, q in zip(learner.critic, old, strict=True):
            p.sub_(q)
    print(f"\nactor-critic as printed, seed {seed}: final-10 mean {np.mean(returns[-10:]):.1f}")
    assert np.mean(returns[-10:]) < 60
