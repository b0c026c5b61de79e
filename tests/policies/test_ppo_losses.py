"""PPO's objectives: by hand, and their derivatives against autograd for both distributions."""

import pytest
import torch

from poise.policies.ppo_losses import (
    OBJECTIVES,
    PENALTY_RANGE,
    Categorical,
    Gaussian,
    Rows,
    Rule,
    adapt_learning_rate,
    adapt_penalty,
    critic_loss,
    policy_loss,
    standardize,
    surrogate,
)

B = 40
G = torch.Generator().manual_seed(0)


def drawn(*shape):
    return torch.randn(*shape, generator=G, dtype=torch.float64)


def rule(objective="clip", **changes):
    return Rule(**{"objective": objective, "clip": 0.2, "value_coef": 0.5, "entropy_coef": 0.03, "max_grad_norm": 1.0,
                   "target_kl": 0.0, "min_learning_rate": 1e-5, "max_learning_rate": 1e-2, **changes})  # fmt: skip


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.1, 2.0, 2.2),  # inside: the plain objective
        (0.9, -2.0, -1.8),
        (1.5, 2.0, 2.4),  # better than clipped: no more to gain above 1 + eps
        (0.5, -2.0, -1.6),  # likewise below 1 - eps
        (0.5, 2.0, 1.0),  # the wrong way: the full price
        (1.5, -2.0, -3.0),
    ],
)
def test_the_clipped_objective_by_hand_inside_and_outside_for_both_signs(ratio, advantage, expected):
    gain, d_log_ratio = surrogate(torch.tensor([ratio]), torch.tensor([advantage]), rule())
    torch.testing.assert_close(gain, torch.tensor([expected]))
    gains_nothing_more = (ratio > 1.2 and advantage > 0) or (ratio < 0.8 and advantage < 0)
    torch.testing.assert_close(d_log_ratio, torch.tensor([0.0 if gains_nothing_more else ratio * advantage]))


def gaussian():
    mean, log_std = drawn(B, 3), 0.3 * drawn(3)
    old = Gaussian(mean + 0.2 * drawn(B, 3), log_std + 0.1 * drawn(3))
    return Gaussian(mean, log_std), old, old.mean + old.log_std.exp() * drawn(B, 3)


def categorical():
    logits = drawn(B, 4)
    return Categorical(logits), Categorical(logits + 0.5 * drawn(B, 4)), torch.arange(B) % 4


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("make", [gaussian, categorical])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_and_derivatives_equal_the_papers_equations_under_autograd(objective, make, weighted):
    new, old, action = make()
    keep = torch.arange(B) % 3 != 0 if weighted else torch.ones(B, dtype=torch.bool)
    weight = keep.double() / keep.sum()
    rows = Rows(action, old[0], old.log_prob(action)[0], drawn(B), drawn(B))
    beta = torch.tensor(1.7, dtype=torch.float64)
    found = policy_loss(new, old, rows, weight, rule(objective), beta)

    leaves = [x.clone().requires_grad_() for x in new]
    if isinstance(new, Gaussian):
        at = torch.distributions.Independent(torch.distributions.Normal(leaves[0], leaves[1].exp()), 1)
        before = torch.distributions.Independent(torch.distributions.Normal(old.mean, old.log_std.exp()), 1)
    else:
        at, before = torch.distributions.Categorical(logits=leaves[0]), torch.distributions.Categorical(logits=old[0])
    ratio = torch.exp(at.log_prob(action) - before.log_prob(action))
    assert ((ratio > 1.2) | (ratio < 0.8)).any() and ((ratio < 1.2) & (ratio > 0.8)).any()
    gain = ratio * rows.advantage
    divergence = torch.distributions.kl_divergence(before, at)
    if objective == "clip":
        gain = torch.min(gain, ratio.clamp(0.8, 1.2) * rows.advantage)
    elif objective != "none":
        gain = gain - 1.7 * divergence
    loss = -(gain + 0.03 * at.entropy())[keep].mean()
    torch.testing.assert_close(found.loss, loss.detach(), atol=1e-10, rtol=0)
    for ours, theirs in zip(found.gradient, torch.autograd.grad(loss, leaves), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)
    if objective.endswith("_kl"):
        torch.testing.assert_close(found.kl, divergence[keep].mean().detach(), atol=1e-10, rtol=0)
    else:
        assert found.kl is None  # nobody asked


