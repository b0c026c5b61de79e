"""The Gaussian and the categorical distribution: against torch.distributions, and their derivatives against autograd."""

import torch

from poise.policies import distributions as d

G = torch.Generator().manual_seed(0)


def drawn(*shape):
    return torch.randn(*shape, generator=G, dtype=torch.float64)


MEAN, OLD_MEAN, X, LOG_STD, OLD_LOG_STD = drawn(10, 4), drawn(10, 4), drawn(10, 4), drawn(4), drawn(4)
LOGITS, OLD_LOGITS, ACTION = drawn(10, 5), drawn(10, 5), torch.arange(10) % 5
WEIGHT = drawn(10)  # dJ/d(what a function gives), one for every row


def gradient(f, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    return torch.autograd.grad(f(*leaves), leaves, WEIGHT)


def close(found, wanted):
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-9)


def test_the_gaussian_equals_torch_distributions():
    old, new = (torch.distributions.Normal(m, s.exp()) for m, s in ((OLD_MEAN, OLD_LOG_STD), (MEAN, LOG_STD)))
    close(d.gaussian_log_prob(X, MEAN, LOG_STD), new.log_prob(X).sum(-1))
    close(d.gaussian_entropy(LOG_STD), new.entropy().sum(-1)[0])
    close(d.gaussian_kl(OLD_MEAN, OLD_LOG_STD, MEAN, LOG_STD), torch.distributions.kl_divergence(old, new).sum(-1))
    close(d.gaussian_kl(MEAN, LOG_STD, MEAN, LOG_STD), torch.zeros(10, dtype=torch.float64))


def test_the_gaussian_s_derivatives_equal_autograd():
    close(d.gaussian_log_prob_and_gradient(X, MEAN, LOG_STD)[1](WEIGHT),
          gradient(lambda m, s: d.gaussian_log_prob(X, m, s), MEAN, LOG_STD))  # fmt: skip
    close(d.gaussian_kl_gradient(OLD_MEAN, OLD_LOG_STD, MEAN, LOG_STD, WEIGHT),
          gradient(lambda m, s: d.gaussian_kl(OLD_MEAN, OLD_LOG_STD, m, s), MEAN, LOG_STD))  # fmt: skip


def test_the_categorical_equals_torch_distributions():
    old, new = (torch.distributions.Categorical(logits=x) for x in (OLD_LOGITS, LOGITS))
    close(d.categorical_log_prob(ACTION, LOGITS), new.log_prob(ACTION))
    close(d.categorical_entropy(LOGITS), new.entropy())
    close(d.categorical_kl(OLD_LOGITS, LOGITS), torch.distributions.kl_divergence(old, new))
    close(d.categorical_kl(LOGITS, LOGITS + 3.0), torch.zeros(10, dtype=torch.float64))


def test_the_categorical_s_derivatives_equal_autograd():
    for found, f in [
        (d.categorical_log_prob_and_gradient(ACTION, LOGITS)[1](WEIGHT), lambda x: d.categorical_log_prob(ACTION, x)),
        (d.categorical_entropy_gradient(LOGITS, WEIGHT), d.categorical_entropy),
        (d.categorical_kl_gradient(OLD_LOGITS, LOGITS, WEIGHT), lambda x: d.categorical_kl(OLD_LOGITS, x)),
    ]:
        close(found, *gradient(f, LOGITS))


def test_choices_are_drawn_as_often_as_they_are_likely():
    probability = torch.tensor([0.1, 0.2, 0.7])
    drawn = d.categorical_sample(probability.log().expand(20_000, 3), torch.Generator().manual_seed(0))
    assert drawn.shape == (20_000, 1) and drawn.dtype == torch.int64
    frequency = torch.bincount(drawn[:, 0]) / 20_000
    torch.testing.assert_close(frequency, probability, atol=0.012, rtol=0)  # four standard errors
