"""One update of soft actor-critic, version 2 (Haarnoja et al. 2018, "SAC Algorithms and Applications", 1812.05905).

    J_Q     = 1/2 E[ (Q_i(s, a) - y)^2 ]   for i = 1, 2                                                       eq. 5
    y       = r + gamma (1 - terminated) ( min_i Q'_i(s', a') - alpha log pi(a'|s') ),   a' ~ pi               eq. 3
    J_pi    = E[ alpha log pi(a|s) - min_i Q_i(s, a) ],   a = tanh(mu(s) + sigma(s) eps)                      eq. 9
    J_alpha = E[ -alpha (log pi(a|s) + H) ]   with target entropy H, usually -dim A                          eq. 18
    Q'_i    <- Q'_i + tau (Q_i - Q'_i)

The soft value leaves out the entropy of the step itself: it belongs to the policy, not to Q(s, a). Only
`terminated` cuts the bootstrap. The actor, the temperature and the metrics see the same sampled log pi.

Each loss below returns its value and its derivative; `update` chains them through the networks by hand
(stacked_mlp.py, distributions.py), which on the CPU saves a third of the time against autograd. It is one flat
function over tensors, without a branch on data, so torch.compile takes it whole.

Legend: B batch, A action, O observation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .adam import Moments, adam_, zero_moments
from .distributions import tanh_gaussian, tanh_gaussian_gradient
from .parallel import ALONE, Group
from .returns import td_target
from .stacked_mlp import Params, Workspace, draw, forward, input_gradient, parameter_gradient

# ---- the equations -----------------------------------------------------------------------------


def soft_target(reward: Tensor, terminated: Tensor, next_q: Tensor, next_log_prob: Tensor, alpha: Tensor,
                discount: float | Tensor) -> Tensor:  # fmt: skip
    """y (B,) of eq. 3 for target critics' next_q (2, B); `terminated` alone cuts the bootstrap.

    discount: of the whole way to s', so gamma^n (B,) where `reward` sums n of them.
    """
    return td_target(reward, terminated, next_q.amin(0) - alpha * next_log_prob, discount)


def critic_loss(q: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """J_Q summed over the critics, and dJ_Q/dq (2, B), for q (2, B) and target (B,)."""
    error = q - target
    return 0.5 * error.square().mean(1).sum(), error / q.shape[1]


def actor_loss(log_prob: Tensor, q: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """J_pi, dJ_pi/dlog_prob (a scalar, the same in every row) and dJ_pi/dq (2, B), for log_prob (B,), q (2, B)."""
    rows = q.shape[1]
    first_is_smaller = (q[0] <= q[1]).to(q.dtype)
    d_q = torch.stack([first_is_smaller, 1.0 - first_is_smaller]) * (-1.0 / rows)
    return (alpha * log_prob - q.amin(0)).mean(), alpha / rows, d_q


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> tuple[Tensor, Tensor]:
    """J_alpha and dJ_alpha/dlog_alpha, which are equal, since alpha = exp(log_alpha); log_prob counts as constant."""
    loss = -log_alpha.exp() * (log_prob.mean() + target_entropy)
    return loss, loss


# ---- the update --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Networks:
    """Parameters and Adam's moments: everything that an update changes, in place."""

    actor: Params  # O -> mean (A) and log_std (A)
    critic: Params  # O + A -> 1, two of them stacked
    target_critic: Params
    log_alpha: Tensor  # ()
    steps: Tensor  # () updates made
    critic_moments: Moments
    actor_moments: Moments  # of the actor's parameters and then log_alpha

    @staticmethod
    def draw(obs_dim: int, action_dim: int, hidden: tuple[int, ...], init_alpha: float,
             generator: torch.Generator, device: torch.device) -> Networks:  # fmt: skip
        """Fresh networks; the targets equal the critics."""
        actor = [p.to(device) for p in draw(1, [obs_dim, *hidden, 2 * action_dim], generator)]
        critic = [p.to(device) for p in draw(2, [obs_dim + action_dim, *hidden, 1], generator)]
        log_alpha = torch.tensor(init_alpha, dtype=torch.float32, device=device).log()

        return Networks(actor, critic, [p.clone() for p in critic], log_alpha, torch.zeros((), device=device),
                        zero_moments(critic), zero_moments([*actor, log_alpha]))  # fmt: skip


