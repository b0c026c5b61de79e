"""The objectives of PPO (Schulman et al. 2017, arXiv 1707.06347), each with its derivative.

    r       = pi(a|s) / pi_old(a|s)
    L_clip  = E[ min(r A, clip(r, 1 - eps, 1 + eps) A) ]                                             eq. 7
    L_kl    = E[ r A - beta KL(pi_old || pi) ]                                                       eq. 8
    loss    = -L + c_1 E[ (V(s) - V_target)^2 ] - c_2 E[ S[pi](s) ],   to be minimized               eq. 9
    beta    <- beta / 2 where d < d_targ / 1.5,   2 beta where d > 1.5 d_targ,   d = E[ KL(pi_old || pi) ]   sec. 4

d is taken over the whole batch once an update is done, and the new beta serves the next one. Derivatives are with
respect to what the networks put out, so that one loss serves perceptrons stepped by hand (ppo_update.py) and modules
under autograd (ppo_sequence.py) alike. Every expectation is a sum with weights that sum to one, and are zero where
a row is no transition.

Legend: B rows, A action, n choices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .distributions import (
    categorical_entropy,
    categorical_entropy_gradient,
    categorical_kl,
    categorical_kl_gradient,
    categorical_log_prob_and_gradient,
    gaussian_entropy,
    gaussian_kl,
    gaussian_kl_gradient,
    gaussian_log_prob_and_gradient,
)
from .parallel import ALONE, Group

Objective = Literal["clip", "adaptive_kl", "fixed_kl", "none"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

# ---- the policy's distribution over actions, as its loss sees it --------------------------------------------------


class Gaussian(NamedTuple):
    """Continuous actions; the deviation is the same in every state."""

    mean: Tensor  # (B, A)
    log_std: Tensor  # (A,)

    def log_prob(self, action: Tensor) -> tuple[Tensor, Callable[[Tensor], Gaussian]]:
        """log pi(action) (B,), and what turns dJ/dlog_prob (B,) into dJ/dself."""
        log_prob, gradient = gaussian_log_prob_and_gradient(action, self.mean, self.log_std)
        return log_prob, lambda d: Gaussian(*gradient(d))

    def kl(self, old: Gaussian) -> Tensor:
        """KL(old || self) (B,)."""
        return gaussian_kl(old.mean, old.log_std, self.mean, self.log_std)

    def kl_gradient(self, old: Gaussian, d: Tensor) -> Gaussian:
        return Gaussian(*gaussian_kl_gradient(old.mean, old.log_std, self.mean, self.log_std, d))

    def entropy(self) -> Tensor:
        """The entropy in every state (B,)."""
        return gaussian_entropy(self.log_std).expand(len(self.mean))

    def entropy_gradient(self, d: Tensor) -> Gaussian:
        return Gaussian(torch.zeros_like(self.mean), d.sum().expand_as(self.log_std))


class Categorical(NamedTuple):
    """One of n choices."""

    logits: Tensor  # (B, n)

    def log_prob(self, action: Tensor) -> tuple[Tensor, Callable[[Tensor], Categorical]]:
        log_prob, gradient = categorical_log_prob_and_gradient(action, self.logits)
        return log_prob, lambda d: Categorical(gradient(d))

    def kl(self, old: Categorical) -> Tensor:
        return categorical_kl(old.logits, self.logits)

    def kl_gradient(self, old: Categorical, d: Tensor) -> Categorical:
        return Categorical(categorical_kl_gradient(old.logits, self.logits, d))

    def entropy(self) -> Tensor:
        return categorical_entropy(self.logits)

    def entropy_gradient(self, d: Tensor) -> Categorical:
        return Categorical(categorical_entropy_gradient(self.logits, d))


Distribution = Gaussian | Categorical


# ---- losses -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """Which loss, and how to step down it."""

    objective: Objective
    clip: float  # eps
    value_coef: float  # c_1
    entropy_coef: float  # c_2
    max_grad_norm: float  # of actor and critic, each on its own
    target_kl: float  # that the step size follows; 0 leaves it alone
    min_learning_rate: float
    max_learning_rate: float

    @property
    def penalized(self) -> bool:
        return self.objective in ("adaptive_kl", "fixed_kl")


class Rows(NamedTuple):
    """What a loss reads of B transitions, beside the networks' outputs."""

    action: Tensor  # (B, A) as drawn, not clipped; (B,) int64 for choices
    old: Tensor  # (B, A) mean, or (B, n) logits, of the policy that acted
    old_log_prob: Tensor  # (B,)
    advantage: Tensor  # (B,) standardized over the minibatch
    value_target: Tensor  # (B,)


class PolicyLoss(NamedTuple):
    loss: Tensor  # ()
    gradient: tuple[Tensor, ...]  # with respect to each tensor of the distribution
    kl: Tensor | None  # () E[KL(old || new)], where the objective or the step size asks for it


