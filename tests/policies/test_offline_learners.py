"""TD3+BC, IQL and CQL against the papers' losses written out with autograd, several updates in a row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from poise.batch import Batch
from poise.errors import UsageError
from poise.policies.cql import CQL, CQLConfig, conservative_loss
from poise.policies.iql import IQL, IQLConfig, advantage_weight, expectile_loss
from poise.policies.offline_core import DataFacts
from poise.policies.td3_bc import TD3BC, TD3BCConfig
from poise.spec import ActionTerm, ObsTerm, Spec

B, D, A = 6, 4, 2
SPEC = Spec({"state": (ObsTerm("x", (D,)),)}, (ActionTerm("a", "unknown", low=(-1.0,) * A, high=(1.0,) * A),), 0.05)


def batches(count: int) -> list[Batch]:
    g = torch.Generator().manual_seed(3)
    rand = lambda *shape: torch.randn(shape, generator=g)  # noqa: E731
    return [
        Batch({"state": rand(B, D)}, torch.tanh(rand(B, A)), rand(B), {"state": rand(B, D)},
              torch.tensor([False, False, True, False, False, False]), torch.zeros(B, dtype=torch.bool))
        for _ in range(count)
    ]  # fmt: skip


class Plain:
    """A perceptron of a learner's weights, by torch alone."""

    def __init__(self, params, network: int = 0):
        self.params = [p[network].clone().requires_grad_() for p in params]

    def __call__(self, x, factors=None):
        *hidden, (w, b) = zip(self.params[::2], self.params[1::2], strict=True)
        for i, (weight, bias) in enumerate(hidden):
            x = torch.relu(x @ weight + bias)
            x = x * factors[i] if factors else x
        return x @ w.T + b

    def follow(self, other, tau: float) -> None:
        with torch.no_grad():
            for p, q in zip(self.params, other.params, strict=True):
                p.add_(tau * (q - p))

    def close_to(self, params, network: int = 0) -> None:
        for mine, theirs in zip(self.params, params, strict=True):
            torch.testing.assert_close(mine.detach(), theirs[network], rtol=1e-5, atol=1e-5)


def step(optimizer, loss) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def adam(rate: float, *nets):
    return torch.optim.Adam([p for net in nets for p in getattr(net, "params", [net])], lr=rate)


