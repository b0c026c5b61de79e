"""REINFORCE and the actor-critic on whole episodes: what an action is credited with, and the steps that follow."""

import numpy as np
import pytest
import torch

from poise.batch import Batch, Step
from poise.errors import UsageError
from poise.policies.distributions import categorical_sample
from poise.policies.reinforce import Reinforce, ReinforceConfig, credit
from poise.spec import ActionTerm, ObsTerm, Spec

OBS = {"state": (ObsTerm("x", (3,)),)}
CHOICES = Spec(OBS, (ActionTerm("a", "discrete", n=3),), 0.1)
PUSHES = Spec(OBS, (ActionTerm("a", "control", low=(-1.0, -1.0), high=(1.0, 1.0)),), 0.1)
SMALL = {"hidden": (5,), "episodes": 2}

# an episode of three steps that ended, and one of two that ran out of time
REWARD = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 0.0]])
MASK = torch.tensor([[True, True, True], [True, True, False]])
TERMINATED = torch.tensor([[False, False, True], [False, False, False]])
TRUNCATED = torch.tensor([[False, False, False], [False, True, False]])
VALUE = torch.tensor([[1.0, 1.0, 2.0], [3.0, 5.0, 9.0]])
NEXT_VALUE = torch.tensor([[1.0, 2.0, 7.0], [5.0, 6.0, 9.0]])