@pytest.mark.parametrize("make", [gaussian, categorical])
def test_an_unmoved_policy_has_ratio_one_divergence_zero_and_the_gradient_of_the_policy_gradient_theorem(make):
    new, _, action = make()
    rows = Rows(action, new[0], new.log_prob(action)[0], drawn(B), drawn(B))
    weight = torch.full((B,), 1.0 / B, dtype=torch.float64)
    for objective in OBJECTIVES:
        settings = rule(objective, target_kl=0.01, entropy_coef=0.0)
        found = policy_loss(new, new, rows, weight, settings, torch.tensor(5.0, dtype=torch.float64))
        assert found.kl is not None
        torch.testing.assert_close(found.kl, torch.tensor(0.0, dtype=torch.float64), atol=1e-12, rtol=0)
        leaves = [x.clone().requires_grad_() for x in new]
        plain = -(type(new)(*leaves).log_prob(action)[0] * rows.advantage).mean()
        for ours, theirs in zip(found.gradient, torch.autograd.grad(plain, leaves), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=0)


def test_the_critic_s_loss_and_derivative_leave_out_rows_without_weight():
    value, target = drawn(B).requires_grad_(), drawn(B)
    keep = torch.arange(B) < 30
    loss, gradient = critic_loss(value.detach(), Rows(*[target] * 5), keep.double() / 30, rule())
    expected = (value - target)[keep].square().mean()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(0.5 * expected, value)[0])


def test_standardized_advantages_survive_a_single_row_and_equal_ones_and_ignore_rows_without_weight():
    assert torch.equal(standardize(torch.tensor([3.0])), torch.zeros(1))
    assert torch.equal(standardize(torch.full((5,), 2.0)), torch.zeros(5))
    assert torch.equal(standardize(torch.full((5,), 0.1), torch.full((5,), 0.2)), torch.zeros(5))
    x = drawn(100)
    torch.testing.assert_close(standardize(x), (x - x.mean()) / x.std(correction=0))
    weight = torch.where(torch.arange(100) < 60, 1 / 60, 0.0).double()
    torch.testing.assert_close(standardize(x, weight)[:60], standardize(x[:60]))


def test_the_penalty_doubles_and_halves_outside_a_factor_of_one_and_a_half_and_stays_a_float():
    beta, target = torch.tensor(1.0), 0.03
    for divergence, expected in [(0.019, 0.5), (0.0201, 1.0), (0.03, 1.0), (0.0449, 1.0), (0.046, 2.0)]:
        assert adapt_penalty(beta, torch.tensor(divergence), target).item() == expected
    for _ in range(60):
        beta = adapt_penalty(beta, torch.tensor(0.0), target)
    assert beta.item() == PENALTY_RANGE[0]


@pytest.mark.parametrize(
    ("kl_over_target", "factor"), [(0.49, 1.5), (0.5, 1.0), (1.0, 1.0), (2.0, 1.0), (2.1, 1 / 1.5)]
)
def test_the_learning_rate_grows_below_half_the_target_kl_and_shrinks_above_twice(kl_over_target, factor):
    rate = adapt_learning_rate(torch.tensor(1e-3), torch.tensor(kl_over_target * 0.25), 0.25, 1e-5, 1e-2)
    torch.testing.assert_close(rate, torch.tensor(1e-3 * factor))


def test_the_learning_rate_stays_within_its_bounds():
    rate = torch.tensor(1e-3)
    assert adapt_learning_rate(rate, torch.tensor(0.0), 0.01, 1e-5, 1.2e-3).item() == pytest.approx(1.2e-3)
    assert adapt_learning_rate(rate, torch.tensor(9.0), 0.01, 9e-4, 1e-2).item() == pytest.approx(9e-4)
