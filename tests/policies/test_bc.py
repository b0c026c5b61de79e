"""Behaviour cloning: its losses and gradients against autograd, and tiny problems with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poise.batch import Batch
from poise.normalizer import Normalizer
from poise.policies.bc import BC, BCConfig, gaussian_nll
from poise.policies.offline_core import DataFacts
from poise.spec import ActionTerm, ObsTerm, Spec

SPEC = Spec({"state": (ObsTerm("x", (3,)),)}, (ActionTerm("a", "unknown", low=(-1.0, -1.0), high=(1.0, 1.0)),), 0.05)
CHOICE = Spec({"state": (ObsTerm("x", (3,)),)}, (ActionTerm("a", "discrete", n=4),), 0.05)


def batch(obs: torch.Tensor, action: torch.Tensor) -> Batch:
    never = torch.zeros(len(obs), dtype=torch.bool)
    return Batch({"state": obs}, action, torch.full((len(obs),), torch.nan), {}, never, never)


def test_a_deterministic_update_is_one_step_of_adam_on_the_mean_squared_error():
    learner = BC(SPEC, BCConfig(hidden=(8,), batch_size=5, anneal=False), DataFacts(), seed=0)
    plain = [p.clone().requires_grad_() for p in learner.actor.params]
    optimizer = torch.optim.Adam(plain, lr=1e-3)
    for _ in range(5):
        obs, action = torch.randn(5, 3), torch.rand(5, 2) * 2 - 1
        hidden = torch.relu(obs @ plain[0][0] + plain[1][0])
        loss = (hidden @ plain[2][0].T + plain[3][0] - action).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert learner.update(batch(obs, action))["policy/loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for mine, theirs in zip(learner.actor.params, plain, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_the_gaussian_loss_is_torchs_own_and_so_is_its_derivative():
    out = (3.0 * torch.randn(7, 4, dtype=torch.float64)).requires_grad_()
    action = torch.rand(7, 2, dtype=torch.float64)
    mean, log_std = out.chunk(2, -1)
    expected = -torch.distributions.Normal(mean, log_std.clamp(-5.0, 2.0).exp()).log_prob(action).sum(-1).mean()
    loss, d_out = gaussian_nll(out.detach(), action)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    inside = torch.cat([torch.ones(7, 2, dtype=torch.bool), (log_std > -5.0) & (log_std < 2.0)], -1)
    gradient = torch.autograd.grad(expected, out)[0]
    torch.testing.assert_close(d_out[inside], gradient[inside], rtol=1e-10, atol=1e-12)


def test_a_linear_teacher_is_learned_and_a_held_out_error_says_so():
    rng = torch.Generator().manual_seed(0)
    teacher = torch.tensor([[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]])
    normalizer = Normalizer(3)
    normalizer.update(torch.randn(1000, 3, generator=rng))
    learner = BC(SPEC, BCConfig(hidden=(32,), batch_size=64), DataFacts(normalizer), seed=1, planned_steps=1500)
    for _ in range(1500):
        obs = torch.randn(64, 3, generator=rng)
        learner.update(batch(obs, (obs @ teacher).clamp(-1, 1)))
    obs = torch.randn(256, 3, generator=rng)
    held_out = batch(obs, (obs @ teacher).clamp(-1, 1))
    assert learner.score(held_out)["action_error"].item() < 0.04
    acted, _ = learner.policy().act({"state": obs}, {})
    assert (acted[:, 0] - held_out.action).abs().mean().item() < 0.04


def test_choices_are_learned_by_cross_entropy():
    rng = torch.Generator().manual_seed(0)
    learner = BC(CHOICE, BCConfig(hidden=(32,), batch_size=64), DataFacts(), seed=1)
    for _ in range(400):
        obs = torch.randn(64, 3, generator=rng)
        learner.update(batch(obs, (obs[:, :1] > 0).long() + 2 * (obs[:, 1:2] > 0).long()))
    obs = torch.randn(256, 3, generator=rng)
    right = (obs[:, :1] > 0).long() + 2 * (obs[:, 1:2] > 0).long()
    assert learner.score(batch(obs, right))["accuracy"].item() > 0.9
    assert np.mean(learner.policy().act({"state": obs}, {})[0][:, 0].numpy() == right.numpy()) > 0.9


def test_gaussian_deviations_follow_the_noise_of_the_demonstrations():
    rng = torch.Generator().manual_seed(0)
    learner = BC(SPEC, BCConfig(head="gaussian", hidden=(32,), batch_size=128), DataFacts(), seed=1, planned_steps=1500)
    for _ in range(1500):
        obs = torch.randn(128, 3, generator=rng)
        learner.update(batch(obs, 0.2 * torch.randn(128, 2, generator=rng)))
    loss = learner.score(batch(torch.randn(512, 3, generator=rng), 0.2 * torch.randn(512, 2, generator=rng)))["loss"]
    entropy = 2 * 0.5 * np.log(2 * np.pi * np.e * 0.04)  # of two Gaussians of deviation 0.2
    assert loss.item() == pytest.approx(entropy, abs=0.1)