def episodes(spec: Spec = CHOICES, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    obs, after = ({"state": torch.randn(2, 3, 3, generator=generator)} for _ in range(2))
    if spec.discrete:
        return Batch(obs, torch.tensor([[[0], [2], [1]], [[1], [1], [0]]]), REWARD, after, TERMINATED, TRUNCATED, MASK)
    raw_action = torch.randn(2, 3, 2, generator=generator)
    return Batch(obs, raw_action.clamp(-1, 1), REWARD, after, TERMINATED, TRUNCATED, MASK,
                 extras={"raw_action": raw_action})  # fmt: skip


def psi(**settings) -> list[list[float]]:
    config = ReinforceConfig(**{"discount": 0.5, "baseline": "none", **settings})
    values = (VALUE, NEXT_VALUE) if config.baseline == "value" else (None, None)
    return credit(episodes(), *values, config, MASK).psi.tolist()


@pytest.mark.parametrize(("settings", "expected"), [
    # 1 + .5 (2 + .5 4);  8 + .5 16
    ({"estimator": "total"}, [[3.0, 3.0, 3.0], [16.0, 16.0, 0.0]]),
    ({"estimator": "total", "discount": 1.0}, [[7.0, 7.0, 7.0], [24.0, 24.0, 0.0]]),
    ({}, [[3.0, 4.0, 4.0], [16.0, 16.0, 0.0]]),
    ({"discount": 1.0}, [[7.0, 6.0, 4.0], [24.0, 16.0, 0.0]]),
    ({"discount_weight": True}, [[3.0, 2.0, 1.0], [16.0, 8.0, 0.0]]),
    # the return of the episode is discounted from its start: there is nothing left to weight
    ({"estimator": "total", "discount_weight": True}, [[3.0, 3.0, 3.0], [16.0, 16.0, 0.0]]),
    # the mean of 3, 4, 4, 16, 16 is 8.6
    ({"baseline": "mean"}, [[-5.6, -4.6, -4.6], [7.4, 7.4, 0.0]]),
    # where time ran out the rest is worth V(s_T) = 6: 16 + .5 6 = 19;  8 + .5 19 = 17.5
    ({"baseline": "value"}, [[2.0, 3.0, 2.0], [14.5, 14.0, 0.0]]),
    # one step: 1 + .5 1, 2 + .5 2, 4;  8 + .5 5, 16 + .5 6
    ({"baseline": "value", "estimator": "n_step", "n_step": 1}, [[0.5, 2.0, 2.0], [7.5, 14.0, 0.0]]),
    # two: 1 + .5 (2 + .5 2), 2 + .5 4, 4;  8 + .5 19, 19
    ({"baseline": "value", "estimator": "n_step", "n_step": 2}, [[1.5, 3.0, 2.0], [14.5, 14.0, 0.0]]),
    # deltas .5, 2, 2;  7.5, 14, each carried by .5 * .5
    ({"baseline": "value", "estimator": "gae", "gae_lambda": 0.5}, [[1.125, 2.5, 2.0], [11.0, 14.0, 0.0]]),
    ({"baseline": "value", "estimator": "gae", "gae_lambda": 1.0}, [[2.0, 3.0, 2.0], [14.5, 14.0, 0.0]]),
])  # fmt: skip
def test_what_an_action_is_credited_with_by_hand(settings, expected):
    torch.testing.assert_close(torch.tensor(psi(**settings)), torch.tensor(expected))


def test_the_critic_is_fitted_to_returns_of_its_own_estimator():
    config = ReinforceConfig(discount=0.5)
    target = credit(episodes(), VALUE, NEXT_VALUE, config, MASK).target
    assert target.tolist() == [[3.0, 4.0, 4.0], [17.5, 19.0, 0.0]]
    config = ReinforceConfig(discount=0.5, estimator="gae", gae_lambda=0.5)
    target = credit(episodes(), VALUE, NEXT_VALUE, config, MASK).target
    assert target.tolist() == [[2.125, 3.5, 4.0], [14.0, 19.0, 0.0]]


# ---- steps --------------------------------------------------------------------------------------


def networks(learner: Reinforce):
    """Actor, log_std and critic as autograd sees them."""
    return ([p.clone().requires_grad_() for p in params]
            for params in ([*learner.actor, learner.log_std], learner.critic))  # fmt: skip


def run(params, x):
    return (torch.tanh(x @ params[0][0] + params[1][0]) @ params[2][0].T) + params[3][0]


def log_prob(params, x, batch, spec):
    if spec.discrete:
        return torch.distributions.Categorical(logits=run(params, x)).log_prob(batch.action[..., 0])
    return torch.distributions.Normal(run(params, x), params[-1].exp()).log_prob(batch.extras["raw_action"]).sum(-1)


@pytest.mark.parametrize("spec", [CHOICES, PUSHES], ids=["choices", "pushes"])
def test_an_update_is_one_adam_step_up_the_objective_and_several_down_the_critic_s_error(spec):
    config = ReinforceConfig(**SMALL, discount=0.9, value_steps=3)
    learner, batch = Reinforce(spec, config, 2, 0), episodes(spec)
    actor, critic = networks(learner)
    x, after = batch.obs["state"], batch.next_obs["state"]
    with torch.no_grad():
        values = run(critic, x)[..., 0], run(critic, after)[..., 0]
    weight, target = credit(batch, *values, config, MASK)
    objective = (log_prob(actor, x, batch, spec) * weight)[MASK].sum() / 2  # two episodes
    gradient = torch.autograd.grad(objective, actor if not spec.discrete else actor[:-1])
    ours, _ = learner.gradient(x[MASK], (batch.action[..., 0] if spec.discrete else batch.extras["raw_action"])[MASK],
                               weight[MASK] / 2)  # fmt: skip
    for mine, theirs in zip(ours, gradient, strict=False):
        torch.testing.assert_close(mine, theirs)

    climb = torch.optim.Adam(actor, lr=config.learning_rate, maximize=True)
    for p, g in zip(actor, gradient, strict=False):
        p.grad = g
    climb.step()
    descend, losses = torch.optim.Adam(critic, lr=config.value_learning_rate), []
    for _ in range(3):
        loss = (run(critic, x)[..., 0] - target)[MASK].square().mean()
        descend.zero_grad()
        loss.backward()
        descend.step()
        losses.append(loss.item())
    metrics = learner.update(batch)
    for mine, theirs in zip([*learner.actor, learner.log_std, *learner.critic], [*actor, *critic], strict=True):
        torch.testing.assert_close(mine, theirs.detach(), atol=1e-5, rtol=1e-4)
    assert metrics["critic/loss"].item() == pytest.approx(losses[0], rel=1e-5) and losses[2] < losses[0]
    assert metrics["batch/return"].item() == 15.5  # (7 + 24) / 2


def test_what_was_padded_changes_nothing():
    first, second = (Reinforce(CHOICES, ReinforceConfig(**SMALL), 2, 0) for _ in range(2))
    batch = episodes()
    first.update(batch)
    batch.obs["state"][1, 2] = batch.next_obs["state"][1, 2] = 1e6
    batch.reward[1, 2] = 100.0
    second.update(batch)
    for a, b in zip([*first.actor, *first.critic], [*second.actor, *second.critic], strict=True):
        torch.testing.assert_close(a, b)
    batch.reward[1, 2] = 0.0  # the tables above are shared


def test_a_reward_that_is_not_a_number_shows_in_the_metrics():
    learner, batch = Reinforce(CHOICES, ReinforceConfig(**SMALL), 2, 0), episodes()
    metrics = learner.update(Batch(**{**vars(batch), "reward": batch.reward * torch.nan}))
    assert metrics["critic/loss"].isnan() and metrics["policy/grad_norm"].isnan()


# ---- a small MDP whose gradient is known exactly ------------------------------------------------

DISCOUNT = 0.6
# two states and the end; from 0 the first choice leads on to 1 and the others end it, from 1 the second goes on
NEXT = torch.tensor([[1, 2, 2], [2, 1, 2]])
GAIN = torch.tensor([[0.0, 1.0, -1.0], [1.0, -1.0, 0.0]])
STEPS = 8


def exact_gradient(learner: Reinforce) -> torch.Tensor:
    """grad J of J = E[sum_t discount^t r_t] over at most `STEPS` steps from state 0, by enumeration and autograd."""
    actor, _ = networks(learner)
    policy = torch.softmax(run(actor, torch.eye(3)[:2]), -1)
    v = torch.zeros(3)
    for _ in range(STEPS):
        v = torch.cat([(policy * (GAIN + DISCOUNT * v[NEXT])).sum(-1), torch.zeros(1)])
    return torch.cat([g.flatten() for g in torch.autograd.grad(v[0], actor[:-1])])


def trajectories(learner: Reinforce, count: int) -> Batch:
    generator, state = torch.Generator().manual_seed(1), torch.zeros(count, dtype=torch.int64)
    columns: dict[str, list] = {"state": [], "action": [], "reward": [], "after": []}
    for _ in range(STEPS):
        x = torch.eye(3)[state]
        action = categorical_sample(learner._outputs(learner.actor, x), generator)[:, 0]
        row = state.clamp_max(1)
        after = torch.where(state == 2, 2, NEXT[row, action])
        for name, value in zip(columns, (state, action, GAIN[row, action], after), strict=True):
            columns[name].append(value)
        state = after
    state, action, reward, after = (torch.stack(column, 1) for column in columns.values())
    mask = state < 2
    return Batch({"state": torch.eye(3)[state]}, action[..., None], torch.where(mask, reward, 0.0),
                 {"state": torch.eye(3)[after]}, mask & (after == 2), torch.zeros_like(mask), mask)  # fmt: skip


def estimate(learner: Reinforce, batch: Batch, **settings) -> torch.Tensor:
    config = ReinforceConfig(**{**SMALL, "discount": DISCOUNT, **settings})
    x, values = batch.obs["state"], (None, None)
    if config.baseline == "value":  # any function of the state: the network as it happens to be
        values = tuple(learner._outputs(learner.critic, obs["state"])[..., 0] for obs in (batch.obs, batch.next_obs))
    weight, _ = credit(batch, *values, config, batch.mask)
    gradient, _ = learner.gradient(x[batch.mask], batch.action[..., 0][batch.mask],
                                   weight[batch.mask] / len(weight))  # fmt: skip
    return torch.cat([g.flatten() for g in gradient])


def test_only_the_discount_weight_makes_the_estimate_exact():
    """docs/lecture.md, E8: against the gradient that enumeration gives, over 100,000 episodes."""
    learner = Reinforce(CHOICES, ReinforceConfig(**SMALL), 2, 0)
    exact, batch = exact_gradient(learner), trajectories(learner, 100_000)

    def error(**settings) -> float:
        return float((estimate(learner, batch, **settings) - exact).norm() / exact.norm())

    for settings in ({"estimator": "total", "baseline": "none"}, {"baseline": "none"}, {"baseline": "value"}):
        assert error(**settings, discount_weight=True) < 0.02, settings  # five standard errors
    assert error(estimator="total", baseline="none") < 0.02  # discounted from the start: exact as it is
    assert error(baseline="none") > 0.1
    # with lambda 1 GAE is the return less the baseline
    assert error(estimator="gae", baseline="value", gae_lambda=1.0, discount_weight=True) < 0.02


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "message"), [
    ({"learning_rate": float("nan")}, "learning_rate = nan: expected a number above 0"),
    ({"value_learning_rate": 0.0}, "value_learning_rate = 0.0"),
    ({"discount": 1.1}, "discount = 1.1: expected a number from 0 to 1"),
    ({"gae_lambda": -0.1}, "gae_lambda"),
    ({"estimator": "guess"}, "one of total, to_go, n_step, gae"),
    ({"estimator": "gae", "baseline": "mean"}, "bootstraps from a critic"),
    ({"episodes": 0}, "episodes = 0: expected at least 1"),
    ({"hidden": ()}, "hidden"),
    ({"log_std": 3.0}, "log_std"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        ReinforceConfig(**change)


def test_worlds_must_share_the_episodes_evenly():
    with pytest.raises(UsageError, match="a multiple of the 3 worlds"):
        Reinforce(CHOICES, ReinforceConfig(episodes=16), 3, 0)


def test_nothing_is_due_before_every_world_has_its_episodes():
    learner = Reinforce(CHOICES, ReinforceConfig(**SMALL), 2, 0)
    assert learner.updates_due(0) == 0
    buffer = learner.make_buffer()
    for ends, due in (([True, False], 0), ([True, False], 0), ([False, True], 1)):
        x, ended = torch.zeros(2, 3), torch.tensor(ends)
        step = Step({"state": x}, {"state": x}, torch.ones(2), ended, torch.zeros(2, dtype=torch.bool))
        action, extras, _ = learner.act({"state": x}, {})
        buffer.add({"state": x}, action, extras, step)
        assert learner.updates_due(0) == due
    learner.update(buffer.sample(learner.request, np.random.default_rng(0)))
    assert learner.updates_due(0) == 0


def test_a_task_of_cameras_alone_is_refused_in_one_line():
    seen = Spec({"camera": (ObsTerm("pixels", (8, 8, 3), dtype="uint8"),)}, CHOICES.actions, 0.1)
    with pytest.raises(UsageError, match="reinforce reads flat observations; this task has camera"):
        Reinforce(seen, ReinforceConfig(), 1, 0)


def test_stacked_frames_are_refused_in_one_line():
    seen = Spec({"state": (ObsTerm("x", (3,), history=4),)}, CHOICES.actions, 0.1)
    with pytest.raises(UsageError, match="reinforce sees one frame at a time; this task stacks 4 of state"):
        Reinforce(seen, ReinforceConfig(), 1, 0)
