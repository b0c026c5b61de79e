"""A2C: one update against the same in autograd and Stable-Baselines3's RMSprop, and what it must not do."""

import pytest
import torch

from poise.batch import Batch
from poise.errors import UsageError
from poise.policies.a2c import A2C, A2CConfig, rmsprop_
from poise.policies.ppo_update import ACTOR, CRITIC
from poise.spec import ActionTerm, ObsTerm, Spec

OBS = {"state": (ObsTerm("x", (3,)),)}
CHOICES = Spec(OBS, (ActionTerm("a", "discrete", n=4),), 0.1)
PUSHES = Spec(OBS, (ActionTerm("a", "control", low=(-1.0, -1.0), high=(1.0, 1.0)),), 0.1)
N, T = 2, 5


def rollout(spec: Spec, seed: int = 0, mask: torch.Tensor | None = None) -> Batch:
    """A rollout whose first world ends at step 1 and runs out of time at step 3."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(N, T + 1, 3, generator=generator)
    terminated, truncated = torch.zeros(2, N, T, dtype=torch.bool)
    terminated[0, 1] = truncated[0, 3] = True
    after = frames[:, 1:].clone()
    after[0, [1, 3]] = torch.randn(2, 3, generator=generator)
    extras = {}
    if spec.discrete:
        action = torch.randint(4, (N, T, 1), generator=generator)
    else:
        extras["raw_action"] = torch.randn(N, T, 2, generator=generator)
        action = extras["raw_action"].clamp(-1, 1)
    return Batch({"state": frames[:, :-1]}, action, torch.randn(N, T, generator=generator), {"state": after},
                 terminated, truncated, mask, extras=extras)  # fmt: skip


def written_plainly(learner: A2C, batch: Batch, weight: torch.Tensor):
    """(parameters as leaves, their gradients clipped together, mean squared error of the critic)."""
    config, spec = learner.config, learner.spec
    params = [p.clone().requires_grad_() for p in learner.networks.params]
    log_std = learner.networks.log_std.clone().requires_grad_()

    activate = {"tanh": torch.tanh, "relu": torch.relu, "elu": torch.nn.functional.elu}[config.activation]

    def outputs(x, k):
        h = activate(x @ params[0][k] + params[1][k, 0])
        h = activate(h @ params[2][k] + params[3][k, 0])
        return h @ params[4][k].T + params[5][k, 0]

    value = outputs(batch.obs["state"], CRITIC)[..., 0]
    with torch.no_grad():
        after = outputs(batch.next_obs["state"], CRITIC)[..., 0]
        delta = batch.reward + config.discount * after * ~batch.terminated - value
        advantage, carry = torch.zeros_like(delta), torch.zeros(N)
        for t in reversed(range(T)):
            carry = delta[:, t] + config.discount * config.gae_lambda * carry * ~batch.done[:, t]
            if batch.mask is not None:
                carry = torch.where(batch.mask[:, t], carry, 0.0)
            advantage[:, t] = carry
        target = advantage + value
    out = outputs(batch.obs["state"], ACTOR)
    if spec.discrete:
        pi, action = torch.distributions.Categorical(logits=out), batch.action[..., 0]
        log_prob, entropy = pi.log_prob(action), pi.entropy()
    else:
        pi = torch.distributions.Normal(out, log_std.exp())
        log_prob, entropy = pi.log_prob(batch.extras["raw_action"]).sum(-1), pi.entropy().sum(-1)
    value_loss = ((value - target).square() * weight).sum()
    loss = (-log_prob * advantage * weight - config.entropy_coef * entropy * weight).sum()
    loss = loss + config.value_coef * value_loss
    leaves = params if spec.discrete else [*params, log_std]
    gradient = list(torch.autograd.grad(loss, leaves))
    norm = torch.cat([g.flatten() for g in gradient]).norm()
    gradient = [g * (config.max_grad_norm / (norm + 1e-6)).clamp_max(1.0) for g in gradient]
    return [leaf.detach() for leaf in leaves], gradient, value_loss.item()


@pytest.mark.parametrize("spec", [CHOICES, PUSHES], ids=["choices", "pushes"])
@pytest.mark.parametrize("settings", [
    {}, {"gae_lambda": 0.9, "entropy_coef": 0.05, "max_grad_norm": 0.01}, {"activation": "relu"}, {"activation": "elu"}
])  # fmt: skip
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("small", [False, True])
def test_an_update_equals_one_written_plainly_under_autograd(small, masked, settings, spec):
    mask = None
    if masked:
        mask = torch.ones(N, T, dtype=torch.bool)
        mask[0, 2] = False  # the step in which a simulator reset itself
    learner = A2C(spec, A2CConfig(hidden=(6, 5), **settings), N, 0)
    assert learner.small is not None  # in numpy
    if not small:
        learner.small = None
    weight = torch.full((N, T), 1 / (N * T)) if mask is None else mask / mask.sum()
    for seed in range(2):  # the second update starts from another mean square
        batch = rollout(spec, seed, mask)
        square = learner.networks.second.clone()
        leaves, gradient, value_loss = written_plainly(learner, batch, weight)
        metrics = learner.update(batch)
        start = 0
        ours = learner.networks.params if spec.discrete else [*learner.networks.params, learner.networks.log_std]
        found = learner.networks.gradient.split([p.numel() for p in ours] if not spec.discrete else
                                                [*(p.numel() for p in ours), 0])  # fmt: skip
        for mine, p, d, g in zip(ours, leaves, found, gradient, strict=False):
            torch.testing.assert_close(d.view_as(g), g, atol=1e-6, rtol=1e-4)
            s = square[start : start + p.numel()].view_as(p)
            start += p.numel()
            s = 0.99 * s + 0.01 * g.square()
            torch.testing.assert_close(mine, p - learner.config.learning_rate * g / (s + 1e-5).sqrt())
        assert metrics["critic/loss"].item() == pytest.approx(value_loss, rel=1e-5)


def test_the_step_is_tensorflow_s_rmsprop():
    p, square = torch.tensor([1.0]), torch.tensor([1.0])
    rmsprop_(p, torch.tensor([2.0]), square, 0.1, 0.9, 0.5)
    assert square.item() == pytest.approx(0.9 * 1 + 0.1 * 4)
    assert p.item() == pytest.approx(1 - 0.1 * 2 / (1.3 + 0.5) ** 0.5)


def test_the_defaults_are_those_of_stable_baselines3():
    config = A2CConfig()
    assert (config.learning_rate, config.collect_steps, config.discount, config.gae_lambda) == (7e-4, 5, 0.99, 1.0)
    assert (config.value_coef, config.entropy_coef, config.max_grad_norm) == (0.5, 0.0, 0.5)
    assert (config.hidden, config.activation, config.decay, config.epsilon) == ((64, 64), "tanh", 0.99, 1e-5)


def test_updates_make_good_choices_likelier_and_values_approach_the_return():
    """One state, one step: the second of two choices pays."""
    spec = Spec(OBS, (ActionTerm("a", "discrete", n=2),), 0.1)
    learner = A2C(spec, A2CConfig(hidden=(8, 8), learning_rate=0.02), 16, 0)
    obs = {"state": torch.ones(16, 3)}
    for _ in range(300):
        actions = torch.stack([learner.act(obs, {})[0] for _ in range(5)], 1)  # (16, 5, 1)
        reward, ends = actions[..., 0].float(), torch.ones(16, 5, dtype=torch.bool)
        frames = {"state": torch.ones(16, 5, 3)}
        metrics = learner.update(Batch(frames, actions, reward, frames, ends, ~ends))
    assert reward.mean() > 0.95 and metrics["critic/loss"] < 0.1
    assert learner.policy().act(obs, {})[0].eq(1).all()


def test_a_reward_that_is_not_a_number_shows_in_the_metrics():
    learner, batch = A2C(CHOICES, A2CConfig(hidden=(4, 4)), N, 0), rollout(CHOICES)
    batch.reward[0, 0] = torch.nan
    metrics = learner.update(batch)
    assert metrics["critic/loss"].isnan() and metrics["grad_norm"].isnan()


@pytest.mark.parametrize(("change", "message"), [
    ({"learning_rate": float("nan")}, "learning_rate = nan: expected a number above 0"),
    ({"epsilon": 0.0}, "epsilon = 0.0"),
    ({"decay": 2.0}, "decay = 2.0: expected a number from 0 to 1"),
    ({"entropy_coef": -1.0}, "entropy_coef"),
    ({"max_grad_norm": 0.0}, "max_grad_norm"),
    ({"collect_steps": 0}, "collect_steps = 0: expected at least 1"),
    ({"activation": "sine"}, "one of relu, tanh, elu"),
    ({"hidden": (0,)}, "positive sizes"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        A2CConfig(**change)


def test_a_task_of_cameras_alone_is_refused_in_one_line():
    frame = ObsTerm("frame", (8, 8, 1), "camera", dtype="uint8")
    spec = Spec({"camera": (frame,)}, (ActionTerm("a", "discrete", n=2),), 0.1)
    with pytest.raises(UsageError, match="a2c reads flat observations"):
        A2C(spec, A2CConfig(), 1, 0)


def test_stacked_frames_are_refused_in_one_line():
    spec = Spec({"state": (ObsTerm("x", (3,), history=4),)}, CHOICES.actions, 0.1)
    with pytest.raises(UsageError, match="a2c sees one frame at a time; this task stacks 4 of state"):
        A2C(spec, A2CConfig(), 1, 0)