def policy_loss(
    new: Distribution, old: Distribution, rows: Rows, weight: Tensor, rule: Rule, penalty: Tensor
) -> PolicyLoss:
    """-L - c_2 E[S], for the distribution that the networks give now; weight (B,) sums to one, penalty () is beta."""
    log_prob, pull_back = new.log_prob(rows.action)
    gain, d_log_prob = surrogate(torch.exp(log_prob - rows.old_log_prob), rows.advantage, rule)
    loss = -torch.dot(gain, weight)
    gradient = pull_back(d_log_prob * -weight)

    divergence = None
    if rule.penalized or rule.target_kl > 0:
        divergence = torch.dot(new.kl(old), weight)  # type: ignore[arg-type]
    if rule.penalized and divergence is not None:
        loss = loss + penalty * divergence
        gradient = _added(gradient, new.kl_gradient(old, penalty * weight))  # type: ignore[arg-type]
    if rule.entropy_coef > 0:
        loss = loss - rule.entropy_coef * torch.dot(new.entropy(), weight)
        gradient = _added(gradient, new.entropy_gradient(-rule.entropy_coef * weight))

    return PolicyLoss(loss, tuple(gradient), divergence)


def surrogate(ratio: Tensor, advantage: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """What eq. 7 or the first term of eq. 8 expects (B,), and its derivative with respect to log r."""
    plain = ratio * advantage  # its own derivative with respect to log r
    if rule.objective != "clip":
        return plain, plain
    clipped = ratio.clamp(1.0 - rule.clip, 1.0 + rule.clip) * advantage
    # so that what is not a number stays one
    return torch.minimum(plain, clipped), torch.where(plain > clipped, 0.0, plain)


def critic_loss(value: Tensor, rows: Rows, weight: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """E[(V - V_target)^2] and c_1 times its derivative with respect to value (B,)."""
    error = value - rows.value_target
    weighted = error * weight
    return torch.dot(error, weighted), weighted * (2.0 * rule.value_coef)


def standardize(advantage: Tensor, weight: Tensor | None = None, group: Group = ALONE) -> Tensor:
    """Advantages (..., B) with mean 0 and deviation 1; equal ones, or a single one, become 0 rather than NaN.

    With weights over all that the processes of `group` hold; the weights sum to one in the mean over them.
    """
    if weight is None:
        variance, mean = torch.var_mean(advantage, -1, correction=0, keepdim=True)
        return (advantage - mean) / (variance.sqrt() + 1e-8)
    # in double, so that equal ones leave no noise to scale
    share = weight.double() / group.mean(weight.sum(dtype=torch.float64)).clamp_min(1e-12)
    centred = advantage - group.mean(torch.dot(advantage.double(), share)).to(advantage.dtype)
    return centred / (group.mean(torch.dot(centred.double().square(), share)).sqrt() + 1e-8).to(advantage.dtype)


def standardize_parts(parts: Sequence[Tensor], group: Group) -> tuple[list[Tensor], list[Tensor]]:
    """This process's advantages (b,) of each minibatch, standardized over all of it, and the weights (b,) of its rows.

    Weights sum to one in the mean over the processes, of which one may have fewer rows of a minibatch than another.
    """
    doubled = [part.double() for part in parts]
    count = torch.stack([part.new_tensor(len(part)) for part in doubled])
    mean = torch.stack([part.sum() for part in doubled]) / count.clamp_min(1.0)
    squares = torch.stack([(part - m).square().sum() for part, m in zip(doubled, mean, strict=True)])
    total, mean, var = group.pooled(count, mean, squares / count.clamp_min(1.0))
    deviation = var.sqrt() + 1e-8
    share = (group.size / total.clamp_min(1.0)).to(parts[0].dtype)
    advantages = [((part - m) / s).to(parts[0].dtype) for part, m, s in zip(doubled, mean, deviation, strict=True)]
    return advantages, [torch.ones_like(part) * w for part, w in zip(parts, share, strict=True)]


def _added(a: Distribution, b: Distribution) -> Distribution:
    return type(a)(*(x + y for x, y in zip(a, b, strict=True)))


# ---- what follows the divergence ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """Scalars on the device that change in place: what runs on the device reads them, the host never does."""

    learning_rate: Tensor  # as the KL rule left it
    step_size: Tensor  # what Adam uses
    bound: Tensor  # on the step size, which falls over the planned run
    penalty: Tensor  # beta


PENALTY_RANGE = 2.0**-20, 2.0**20  # doubled or halved every update, beta would leave float32 otherwise


def adapt_penalty(penalty: Tensor, divergence: Tensor, target: float) -> Tensor:
    """beta for the next update, after seeing the whole batch's divergence: section 4 of the paper."""
    penalty = torch.where(divergence < target / 1.5, penalty / 2.0, penalty)
    penalty = torch.where(divergence > target * 1.5, penalty * 2.0, penalty)
    return penalty.clamp(*PENALTY_RANGE)


def adapt_learning_rate(rate: Tensor, divergence: Tensor, target: float, low: float, high: float) -> Tensor:
    """The step size after seeing a step's divergence: less above twice the target, more below half of it.

    On the device, without a look from the host. The rule is rsl_rl's.
    """
    rate = torch.where(divergence > 2.0 * target, rate / 1.5, rate)
    rate = torch.where(divergence < 0.5 * target, rate * 1.5, rate)
    return rate.clamp(low, high)


def choose_step_size_(rates: Rates, rule: Rule, divergence: Tensor | None, first: bool) -> None:
    """Set the step size by the KL rule, under its bound.

    The first step of an update says nothing: nothing has moved yet.
    """
    if rule.target_kl > 0 and divergence is not None and not first:
        rates.learning_rate.copy_(
            adapt_learning_rate(rates.learning_rate, divergence, rule.target_kl, rule.min_learning_rate,
                                rule.max_learning_rate)
        )  # fmt: skip
    torch.minimum(rates.learning_rate, rates.bound, out=rates.step_size)