def test_td3_bc_makes_the_updates_of_the_paper():
    c = TD3BCConfig(hidden=(8, 8), batch_size=B, learning_rate=1e-2, tau=0.1, noise=0.3, noise_clip=0.4)
    learner = TD3BC(SPEC, c, DataFacts(), seed=1)
    actor, target_actor = Plain(learner.actor.params), Plain(learner.target_actor)
    critics, targets = ([Plain(p, k) for k in (0, 1)] for p in (learner.critic.params, learner.target_critic))
    actor_adam, critic_adam = adam(1e-2, actor), adam(1e-2, *critics)
    noise = torch.Generator()
    noise.set_state(learner.generator.get_state())
    for i, b in enumerate(batches(6)):
        said = learner.update(b)
        s, s2 = b.obs["state"], b.next_obs["state"]
        eps = (torch.randn((B, A), generator=noise) * 0.3).clamp(-0.4, 0.4)
        with torch.no_grad():
            a2 = (torch.tanh(target_actor(s2)) + eps).clamp(-1, 1)
            q2 = torch.min(*(t(torch.cat([s2, a2], 1))[:, 0] for t in targets))
            y = b.reward + 0.99 * (~b.terminated) * q2
        loss = sum(F.mse_loss(q(torch.cat([s, b.action], 1))[:, 0], y) for q in critics)
        assert said["critic/loss"].item() == pytest.approx(loss.item(), rel=1e-5)
        step(critic_adam, loss)
        if i % 2 == 1:
            pi = torch.tanh(actor(s))
            q = critics[0](torch.cat([s, pi], 1))[:, 0]
            loss = -2.5 / q.abs().mean().detach() * q.mean() + F.mse_loss(pi, b.action)
            assert said["policy/loss"].item() == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)
            step(actor_adam, loss)
            for target, net in zip((*targets, target_actor), (*critics, actor), strict=True):
                target.follow(net, 0.1)
    actor.close_to(learner.actor.params)
    target_actor.close_to(learner.target_actor)
    for k in (0, 1):
        critics[k].close_to(learner.critic.params, k)
        targets[k].close_to(learner.target_critic, k)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_iql_makes_the_updates_of_the_paper(dropout):
    c = IQLConfig(hidden=(8, 8), batch_size=B, learning_rate=1e-2, tau=0.1, expectile=0.8, temperature=2.0,
                  dropout=dropout)  # fmt: skip
    learner = IQL(SPEC, c, DataFacts(returns=(0.0, 500.0)), seed=1, planned_steps=10)
    actor, value = Plain(learner.actor.params), Plain(learner.value.params)
    critics, targets = ([Plain(p, k) for k in (0, 1)] for p in (learner.critic.params, learner.target_critic))
    log_std = torch.zeros(A, requires_grad=True)
    policy_adam = torch.optim.Adam([*actor.params, log_std], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(policy_adam, 10)
    value_adam, critic_adam = adam(1e-2, value), adam(1e-2, *critics)
    rng = torch.Generator()
    rng.set_state(learner.generator.get_state())
    for b in batches(6):
        said = learner.update(b)
        s, s2 = b.obs["state"], b.next_obs["state"]
        x = torch.cat([s, b.action], 1)
        with torch.no_grad():
            next_v = value(s2)[:, 0]
            target_q = torch.min(*(t(x)[:, 0] for t in targets))
        u = target_q - value(s)[:, 0]
        v_loss = ((0.8 - (u < 0).float()).abs() * u**2).mean()
        adv = u.detach()
        step(value_adam, v_loss)
        y = 2.0 * b.reward + 0.99 * (~b.terminated) * next_v
        q_loss = sum(F.mse_loss(q(x)[:, 0], y) for q in critics)
        step(critic_adam, q_loss)
        left_out = [torch.empty(1, B, 8).bernoulli_(1 - dropout, generator=rng)[0] / (1 - dropout) for _ in range(2)]
        mean = torch.tanh(actor(s, left_out if dropout else None))
        log_prob = torch.distributions.Normal(mean, log_std.exp()).log_prob(b.action).sum(1)
        pi_loss = -(torch.exp(2.0 * adv).clamp(max=100.0) * log_prob).mean()
        step(policy_adam, pi_loss)
        schedule.step()
        for loss, name in ((v_loss, "value/loss"), (q_loss, "critic/loss"), (pi_loss, "policy/loss")):
            assert said[name].item() == pytest.approx(loss.item(), rel=1e-5)
        for target, critic in zip(targets, critics, strict=True):
            target.follow(critic, 0.1)
    actor.close_to(learner.actor.params)
    value.close_to(learner.value.params)
    torch.testing.assert_close(learner.log_std, log_std.detach(), rtol=1e-5, atol=1e-5)
    for k in (0, 1):
        critics[k].close_to(learner.critic.params, k)
        targets[k].close_to(learner.target_critic, k)


@pytest.mark.parametrize("changes", [{}, {"gap": 0.5, "max_backup": True, "reward_scale": 10.0, "reward_shift": -5.0}])
def test_cql_makes_the_updates_of_the_paper(changes):
    n, alpha = 3, 5.0
    c = CQLConfig(hidden=(8, 8), batch_size=B, alpha=alpha, samples=n, tau=0.1, learning_rate=1e-2,
                  policy_learning_rate=5e-3, **changes)  # fmt: skip
    learner = CQL(SPEC, c, DataFacts(), seed=1)
    actor = Plain(learner.actor.params)
    critics, targets = ([Plain(p, k) for k in (0, 1)] for p in (learner.critic.params, learner.target_critic))
    log_alpha, log_multiplier = torch.zeros((), requires_grad=True), torch.zeros((), requires_grad=True)
    actor_adam, critic_adam = adam(5e-3, actor), adam(1e-2, *critics)
    alpha_adam = torch.optim.Adam([log_alpha], lr=5e-3)
    multiplier_adam = torch.optim.Adam([log_multiplier], lr=5e-3)
    rng = torch.Generator()
    rng.set_state(learner.generator.get_state())

    def draw(obs, count, noise):
        mean, log_std = actor(obs).chunk(2, -1)
        normal = torch.distributions.Normal(mean, log_std.clamp(-20, 2).exp())
        raw = mean + noise * log_std.clamp(-20, 2).exp()
        a = torch.tanh(raw)
        return a, (normal.log_prob(raw) - torch.log(1 - a**2)).sum(-1)

    for b in batches(5):
        said = learner.update(b)
        s, s2 = b.obs["state"], b.next_obs["state"]
        uniform = torch.rand((n, B, A), generator=rng) * 2 - 1
        noise = torch.randn((n, 2 * B, A), generator=rng)
        backups = n if c.max_backup else 1
        next_noise, pi_noise = torch.randn((backups, B, A), generator=rng), torch.randn((B, A), generator=rng)
        with torch.no_grad():
            here, here_log = draw(s, n, noise[:, :B])
            there, there_log = draw(s2, n, noise[:, B:])
            a2, _ = draw(s2, backups, next_noise)
            x2 = torch.cat([s2.expand(backups, -1, -1), a2], -1)
            next_q = torch.min(*(t(x2)[..., 0].amax(0) for t in targets))
            y = b.reward * c.reward_scale + c.reward_shift + 0.99 * (~b.terminated) * next_q
        loss, diffs = 0.0, []
        multiplier = log_multiplier.exp().detach() if c.gap >= 0 else 1.0
        for q in critics:
            at = lambda a, q=q, s=s: q(torch.cat([s.expand(len(a), -1, -1), a], -1))[..., 0]  # noqa: E731
            cat = torch.cat([at(uniform) + A * math.log(2.0), at(here) - here_log, at(there) - there_log])
            data = at(b.action[None])[0]
            diffs.append((torch.logsumexp(cat, 0) - data).mean())
            loss = loss + F.mse_loss(data, y) + alpha * multiplier * diffs[-1]
        assert said["critic/loss"].item() == pytest.approx(loss.item(), rel=1e-5)
        step(critic_adam, loss)
        a, log_prob = draw(s, 1, pi_noise)
        q = torch.min(*(critic(torch.cat([s, a], 1))[:, 0] for critic in critics))
        step(actor_adam, (log_alpha.exp().detach() * log_prob - q).mean())
        step(alpha_adam, -log_alpha.exp() * (log_prob.detach().mean() - A))
        if c.gap >= 0:
            step(multiplier_adam, -log_multiplier.exp() * alpha * sum(d.detach() - c.gap for d in diffs))
        for target, critic in zip(targets, critics, strict=True):
            target.follow(critic, 0.1)
    actor.close_to(learner.actor.params)
    torch.testing.assert_close(learner.log_alpha, log_alpha.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(learner.log_multiplier, log_multiplier.detach(), rtol=1e-5, atol=1e-5)
    for k in (0, 1):
        critics[k].close_to(learner.critic.params, k)


@pytest.mark.parametrize(
    ("expectile", "value"), [(0.5, 2.0), (0.9, 4.6 / 1.1)]
)  # 0.1 (0 - v + 1 - v) + 0.9 (5 - v) = 0
def test_an_expectile_of_a_half_is_the_mean_and_a_high_one_leans_to_the_best(expectile, value):
    _, d_v = expectile_loss(torch.tensor([0.0, 1.0, 5.0]) - value, expectile)
    assert d_v.sum().item() == pytest.approx(0.0, abs=1e-6)


def test_weights_of_advantages_are_bounded():
    assert advantage_weight(torch.tensor([0.0, 1.0, 50.0]), 3.0).tolist() == pytest.approx([1.0, math.exp(3.0), 100.0])


def test_the_conservative_term_by_hand():
    q = torch.tensor([[[1.0], [2.0], [0.5]], [[0.0], [0.0], [3.0]]])  # two compared actions, then the data's
    log_p = torch.full((2, 1), -math.log(2.0))
    loss, terms, d_q = conservative_loss(q, log_p, torch.tensor([1.0]), 2.0)
    first = math.log(2.0 * (math.e + math.e**2)) - 0.5
    second = math.log(4.0) - 3.0
    assert terms.tolist() == pytest.approx([first, second], rel=1e-6)
    assert loss.item() == pytest.approx(0.25 + 4.0 + 2.0 * (first + second), rel=1e-6)
    share = math.e / (math.e + math.e**2)
    assert d_q[0, :, 0].tolist() == pytest.approx([2 * share, 2 * (1 - share), 2 * (0.5 - 1.0) - 2.0], rel=1e-6)
    clipped = conservative_loss(q, log_p, torch.tensor([1.0]), 2.0, clip_diff=1.0)
    assert clipped[1][1].item() == -1.0 and clipped[2][1, :2, 0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("learner", [(TD3BC, TD3BCConfig), (IQL, IQLConfig), (CQL, CQLConfig)])
def test_a_learner_that_is_saved_goes_on_with_the_very_same_numbers(learner):
    kind, config = learner
    small = config(hidden=(8,), batch_size=B)
    make = lambda seed: kind(SPEC, small, DataFacts(returns=(0.0, 1.0)), seed, planned_steps=20)  # noqa: E731
    one, other = make(1), make(2)
    for b in batches(3):
        one.update(b)
    other.load_state_dict(one.state_dict())
    for b in batches(5):
        said, heard = one.update(b), other.update(b)
        assert {k: v.item() for k, v in said.items()} == {k: v.item() for k, v in heard.items()}
    for name, tensor in one.policy().tensors.items():
        assert np.array_equal(tensor, other.policy().tensors[name])


def test_returns_that_do_not_differ_cannot_scale_rewards():
    with pytest.raises(UsageError, match="scale_rewards: expected episodes of different returns"):
        IQL(SPEC, IQLConfig(), DataFacts(returns=(1.0, 1.0)), seed=0)
