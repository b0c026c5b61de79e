"""CQL(H): critics that stay low where the data has nothing to say (Kumar et al. 2020, arXiv 2006.04779).

    J_Q     = sum_i E[ (Q_i(s, a) - y)^2 ]
              + alpha sum_i E[ log sum_j exp(Q_i(s, a_j) - log p(a_j)) - Q_i(s, a) ]                    eq. 4
    y       = r + gamma (1 - terminated) min_i Q'_i(s', a'),   a' ~ pi(s')
    J_pi    = E[ beta log pi(a|s) - min_i Q_i(s, a) ],   a ~ pi(s);   beta aims at an entropy, as in SAC
    Q'_i    <- Q'_i + tau (Q_i - Q'_i)

The a_j are `samples` each of the uniform distribution, of pi(s) and of pi(s'), their densities p(a_j) being those they
were drawn with (appendix F): 3 n of them and the data's own action go through both critics in one pass. With
`gap` >= 0 the weight of the second term is a Lagrange multiplier that holds it at alpha (diff - gap) = 0 (eq. 30).

Legend: B batch, D inputs, A action, n samples, J = 3 n + 1 actions of a state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..batch import Batch
from ..spec import Spec
from .adam import adam_, zero_moments
from .distributions import tanh_gaussian, tanh_gaussian_gradient
from .offline_core import DataFacts, Net, OfflineLearner, numbered, require_common, require_continuous_actions
from .returns import td_target
from .sac_update import actor_loss, polyak_, temperature_loss
from .settings import require, setting

MOST_MULTIPLIER = 1e6


@dataclass(frozen=True)
class CQLConfig:
    """Settings of CQL(H); defaults are those published for locomotion."""

    alpha: float = setting(10.0, "Weight of the conservative term.")
    samples: int = setting(10, "Actions of each of the three kinds that it compares with.")
    gap: float = setting(-1.0, "Let a Lagrange multiplier hold the conservative term at this; negative for none.")
    clip_diff: float = setting(0.0, "Below minus this, a row's conservative term pushes no further; 0 for never.")
    max_backup: bool = setting(False, "Whether y takes the best of `samples` actions in place of one.")
    hidden: tuple[int, ...] = setting((256, 256, 256), "Hidden layer sizes of actor and critics, with ReLU.")
    policy_learning_rate: float = setting(3e-5, "Step size of Adam, of the actor and the temperature.")
    learning_rate: float = setting(3e-4, "Step size of Adam, of the critics.")
    discount: float = setting(0.99, "Weight of the value one step later.")
    tau: float = setting(0.005, "Share of the critics that the target critics take on with every update.")
    reward_scale: float = setting(1.0, "What every reward is multiplied with; 10 for antmaze.")
    reward_shift: float = setting(0.0, "What is added to it after that; -5 for antmaze.")
    batch_size: int = setting(256, "Transitions per update.")
    normalize_obs: bool = setting(True, "Normalize observations by their mean and deviation in the data.")

    def __post_init__(self) -> None:
        require_common(self)
        require(self.alpha >= 0, "alpha", self.alpha, "0 or more")
        require(self.samples >= 1, "samples", self.samples, "at least 1")
        require(self.clip_diff >= 0, "clip_diff", self.clip_diff, "0 or more")


class CQL(OfflineLearner):
    """The learner."""

    name = "cql"

    def __init__(self, spec: Spec, config: CQLConfig, facts: DataFacts, seed: int,
                 device: torch.device | str = "cpu", planned_steps: int = 0):  # fmt: skip
        require_continuous_actions(spec, self.name)
        super().__init__(spec, config, facts, seed, device, planned_steps)
        inputs, *hidden, actions = self.sizes
        self.actor = Net(1, [inputs, *hidden, 2 * actions], self.weights, self.device)
        self.critic = Net(2, [inputs + actions, *hidden, 1], self.weights, self.device)
        self.target_critic = [p.clone() for p in self.critic.params]
        self.log_alpha = torch.zeros((), device=self.device)  # of the temperature
        self.log_multiplier = torch.zeros((), device=self.device)
        self.scalar_moments = zero_moments([self.log_alpha, self.log_multiplier])

    @torch.no_grad()
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on J_Q, then J_pi and the temperature, then the targets."""
        c, rows = self.config, len(batch.action)
        both = self.inputs({g: torch.cat([batch.obs[g], batch.next_obs[g]]) for g in self.groups})  # (2B, D)
        out, actor_hidden = self.actor(both)
        mean, log_std = out[0].chunk(2, -1)  # (2B, A)

        actions, log_p = self._actions(mean, log_std, batch.action)
        reward = batch.reward * c.reward_scale + c.reward_shift
        y = td_target(reward, batch.terminated, self._next_value(both[rows:], mean[rows:], log_std[rows:]), c.discount)
        x = torch.cat([both[:rows].expand(len(actions), -1, -1), actions], -1).flatten(0, 1)  # (J B, D + A)
        q, hidden = self.critic(x)
        q = q[..., 0].unflatten(1, (-1, rows))  # (2, J, B)
        weight = c.alpha * (self.log_multiplier.exp().clamp(max=MOST_MULTIPLIER) if c.gap >= 0 else 1.0)
        loss, diff, d_q = conservative_loss(q, log_p, y, weight, c.clip_diff or math.inf)
        self.critic.descend(x, hidden, d_q.flatten(1)[..., None], c.learning_rate)

        metrics = self._improve(both[:rows], mean[:rows], log_std[:rows], [h[:, :rows] for h in actor_hidden], diff)
        polyak_(self.target_critic, self.critic.params, c.tau)
        return {"critic/loss": loss, "critic/q": q[:, -1].mean(), "critic/conservative": diff.mean(), **metrics}

    def _actions(self, mean: Tensor, log_std: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """(J, B, A): uniform ones, pi(s)'s, pi(s')'s, the data's; and log p (3 n, B) of all but the last."""
        n, (rows, dims) = self.config.samples, action.shape
        uniform = torch.rand((n, rows, dims), generator=self.generator, device=self.device).mul_(2.0).sub_(1.0)
        drawn = tanh_gaussian(mean.expand(n, -1, -1), log_std.expand(n, -1, -1), self.noise(n, 2 * rows, dims))
        flat = torch.full((n, rows), -dims * math.log(2.0), device=self.device)
        actions = [uniform, drawn.action[:, :rows], drawn.action[:, rows:], action[None]]
        return torch.cat(actions), torch.cat([flat, drawn.log_prob[:, :rows], drawn.log_prob[:, rows:]])

    def _next_value(self, next_obs: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
        """min_i Q'_i(s', a') (B,), of one action or of the best of n."""
        n = self.config.samples if self.config.max_backup else 1
        rows, dims = mean.shape
        drawn = tanh_gaussian(mean.expand(n, -1, -1), log_std.expand(n, -1, -1), self.noise(n, rows, dims))
        x = torch.cat([next_obs.expand(n, -1, -1), drawn.action], -1).flatten(0, 1)
        q, _ = self.critic(x, self.target_critic)
        return q[..., 0].unflatten(1, (n, rows)).amax(1).amin(0)

    def _improve(self, obs: Tensor, mean: Tensor, log_std: Tensor, hidden: list[Tensor],
                 diff: Tensor) -> dict[str, Tensor]:  # fmt: skip
        """One step on J_pi, the temperature and the multiplier."""
        c, actor, alpha = self.config, self.actor, self.log_alpha.exp()
        sample = tanh_gaussian(mean, log_std, self.noise(*mean.shape))
        q, q_hidden = self.critic(torch.cat([obs, sample.action], -1))
        loss, d_log_prob, d_q = actor_loss(sample.log_prob, q[..., 0], alpha)
        d_action = self.critic.input_gradient(q_hidden, d_q[..., None], obs.shape[1])
        d_out = torch.cat(tanh_gaussian_gradient(sample, d_action, d_log_prob), -1)[None]
        actor.descend(obs, hidden, d_out, c.policy_learning_rate)
        _, d_alpha = temperature_loss(self.log_alpha, sample.log_prob, -float(mean.shape[1]))
        # the multiplier grows while the term lies above the gap
        d_multiplier = -self.log_multiplier.exp() * c.alpha * (diff - c.gap).sum() if c.gap >= 0 else 0.0 * d_alpha
        adam_([self.log_alpha, self.log_multiplier], [d_alpha, d_multiplier], self.scalar_moments, actor.steps,
              c.policy_learning_rate)  # fmt: skip
        return {"policy/loss": loss, "policy/entropy": -sample.log_prob.mean(), "alpha": alpha}

    def changing(self) -> dict[str, Tensor]:
        scalars = [self.log_alpha, self.log_multiplier]
        lists = {"target_critic": self.target_critic, "scalars": scalars, "scalars_moment_1": self.scalar_moments[0],
                 "scalars_moment_2": self.scalar_moments[1]}  # fmt: skip
        return self.actor.tensors("actor") | self.critic.tensors("critic") | numbered(lists)


def conservative_loss(q: Tensor, log_p: Tensor, target: Tensor, weight: float | Tensor,
                      clip_diff: float = math.inf) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """J_Q, the conservative terms (2,) without their weight, and dJ_Q/dq (2, J, B).

    q: (2, J, B) of the compared actions and, last, of the data's;  log_p: (J - 1, B);  target: (B,).
    """
    rows, data = q.shape[-1], q[:, -1]
    logits = q[:, :-1] - log_p
    high = torch.logsumexp(logits, 1)  # (2, B)
    diff = (high - data).clamp(min=-clip_diff)
    pushes = weight / rows * (high - data > -clip_diff)  # (2, B)
    error = data - target
    d_data = error * (2.0 / rows) - pushes
    d_q = torch.cat([torch.exp(logits - high[:, None]) * pushes[:, None], d_data[:, None]], 1)
    terms = diff.mean(1)
    return (error.square().mean(1) + weight * terms).sum(), terms, d_q
