"""The ladder from REINFORCE to actor-critic on CartPole, one update being 16 whole episodes, and how noisy its
gradients are before the first: every rung by its recipe, three seeds each."""

import time

import numpy as np
import pytest
import torch

from poise.policies.recipes import recipe
from poise.policies.reinforce import Reinforce, credit
from poise.sim.make import make

TASK, SEEDS = "gym:CartPole-v1", (0, 1, 2)
SOLVED = 475.0  # mean return of five updates in a row


class Collector:
    """Batches of whole episodes, each under the policy that the learner has by then."""

    def __init__(self, learner: Reinforce, env, seed: int):
        self.learner, self.env, self.buffer = learner, env, learner.make_buffer()
        self.obs, self.rng = env.reset(seed), np.random.default_rng(seed)

    def batch(self):
        while not self.learner.updates_due(0):
            action, extras, _ = self.learner.act(self.obs, {})
            step = self.env.step(action)
            self.buffer.add(self.obs, action, extras, step)
            self.obs = step.obs
        return self.buffer.sample(self.learner.request, self.rng)


def collector(name: str, seed: int, learner: type[Reinforce] = Reinforce, episodes: int = 16) -> Collector:
    chosen = recipe(name, None, {"episodes": episodes})
    env = make(TASK, 16, seed, threads=1)
    return Collector(learner(env.spec, chosen.settings, 16, seed), env, seed)


def train(name: str, seed: int, updates: int, learner: type[Reinforce] = Reinforce, stop: bool = False):
    """Mean return of every update's episodes, and the first update at which five in a row are `SOLVED`."""
    start, worlds = time.process_time(), collector(name, seed, learner)
    returns, hit = [], None
    for update in range(updates):
        metrics = worlds.learner.update(worlds.batch())
        returns.append(metrics["batch/return"].item())
        if hit is None and update >= 4 and np.mean(returns[-5:]) >= SOLVED:
            hit = update + 1
            if stop:
                break
    cpu = time.process_time() - start
    print(f"{name} seed {seed}: final-10 {np.mean(returns[-10:]):.0f}, best-10 {best(returns):.0f}, "
          f"solved at update {hit or 'never'} of {len(returns)}, {cpu:.0f} CPU-s")  # fmt: skip
    return np.array(returns), hit


def best(returns: list[float]) -> float:
    """The best mean of ten updates in a row."""
    return max(float(np.mean(returns[i : i + 10])) for i in range(max(1, len(returns) - 9)))


@pytest.mark.learning
@pytest.mark.timeout(3600)
def test_rewards_to_go_alone_learn_to_balance():
    finals = [train("reinforce/to_go", seed, 100)[0][-10:].mean() for seed in SEEDS]
    assert sum(final >= 450 for final in finals) >= 2, finals


@pytest.mark.learning
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["reinforce", "actor_critic"])
def test_with_a_critic_it_is_solved_within_60_updates(name):
    hits = [train(name, seed, 60, stop=True)[1] for seed in SEEDS]
    assert all(hits), hits


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["reinforce/total", "reinforce/discount", "reinforce/mean", "reinforce",
                                  "actor_critic"])  # fmt: skip
def test_every_rung_learns_in_100_updates(name):
    finals = [train(name, seed, 100)[0][-10:].mean() for seed in SEEDS]
    assert np.mean(finals) >= 400, finals


class AsPrinted(Reinforce):
    """The lecture's pseudo-code to the letter: parameters are overwritten by their scaled gradients.

    theta <- alpha sum_i sum_t A_t grad log pi(a_t|s_t);   phi <- beta grad sum_i sum_t A_t^2
    """

    def update(self, batch):
        mask, x = batch.mask, self._inputs(batch.obs)
        value = self._outputs(self.critic, x)[..., 0]
        psi, target = credit(batch, value, self._outputs(self.critic, self._inputs(batch.next_obs))[..., 0],
                             self.config, mask)  # fmt: skip
        rows, rate = x[mask], self.config.learning_rate
        gradient, _ = self.gradient(rows, batch.action[..., 0][mask], psi[mask])
        critic = [p.clone().requires_grad_() for p in self.critic]
        with torch.enable_grad():
            error = target[mask] - self._outputs(critic, rows)[..., 0]
            critic_gradient = torch.autograd.grad(error.square().sum(), critic)
        for p, g in zip([*self.actor, *self.critic], [*gradient[: len(self.actor)], *critic_gradient], strict=True):
            p.copy_(rate * g)
        return {"batch/return": batch.reward[mask].sum() / len(mask)}


@pytest.mark.learning
def test_the_actor_critic_as_printed_does_not_learn():
    finals = [train("actor_critic", seed, 100, AsPrinted)[0][-10:].mean() for seed in SEEDS]
    assert max(finals) < 60, finals


def gradient_variance(name: str, seed: int, episodes: int = 400) -> float:
    """Trace of the covariance of one episode's gradient, under the policy before any update."""
    worlds = collector(name, seed, episodes=episodes)
    learner, batch = worlds.learner, worlds.batch()
    x, value, next_value = learner._inputs(batch.obs), None, None
    if learner.config.baseline == "value":
        value = learner._outputs(learner.critic, x)[..., 0]
        next_value = learner._outputs(learner.critic, learner._inputs(batch.next_obs))[..., 0]
    psi, _ = credit(batch, value, next_value, learner.config, batch.mask)
    gradients = [torch.cat([g.flatten() for g in learner.gradient(x[i][m], batch.action[i, :, 0][m], psi[i][m])[0]])
                 for i, m in enumerate(batch.mask)]  # fmt: skip
    return float(torch.stack(gradients).var(0).sum())


@pytest.mark.learning
@pytest.mark.parametrize("seed", SEEDS)
def test_every_rung_makes_the_gradient_less_noisy(seed):
    total, to_go, discount, value, gae = (
        gradient_variance(name, seed)
        for name in ("reinforce/total", "reinforce/to_go", "reinforce/discount", "reinforce", "actor_critic")
    )
    print(f"seed {seed}: variance of one episode's gradient {total:.0f}, {to_go:.0f}, {discount:.0f}, {value:.0f}, "
          f"{gae:.0f}: total, to go, discounted, less an untrained V, GAE")  # fmt: skip
    assert total > 2.5 * to_go and to_go > 2.0 * gae
    assert to_go > discount > gae
