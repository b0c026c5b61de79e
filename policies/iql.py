"""Implicit Q-learning: the value of the best actions in the data, without asking for any other (Kostrikov 2021).

    J_V     = E[ L_tau( min_i Q'_i(s, a) - V(s) ) ],   L_tau(u) = |tau - 1(u < 0)| u^2                eq. 5
    J_Q     = sum_i E[ ( r + gamma (1 - terminated) V(s') - Q_i(s, a) )^2 ]                            eq. 6
    J_pi    = -E[ min(exp(beta A), 100) log pi(a|s) ],   A = min_i Q'_i(s, a) - V(s)                   eq. 7
    Q'      <- Q' + rate (Q - Q')

pi is a Gaussian around tanh(mu(s)) whose deviations are the same in every state. V(s'), A and the weights are of the
networks before the update. The actor's step size falls to zero along a cosine over the run, and its hidden units are
dropped at random where the data is little and of people (appendix B). arXiv 2110.06169; `expectile` is the paper's
tau, `temperature` its beta.

Legend: B batch, D inputs, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch import Batch
from ..errors import UsageError
from ..spec import Spec
from .adam import adam_, zero_moments
from .distributions import gaussian_log_prob_and_gradient
from .offline_core import (
    DataFacts,
    Net,
    OfflineLearner,
    numbered,
    require_common,
    require_continuous_actions,
    squared_error,
)
from .returns import td_target
from .sac_update import polyak_
from .settings import require, setting

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
MOST = 100.0  # of an advantage's weight


@dataclass(frozen=True)
class IQLConfig:
    """Settings of implicit Q-learning; defaults are the paper's for locomotion."""

    expectile: float = setting(0.7, "Which expectile of the data's Q the value is: 0.5 the mean, towards 1 the best.")
    temperature: float = setting(3.0, "How much more the actor imitates better actions; 0 imitates all alike.")
    hidden: tuple[int, ...] = setting((256, 256), "Hidden layer sizes of actor, critics and value, with ReLU.")
    learning_rate: float = setting(3e-4, "Step size of Adam.")
    anneal: bool = setting(True, "Whether the actor's falls to zero along a cosine over the run.")
    discount: float = setting(0.99, "Weight of the value one step later.")
    tau: float = setting(0.005, "Share of the critics that the target critics take on with every update.")
    scale_rewards: bool = setting(True, "Scale rewards so that the returns of the episodes span 1000.")
    reward_shift: float = setting(0.0, "Added to every reward after that; -1 for antmaze.")
    dropout: float = setting(0.0, "Share of the actor's hidden units that each row of an update leaves out.")
    batch_size: int = setting(256, "Transitions per update.")
    normalize_obs: bool = setting(True, "Normalize observations by their mean and deviation in the data.")

    def __post_init__(self) -> None:
        require_common(self)
        require(0 < self.expectile < 1, "expectile", self.expectile, "a number between 0 and 1")
        require(self.temperature >= 0, "temperature", self.temperature, "0 or more")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 or more, below 1")


