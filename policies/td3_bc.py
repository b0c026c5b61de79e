"""TD3+BC: TD3's critics, and an actor that also stays near the data (Fujimoto & Gu 2021, arXiv 2106.06860).

    a'      = clip(pi'(s') + clip(eps, -c, c), -1, 1),   eps ~ N(0, noise^2)                TD3, section 5.3
    y       = r + gamma (1 - terminated) min_i Q'_i(s', a')
    J_Q     = sum_i E[ (Q_i(s, a) - y)^2 ]
    J_pi    = -lambda E[ Q_1(s, pi(s)) ] + E[ (pi(s) - a)^2 ],   lambda = alpha / E|Q_1(s, pi(s))|     eq. 4, 5
    Q', pi' <- slowly follow Q, pi, whenever the actor is updated: every policy_delay updates

Observations are normalized by the moments of the data (section 4.2). lambda counts as constant; the square is a mean
over rows and dimensions, as in the authors' code.

Legend: B batch, D inputs, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..batch import Batch
from ..spec import Spec
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


@dataclass(frozen=True)
class TD3BCConfig:
    """Settings of TD3+BC; defaults are the paper's (table 3)."""

    alpha: float = setting(2.5, "Weight of the critic against imitation; 0 imitates alone.")
    hidden: tuple[int, ...] = setting((256, 256), "Hidden layer sizes of actor and critics, with ReLU between them.")
    learning_rate: float = setting(3e-4, "Step size of Adam, of actor and critics.")
    discount: float = setting(0.99, "Weight of the value one step later.")
    tau: float = setting(0.005, "Share of the networks that the targets take on with an update of the actor.")
    noise: float = setting(0.2, "Deviation of the noise on the target's actions.")
    noise_clip: float = setting(0.5, "Largest such noise.")
    policy_delay: int = setting(2, "Updates of the critics for one of the actor.")
    batch_size: int = setting(256, "Transitions per update.")
    normalize_obs: bool = setting(True, "Normalize observations by their mean and deviation in the data.")

    def __post_init__(self) -> None:
        require_common(self)
        require(self.alpha >= 0, "alpha", self.alpha, "0 or more")
        require(self.noise >= 0, "noise", self.noise, "0 or more")
        require(self.noise_clip >= 0, "noise_clip", self.noise_clip, "0 or more")
        require(self.policy_delay >= 1, "policy_delay", self.policy_delay, "at least 1")


class TD3BC(OfflineLearner):
    """The learner."""

    name = "td3_bc"

    def __init__(self, spec: Spec, config: TD3BCConfig, facts: DataFacts, seed: int,
                 device: torch.device | str = "cpu", planned_steps: int = 0):  # fmt: skip
        require_continuous_actions(spec, self.name)
        super().__init__(spec, config, facts, seed, device, planned_steps)
        inputs, *hidden, actions = self.sizes
        self.actor = Net(1, self.sizes, self.weights, self.device)
        self.critic = Net(2, [inputs + actions, *hidden, 1], self.weights, self.device)
        self.target_actor, self.target_critic = ([p.clone() for p in net.params] for net in (self.actor, self.critic))
        self.updates = 0
        # of the actor's last update, in the log lines of those without one too
        self.last = {name: torch.zeros((), device=self.device) for name in ("policy/loss", "policy/action_error")}
        # the actor climbs the first critic alone
        self._first = Net(1, [inputs + actions, *hidden, 1], torch.Generator(), self.device)
        self._first.params = [p[:1] for p in self.critic.params]  # views: they follow

    @torch.no_grad()
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on J_Q; every policy_delay of them one on J_pi and the targets."""
        c, obs, next_obs, action = self.config, self.inputs(batch.obs), self.inputs(batch.next_obs), batch.action
        out, _ = self.actor(next_obs, self.target_actor)
        smooth = self.noise(*action.shape).mul_(c.noise).clamp_(-c.noise_clip, c.noise_clip)
        next_action = torch.tanh(out[0]).add_(smooth).clamp_(-1.0, 1.0)
        next_q, _ = self.critic(torch.cat([next_obs, next_action], -1), self.target_critic)
        y = td_target(batch.reward, batch.terminated, next_q[..., 0].amin(0), c.discount)
        x = torch.cat([obs, action], -1)
        q, hidden = self.critic(x)
        loss, d_q = squared_error(q[..., 0], y)
        self.critic.descend(x, hidden, d_q[..., None], c.learning_rate)
        self.updates += 1
        metrics = {"critic/loss": loss, "critic/q": q.mean()}
        if self.updates % c.policy_delay == 0:
            self.last = self._improve(obs, action)
        return metrics | self.last

    def _improve(self, obs: Tensor, action: Tensor) -> dict[str, Tensor]:
        """One step on J_pi, then the targets follow."""
        out, hidden = self.actor(obs)
        acted = torch.tanh(out)  # (1, B, A)
        q, q_hidden = self._first(torch.cat([obs, acted[0]], -1))
        loss, error, d_q, d_acted = actor_loss(q[..., 0], acted[0], action, self.config.alpha)
        d_acted = d_acted + self._first.input_gradient(q_hidden, d_q[..., None], obs.shape[1])
        d_out = d_acted[None] * (1.0 - acted.square())
        self.actor.descend(obs, hidden, d_out, self.config.learning_rate)
        polyak_(self.target_critic, self.critic.params, self.config.tau)
        polyak_(self.target_actor, self.actor.params, self.config.tau)
        return {"policy/loss": loss, "policy/action_error": error}

    def changing(self) -> dict[str, Tensor]:
        targets = {"target_actor": self.target_actor, "target_critic": self.target_critic}
        return self.actor.tensors("actor") | self.critic.tensors("critic") | numbered(targets) | self.last

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.updates = int(state["updates"])


def actor_loss(q: Tensor, acted: Tensor, action: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """J_pi, the mean square from the data, dJ_pi/dq (1, B), and what imitation adds to dJ_pi/dacted (B, A)."""
    weight = alpha / q.abs().mean()
    error = acted - action
    square = error.square().mean()
    return square - weight * q.mean(), square, (-weight / q.numel()).expand(q.shape), error * (2.0 / error.numel())