@dataclass(frozen=True)
class Rates:
    """The numbers of an update."""

    learning_rate: float
    discount: float
    tau: float
    target_entropy: float


@dataclass(frozen=True)
class Transitions:
    """What an update reads: (B, ...) each, noise (2B, A) standard normal, for s in its first half and s' after."""

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    terminated: Tensor
    noise: Tensor
    discount: Tensor | None = None  # (B,) in place of the one in Rates


def update(n: Networks, batch: Transitions, rates: Rates, actor_work: Workspace, critic_work: Workspace,
           group: Group = ALONE):  # fmt: skip
    """One step on J_Q, then J_pi and J_alpha, then the targets, all in place; metrics as scalars.

    `batch` is this process's part of what the processes of `group` learn from.
    """
    rows, obs_dim = batch.obs.shape
    alpha = n.log_alpha.exp()

    # the policy at s and s' in one pass
    both = torch.cat([batch.obs, batch.next_obs])
    out, actor_hidden = forward(n.actor, both, actor_work)
    mean, log_std = out[0].chunk(2, -1)
    sample = tanh_gaussian(mean, log_std, batch.noise)  # (2B, A)

    # critics
    next_q, _ = forward(n.target_critic, torch.cat([batch.next_obs, sample.action[rows:]], -1), critic_work)
    discount = rates.discount if batch.discount is None else batch.discount
    y = soft_target(batch.reward, batch.terminated, next_q[..., 0], sample.log_prob[rows:], alpha, discount)
    x = torch.cat([batch.obs, batch.action], -1)
    q, hidden = forward(n.critic, x, critic_work)
    q_loss, d_q = critic_loss(q[..., 0], y)
    gradient = parameter_gradient(n.critic, x, hidden, d_q[..., None], critic_work)
    group.mean_(gradient)
    n.steps.add_(1.0)
    adam_(n.critic, gradient, n.critic_moments, n.steps, rates.learning_rate)

    # actor, by way of the critics just stepped, whose own gradient nobody needs here
    sample = type(sample)(*(t[:rows] for t in sample))
    new_q, hidden = forward(n.critic, torch.cat([batch.obs, sample.action], -1), critic_work)
    pi_loss, d_log_prob, d_q = actor_loss(sample.log_prob, new_q[..., 0], alpha)
    d_action = input_gradient(n.critic, hidden, d_q[..., None], obs_dim, critic_work)
    d_out = torch.cat(tanh_gaussian_gradient(sample, d_action, d_log_prob), -1)[None]  # (1, B, 2A)
    gradient = parameter_gradient(n.actor, batch.obs, [h[:, :rows] for h in actor_hidden], d_out, actor_work)

    # temperature, on the same log pi; it shares Adam's call with the actor
    _, d_log_alpha = temperature_loss(n.log_alpha, sample.log_prob, rates.target_entropy)
    gradient = [*gradient, d_log_alpha]
    group.mean_(gradient)
    adam_([*n.actor, n.log_alpha], gradient, n.actor_moments, n.steps, rates.learning_rate)

    polyak_(n.target_critic, n.critic, rates.tau)
    return {
        "critic/loss": q_loss,
        "critic/q": q.mean(),
        "policy/loss": pi_loss,
        "policy/entropy": -sample.log_prob.mean(),
        "alpha": alpha,
    }


def polyak_(target: Params, source: Params, tau: float) -> None:
    """target <- target + tau (source - target), in place."""
    torch._foreach_lerp_(target, source, tau)  # pyright: ignore[reportPrivateImportUsage]
