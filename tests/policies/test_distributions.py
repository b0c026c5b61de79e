"""The tanh-Gaussian against torch.distributions, numerical integration and autograd."""

import math

import torch
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from poise.policies.distributions import (
    TanhGaussian,
    tanh_gaussian,
    tanh_gaussian_action,
    tanh_gaussian_gradient,
)


def drawn(rows=50, size=3):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(rows, size, generator=generator, dtype=torch.float64) for _ in range(3))


def log_prob(mean: torch.Tensor, log_std: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Log density (B,) of the action tanh(u), by the noise that selects it."""
    return tanh_gaussian(mean, log_std, (u - mean) * torch.exp(-log_std)).log_prob


def test_log_prob_equals_torch_distributions():
    mean, log_std, noise = drawn()
    log_std = 0.5 * log_std.clamp(-4.0, 4.0)  # inside the bounds
    sample = tanh_gaussian(mean, log_std, noise)
    u = mean + log_std.exp() * noise
    reference = TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1))
    expected = Normal(mean, log_std.exp()).log_prob(u).sum(-1) - reference.transforms[0].log_abs_det_jacobian(
        u, torch.tanh(u)
    ).sum(-1)
    torch.testing.assert_close(sample.log_prob, expected)
    torch.testing.assert_close(sample.action, torch.tanh(u))
    torch.testing.assert_close(tanh_gaussian_action(mean, log_std, noise), torch.tanh(u))
    torch.testing.assert_close(log_prob(mean, log_std, u), expected)


def test_the_density_integrates_to_one_over_actions():
    mean, log_std = torch.tensor([[0.4]], dtype=torch.float64), torch.tensor([[-0.5]], dtype=torch.float64)
    edges = torch.linspace(-1, 1, 200_001, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    density = log_prob(mean, log_std, torch.atanh(middle)[:, None]).exp()
    assert abs(float((density * edges.diff()).sum()) - 1) < 1e-6


def test_saturated_actions_have_finite_and_exact_log_prob():
    mean = torch.tensor([[15.0], [-15.0], [100.0]])
    sample = tanh_gaussian(mean, torch.zeros(3, 1), torch.zeros(3, 1))
    # log(1 - tanh(u)^2) = 2 log 2 - 2|u| up to e^-2|u|
    expected = -0.5 * math.log(2 * math.pi) - (2 * math.log(2) - 2 * mean.abs()[:, 0])
    torch.testing.assert_close(sample.log_prob, expected)
    gradient = tanh_gaussian_gradient(sample, torch.ones(3, 1), torch.ones(()))
    assert all(torch.isfinite(g).all() for g in gradient)


def test_gradient_equals_autograd_also_where_log_std_is_clamped():
    mean, log_std, noise = drawn()
    log_std = 15.0 * log_std  # many beyond -20 and 2
    d_action = torch.randn(mean.shape, dtype=torch.float64)
    leaves = [mean.clone().requires_grad_(), log_std.clone().requires_grad_()]
    sample = tanh_gaussian(*leaves, noise)
    loss = (sample.action * d_action).sum() + 0.3 * sample.log_prob.sum()
    expected = torch.autograd.grad(loss, leaves)
    plain = TanhGaussian(*(t.detach() for t in sample))
    assert 0 < plain.inside.sum() < plain.inside.numel()
    found = tanh_gaussian_gradient(plain, d_action, torch.tensor(0.3, dtype=torch.float64))
    torch.testing.assert_close(found, tuple(expected))
