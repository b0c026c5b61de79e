"""A2C: one update against autograd, RMSprop by hand, and what it refuses."""

import pytest
import torch

from poise.batch import Batch
from poise.errors import UsageError
from poise.policies.a2c import A2C, A2CConfig, rmsprop_
from poise.policies.recipes import recipe
from poise.policies.returns import gae
from poise.spec import ActionTerm, ObsTerm, Spec

GROUPS = {"state": (ObsTerm("x", (3,)),)}
CHOICE = Spec(GROUPS, (ActionTerm("choice", "discrete", n=4),), control_dt=0.1)
PUSH = Spec(GROUPS, (ActionTerm("push", "control", low=(-1.0, -1.0), high=(1.0, 1.0)),), control_dt=0.1)


def rollout(spec: Spec, masked: bool) -> Batch:
    g = torch.Generator().manual_seed(1)
    obs, after = torch.randn(2, 2, 5, 3, generator=g)
    terminated, truncated = torch.zeros(2, 2, 5, dtype=torch.bool)
    terminated[0, 1] = truncated[1, 2] = True
    raw = torch.randn(2, 5, 2, generator=g)
    action = torch.randint(4, (2, 5, 1), generator=g) if spec.discrete else raw.clamp(-1, 1)
    mask = torch.tensor([[True] * 5, [True, True, True, False, True]]) if masked else None
    shared = after.clone()
    shared[:, :-1] = obs[:, 1:]  # the successor of a row is the next one's observation, but at ends
    shared[terminated | truncated] = after[terminated | truncated]
    return Batch({"state": obs}, action, torch.randn(2, 5, generator=g), {"state": shared}, terminated, truncated,
                 mask=mask, extras={} if spec.discrete else {"raw_action": raw})  # fmt: skip


def perceptron(leaves, k: int, x):
    h = x
    for i in range(len(leaves) // 2 - 1):
        h = torch.tanh(h @ leaves[2 * i][k] + leaves[2 * i + 1][k])
    return h @ leaves[-2][k].T + leaves[-1][k]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("spec", [CHOICE, PUSH])
def test_the_gradient_of_an_update_equals_autograd_s(spec, masked):
    config = A2CConfig(hidden=(6, 6), entropy_coef=0.1, value_coef=0.7, gae_lambda=0.8, max_grad_norm=1e9)
    learner, batch = A2C(spec, config, 2, 0), rollout(spec, masked)
    leaves = [p.clone().requires_grad_() for p in learner.networks.params]
    log_std = learner.networks.log_std.clone().requires_grad_()

    value = perceptron(leaves, 1, batch.obs["state"])[..., 0]
    with torch.no_grad():
        after = perceptron(leaves, 1, batch.next_obs["state"])[..., 0]
        advantage = gae(batch.reward, value, after, batch.terminated, batch.truncated, 0.99, 0.8, batch.mask)
    out = perceptron(leaves, 0, batch.obs["state"])
    if spec.discrete:
        pi = torch.distributions.Categorical(logits=out)
        log_prob, entropy = pi.log_prob(batch.action[..., 0]), pi.entropy()
    else:
        pi = torch.distributions.Normal(out, log_std.exp().expand_as(out))
        log_prob, entropy = pi.log_prob(batch.extras["raw_action"]).sum(-1), pi.entropy().sum(-1)
    real = torch.ones(2, 5, dtype=torch.bool) if batch.mask is None else batch.mask
    critic = ((advantage + value.detach()) - value).square()
    loss = (-log_prob * advantage + 0.7 * critic - 0.1 * entropy)[real].mean()
    wanted = torch.autograd.grad(loss, [*leaves, log_std], allow_unused=True)

    learner.update(batch)
    found = [*learner.networks._gradients, learner.networks.d_log_std]
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b.view_as(a), atol=1e-6, rtol=1e-4)


def test_rmsprop_by_hand():
    p, square = torch.tensor([1.0]), torch.tensor([1.0])
    rmsprop_(p, torch.tensor([2.0]), square, rate=0.1, decay=0.75, epsilon=0.25)
    assert square.item() == 1.75  # 3/4 + 4/4
    assert p.item() == pytest.approx(1.0 - 0.1 * 2.0 / 2.0**0.5)


@pytest.mark.parametrize(("change", "message"), [
    ({"learning_rate": float("nan")}, "learning_rate = nan"),
    ({"collect_steps": 0}, "collect_steps = 0: expected at least 1"),
    ({"decay": 1.5}, "decay = 1.5: expected a number from 0 to 1"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        recipe("a2c", None, change)