class IQL(OfflineLearner):
    """The learner."""

    name = "iql"

    def __init__(self, spec: Spec, config: IQLConfig, facts: DataFacts, seed: int,
                 device: torch.device | str = "cpu", planned_steps: int = 0):  # fmt: skip
        require_continuous_actions(spec, self.name)
        super().__init__(spec, config, facts, seed, device, planned_steps)
        inputs, *hidden, actions = self.sizes
        self.actor = Net(1, self.sizes, self.weights, self.device)
        self.critic = Net(2, [inputs + actions, *hidden, 1], self.weights, self.device)
        self.value = Net(1, [inputs, *hidden, 1], self.weights, self.device)
        self.target_critic = [p.clone() for p in self.critic.params]
        self.log_std = torch.zeros(actions, device=self.device)
        self.log_std_moments = zero_moments([self.log_std])
        self.reward_scale = _span_1000(facts) if config.scale_rewards else 1.0

    @torch.no_grad()
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on J_V, J_Q and J_pi, then the targets follow."""
        c, rows = self.config, len(batch.action)
        both = self.inputs({g: torch.cat([batch.obs[g], batch.next_obs[g]]) for g in self.groups})  # (2B, D)
        obs, x = both[:rows], torch.cat([both[:rows], batch.action], -1)
        v, v_hidden = self.value(both)
        target_q, _ = self.critic(x, self.target_critic)
        adv = target_q[..., 0].amin(0) - v[0, :rows, 0]

        v_loss, d_v = expectile_loss(adv, c.expectile)
        self.value.descend(obs, [h[:, :rows] for h in v_hidden], d_v[None, :, None], c.learning_rate)

        reward = batch.reward * self.reward_scale + c.reward_shift
        y = td_target(reward, batch.terminated, v[0, rows:, 0], c.discount)
        q, q_hidden = self.critic(x)
        q_loss, d_q = squared_error(q[..., 0], y)
        self.critic.descend(x, q_hidden, d_q[..., None], c.learning_rate)

        pi_loss = self._imitate(obs, batch.action, advantage_weight(adv, c.temperature))
        polyak_(self.target_critic, self.critic.params, c.tau)
        return {"critic/loss": q_loss, "critic/q": q.mean(), "value/loss": v_loss, "policy/loss": pi_loss,
                "policy/advantage": adv.mean(), "policy/std": self.log_std.exp().mean()}  # fmt: skip

    def _imitate(self, obs: Tensor, action: Tensor, weight: Tensor) -> Tensor:
        """One step on J_pi, for the weights (B,)."""
        left_out = self.dropout(self.actor, len(obs), self.config.dropout)
        out, hidden = self.actor(obs, dropout=left_out)
        mean = torch.tanh(out)  # (1, B, A)
        log_prob, gradient = gaussian_log_prob_and_gradient(action, mean[0], self.log_std)
        d_mean, d_log_std = gradient(weight * (-1.0 / len(weight)))
        d_out = d_mean[None] * (1.0 - mean.square())
        c, actor = self.config, self.actor
        rate = self.annealed(c.learning_rate, actor.steps) if c.anneal else c.learning_rate
        actor.steps.add_(1.0)
        moments = tuple([*a, *b] for a, b in zip(actor.moments, self.log_std_moments, strict=True))
        adam_([*actor.params, self.log_std], [*actor.gradient(obs, hidden, d_out, left_out), d_log_std],
              (moments[0], moments[1]), actor.steps, rate)  # fmt: skip
        self.log_std.clamp_(LOG_STD_MIN, LOG_STD_MAX)
        return -(weight * log_prob).mean()

    def changing(self) -> dict[str, Tensor]:
        lists = {"target_critic": self.target_critic, "log_std": [self.log_std], "log_std_moment_1":
                 self.log_std_moments[0], "log_std_moment_2": self.log_std_moments[1]}  # fmt: skip
        nets = {"actor": self.actor, "critic": self.critic, "value": self.value}
        return {k: t for name, net in nets.items() for k, t in net.tensors(name).items()} | numbered(lists)


def expectile_loss(error: Tensor, expectile: float) -> tuple[Tensor, Tensor]:
    """J_V of error = Q - V (B,), and its derivative with respect to V."""
    weight = torch.where(error < 0, 1.0 - expectile, expectile)
    return (weight * error.square()).mean(), weight * error * (-2.0 / len(error))


def advantage_weight(adv: Tensor, temperature: float) -> Tensor:
    """min(exp(beta A), 100), (B,)."""
    return torch.exp(temperature * adv).clamp(max=MOST)


def _span_1000(facts: DataFacts) -> float:
    if facts.returns is None or not facts.returns[0] < facts.returns[1]:
        raise UsageError(f"setting scale_rewards: expected episodes of different returns, found {facts.returns}; "
                         f"set scale_rewards=false")  # fmt: skip
    return 1000.0 / (facts.returns[1] - facts.returns[0])
