"""PPO: proximal policy optimization with the clipped objective, for continuous actions.

Schulman et al. 2017 (arXiv 1707.06347) eq. 7, with GAE (arXiv 1506.02438), the details of Huang et al. 2022
("The 37 implementation details of PPO") that matter for continuous control, and a learning rate that follows the
KL divergence of the update. Legend: N worlds, T time, B minibatch, A action, D observation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..batch import Batch, Sample
from ..datasets.rollout import Rollout
from ..errors import UsageError
from ..keyed import Stream
from ..normalizer import Normalizer
from ..spec import Spec
from .learner import require_continuous
from .networks import initialize_, linear_layers, mlp
from .policy import Policy
from .returns import gae
from .settings import require, setting

GROUP = "state"  # the observation group that actor and critic read


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO; the defaults learn `reach/fr3` with 256 worlds."""

    learning_rate: float = setting(1e-3, "Step size of Adam at the start.")
    min_learning_rate: float = setting(1e-5, "Smallest step size that the KL rule may choose.")
    max_learning_rate: float = setting(3e-3, "Largest step size that the KL rule may choose.")
    target_kl: float = setting(0.015, "KL divergence [nat] that an update should reach; 0 keeps the step size fixed.")
    anneal: float = setting(0.0, "Fraction of the largest step size that is gone, linearly, at the planned end.")
    discount: float = setting(0.95, "Discount of a reward one control step later.")
    gae_lambda: float = setting(0.95, "Weight of longer returns in the advantage (GAE).")
    clip: float = setting(0.2, "Ratio of new to old action probability is clipped to 1 +- this.")
    collect_steps: int = setting(25, "Control steps of every world before each update.")
    epochs: int = setting(5, "Passes over the collected steps in one update.")
    minibatches: int = setting(4, "Gradient steps per pass.")
    entropy_coef: float = setting(0.0, "Weight of the entropy bonus.")
    value_coef: float = setting(1.0, "Weight of the critic's loss.")
    max_grad_norm: float = setting(
        1.0, "Norm to which the gradients of actor and critic, each on its own, are clipped."
    )
    log_std: float = setting(-0.5, "Log of the exploration noise at the start, in units of the action.")
    final_log_std: float | None = setting(
        None, "Log of the noise at the planned end, approached linearly; none learns the noise instead."
    )
    hidden: tuple[int, ...] = setting((128, 128), "Sizes of the hidden layers of actor and of critic.")
    activation: Literal["elu", "relu", "tanh"] = setting("elu", "Activation between the layers.")
    normalize_obs: bool = setting(True, "Normalize observations by their running mean and deviation.")

    def __post_init__(self) -> None:
        def number(name: str, low: float, high: float, valid: str, open_low: bool = False) -> None:
            value = getattr(self, name)
            require(math.isfinite(value) and (low < value if open_low else low <= value) and value <= high,
                    name, value, valid)  # fmt: skip

        for name in ("learning_rate", "min_learning_rate", "max_learning_rate"):
            number(name, 0.0, 1.0, "a number above 0, at most 1", open_low=True)
        low, high = self.min_learning_rate, self.max_learning_rate
        require(low <= self.learning_rate <= high, "learning_rate", self.learning_rate,
                f"between min_learning_rate {low} and max_learning_rate {high}")  # fmt: skip
        for name in ("anneal", "discount", "gae_lambda"):
            number(name, 0.0, 1.0, "a number from 0 to 1")
        for name in ("target_kl", "entropy_coef", "value_coef"):
            number(name, 0.0, math.inf, "a number of at least 0")
        for name in ("clip", "max_grad_norm"):
            number(name, 0.0, math.inf, "a number above 0", open_low=True)
        number("log_std", -10.0, 2.0, "a number from -10 to 2")
        if self.final_log_std is not None:
            number("final_log_std", -10.0, 2.0, "a number from -10 to 2, or none")
        require(self.collect_steps >= 2, "collect_steps", self.collect_steps, "at least 2")
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.minibatches >= 1, "minibatches", self.minibatches, "at least 1")
        require(len(self.hidden) > 0 and all(n > 0 for n in self.hidden), "hidden", self.hidden, "positive sizes")


# ---- the mathematics: pure functions, one paper equation each --------------------------------------------------


def log_prob(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density (B,) of x (B, A) under independent Gaussians mean (B, A), log_std (A,)."""
    return -(0.5 * ((x - mean) * torch.exp(-log_std)) ** 2 + log_std + 0.5 * math.log(2 * math.pi)).sum(-1)


def entropy(log_std: Tensor) -> Tensor:
    """Entropy [nat] of independent Gaussians with log_std (A,): a scalar."""
    return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def kl(old_mean: Tensor, old_log_std: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(old || new) [nat] (B,) of independent Gaussians, exact: means (B, A), log_std (A,)."""
    variance_ratio = torch.exp(2.0 * (old_log_std - log_std))
    shift = (old_mean - mean) * torch.exp(-log_std)
    return (log_std - old_log_std + 0.5 * (variance_ratio + shift**2 - 1.0)).sum(-1)


def clip_objective(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """min(r A, clip(r, 1 - eps, 1 + eps) A), to be maximized: Schulman et al. 2017 eq. 7, per row (B,)."""
    return torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)


def standardize(advantage: Tensor) -> Tensor:
    """Advantages (B,) with mean 0 and deviation 1; equal ones, or a single one, become 0 rather than NaN."""
    centred = advantage - advantage.mean()
    return centred / (centred.square().mean().sqrt() + 1e-8)


def adapt_learning_rate(rate: Tensor, divergence: Tensor, target: float, low: float, high: float) -> Tensor:
    """The step size after seeing the update's KL: less above twice the target, more below half of it.

    On the device, without a look from the host. The rule is rsl_rl's; the paper adapts a penalty the same way.
    """
    rate = torch.where(divergence > 2.0 * target, rate / 1.5, rate)
    rate = torch.where(divergence < 0.5 * target, rate * 1.5, rate)
    return rate.clamp(low, high)


class ActorCritic(nn.Module):
    """Separate actor and critic, and exploration noise that does not depend on the state."""

    def __init__(self, obs_dim: int, action_dim: int, config: PPOConfig, generator: torch.Generator):
        super().__init__()
        # a small last layer starts near the mean action 0 (Huang et al. 2022, detail 2)
        self.actor = initialize_(mlp([obs_dim, *config.hidden, action_dim], config.activation), generator, 0.01)
        self.critic = initialize_(mlp([obs_dim, *config.hidden, 1], config.activation), generator, 1.0)
        self.log_std = nn.Parameter(torch.full((action_dim,), config.log_std))

    def value(self, x: Tensor) -> Tensor:
        """State values (...) of normalized observations (..., D)."""
        return self.critic(x).squeeze(-1)

    def parts(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters of the policy and those of the critic."""
        return [self.log_std, *self.actor.parameters()], list(self.critic.parameters())


# ---- the learner -----------------------------------------------------------------------------------------------


class PPO:
    """The learner; see `Learner` for the contract."""

    def __init__(
        self,
        spec: Spec,
        config: PPOConfig,
        num_envs: int,
        seed: int,
        device: torch.device | str = "cpu",
        planned_steps: int = 0,
    ):
        """`planned_steps`: environment steps of the whole run over all worlds, for annealing; 0 is unknown."""
        require_continuous(spec, GROUP, "ppo")
        if planned_steps <= 0 and (config.anneal > 0 or config.final_log_std is not None):
            raise UsageError(f"settings anneal = {config.anneal} and final_log_std = {config.final_log_std} need the "
                             f"planned number of steps; give --steps, or set them to 0 and none")  # fmt: skip
        self.spec, self.config, self.num_envs = spec, config, num_envs
        self.device, self.planned_steps = torch.device(device), planned_steps
        self.collect_steps = config.collect_steps
        self.request = Sample(batch_size=0, length=config.collect_steps)

        weights = torch.Generator().manual_seed(int(Stream(seed, "ppo/weights").integer(0, 0)[0]))
        self.generator = torch.Generator(self.device).manual_seed(int(Stream(seed, "ppo/draws").integer(0, 0)[0]))
        self.networks = ActorCritic(spec.obs_dim(GROUP), spec.action_dim, config, weights).to(self.device)
        self.networks.log_std.requires_grad_(config.final_log_std is None)  # Adam passes over what has no gradient
        self.normalizer = Normalizer(spec.obs_dim(GROUP), device=self.device) if config.normalize_obs else None
        self.learning_rate = torch.tensor(config.learning_rate, device=self.device)  # as the KL rule left it
        self._parameters = list(self.networks.parameters())
        # the step size is a tensor that changes in place: the optimizer reads it, the host never does
        self._step_size = self.learning_rate.clone()
        self.optimizer = torch.optim.Adam(self._parameters, lr=self._step_size, eps=1e-5, fused=True)
        self.steps = 0  # environment steps learned from, over all worlds

    def make_buffer(self) -> Rollout:
        return Rollout(self.spec, self.num_envs, self.collect_steps, self.device)

    def updates_due(self, env_steps: int) -> int:
        """One update after every collect phase."""
        return 1

    def initial_state(self, n: int) -> dict[str, Tensor]:
        return {}

    @torch.no_grad()
    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        """A Gaussian action, clipped for the world, and unclipped as the ratio needs it.

        Returns:
            action (N, A) in [-1, 1] on the device of `obs`; extras `raw_action`, `mean` (N, A) and `log_prob` (N,);
            the unchanged state. Values are not kept: `update` computes them in one large batch for less.
        """
        mean = self.networks.actor(self._normalize(obs[GROUP].to(self.device)))
        noise = torch.randn(mean.shape, generator=self.generator, device=self.device)
        raw_action = mean + torch.exp(self.networks.log_std) * noise
        extras = {
            "raw_action": raw_action,
            "mean": mean,
            "log_prob": log_prob(raw_action, mean, self.networks.log_std),
        }
        return raw_action.clamp(-1.0, 1.0).to(obs[GROUP].device), extras, state

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Several epochs of clipped policy improvement and value regression on one rollout (N, T)."""
        config = self.config
        rows, metrics = self._prepare(batch)
        old_log_std = self.networks.log_std.detach().clone()
        count = len(rows["advantage"])
        record = []
        for _ in range(config.epochs):
            order = torch.randperm(count, generator=self.generator, device=self.device)
            for index in order.chunk(config.minibatches):
                record.append(self._step({k: v[index] for k, v in rows.items()}, old_log_std, first=not record))
        self.steps += batch.reward.numel()
        if config.final_log_std is not None:  # after the update, as the normalizer
            scheduled = config.log_std + (config.final_log_std - config.log_std) * self._progress()
            with torch.no_grad():
                self.networks.log_std.fill_(scheduled)
        if self.normalizer is not None:  # after the update, so that acting and the old log_prob saw the same inputs
            self.normalizer.update(batch.obs[GROUP].to(self.device), None if batch.mask is None else batch.mask)

        # a gradient that is not finite shows in its norm, so the loop that looks at metrics stops before saving
        means = {name: torch.stack([values[name] for values in record]).mean() for name in record[0]}
        metrics.update(means)
        metrics["policy/kl"] = torch.stack([values["policy/kl"] for values in record[-config.minibatches :]]).mean()
        metrics["policy/entropy"] = entropy(self.networks.log_std.detach())
        metrics["policy/log_std"] = self.networks.log_std.detach().mean()
        metrics["learning_rate"] = self._step_size.clone()
        return metrics

    def policy(self) -> Policy:
        """The mean action, clipped to [-1, 1], as a detached copy."""
        network: dict[str, Any] = {"kind": "mlp", "groups": [GROUP], "hidden": list(self.config.hidden),
                                   "activation": self.config.activation, "head": "clip"}  # fmt: skip
        tensors = {}
        for i, layer in enumerate(linear_layers(self.networks.actor)):
            tensors[f"actor.{i}.weight"], tensors[f"actor.{i}.bias"] = layer.weight, layer.bias
        if self.normalizer is not None:
            network["normalizer_clip"] = self.normalizer.clip
            tensors["normalizer.mean"], tensors["normalizer.std"] = self.normalizer.mean32, self.normalizer.std32
        return Policy(self.spec, "ppo", network, tensors)

    # ---- one update --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _prepare(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The rollout's transitions as rows (N * T, ...) with advantage and value target, and metrics of the critic.

        The value of a successor is that of the next observation, but where the episode ended or the rollout did;
        those few are evaluated on their own.
        """
        obs = self._normalize(batch.obs[GROUP])  # (N, T, D)
        value = self.networks.value(obs)  # (N, T)
        ends = batch.done.clone()
        ends[:, -1] = True
        next_value = torch.cat([value[:, 1:], value[:, -1:]], dim=1)
        next_value[ends] = self.networks.value(self._normalize(batch.next_obs[GROUP][ends]))
        advantage = gae(batch.reward, value, next_value, batch.terminated, batch.truncated,
                        self.config.discount, self.config.gae_lambda, batch.mask)  # fmt: skip
        rows = {
            "obs": obs,
            "raw_action": batch.extras["raw_action"],
            "mean": batch.extras["mean"],
            "log_prob": batch.extras["log_prob"],
            "advantage": advantage,
            "value_target": advantage + value,
        }
        rows = {name: x.flatten(0, 1) for name, x in rows.items()}
        if batch.mask is not None:
            keep = batch.mask.flatten()
            rows = {name: x[keep] for name, x in rows.items()}
        error, target = rows["advantage"], rows["value_target"]
        explained = 1.0 - error.var(correction=0) / target.var(correction=0).clamp_min(1e-12)
        return rows, {"critic/explained_variance": explained}

    def _step(self, rows: dict[str, Tensor], old_log_std: Tensor, first: bool) -> dict[str, Tensor]:
        """One gradient step on a minibatch, and its metrics, as they were before the step."""
        config, networks = self.config, self.networks
        mean = networks.actor(rows["obs"])  # (B, A)
        ratio = torch.exp(log_prob(rows["raw_action"], mean, networks.log_std) - rows["log_prob"])  # (B,)
        policy_loss = -clip_objective(ratio, standardize(rows["advantage"]), config.clip).mean()
        critic_loss = (networks.value(rows["obs"]) - rows["value_target"]).square().mean()
        loss = policy_loss + config.value_coef * critic_loss
        if config.entropy_coef > 0:
            loss = loss - config.entropy_coef * entropy(networks.log_std)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():
            divergence = kl(rows["mean"], old_log_std, mean, networks.log_std).mean()
            clipped = ((ratio - 1.0).abs() > config.clip).float().mean()
            self._choose_step_size(divergence, first)
        # apart, so that a critic far from its targets does not shrink the actor's step
        norms = [nn.utils.clip_grad_norm_(part, config.max_grad_norm, foreach=True) for part in networks.parts()]
        self.optimizer.step()
        return {
            "policy/loss": policy_loss.detach(),
            "critic/loss": critic_loss.detach(),
            "policy/clip_fraction": clipped,
            "policy/kl": divergence,
            "policy/grad_norm": norms[0],
            "critic/grad_norm": norms[1],
        }

    def _choose_step_size(self, divergence: Tensor, first: bool) -> None:
        """Set the step size by the KL rule, under a bound that falls over the planned run.

        The first minibatch of an update says nothing: nothing has moved yet.
        """
        config = self.config
        high = config.max_learning_rate if config.target_kl > 0 else config.learning_rate
        bound = high * (1.0 - config.anneal * self._progress())
        if config.target_kl > 0 and not first:
            self.learning_rate = adapt_learning_rate(self.learning_rate, divergence, config.target_kl,
                                                     config.min_learning_rate, config.max_learning_rate)  # fmt: skip
        self._step_size.copy_(self.learning_rate.clamp_max(bound))

    def _progress(self) -> float:
        """How much of the planned run lies behind: 0 to 1."""
        return min(1.0, self.steps / self.planned_steps) if self.planned_steps else 0.0

    def _normalize(self, x: Tensor) -> Tensor:
        return x if self.normalizer is None else self.normalizer(x)

    # ---- exact resume ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `act` and `update` depend on."""
        names = [name for name, _ in self.networks.named_parameters()]
        moments = {name: dict(self.optimizer.state[p]) for name, p in zip(names, self._parameters, strict=True)}
        return {
            "networks": dict(self.networks.state_dict()),
            "optimizer": moments,
            "learning_rate": self.learning_rate,
            "generator": self.generator.get_state(),
            "normalizer": {} if self.normalizer is None else self.normalizer.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.networks.load_state_dict(state["networks"])
        for name, p in self.networks.named_parameters():
            # empty before the first update
            self.optimizer.state[p] = {k: v.to(self.device).clone() for k, v in state["optimizer"][name].items()}
        self.learning_rate = state["learning_rate"].to(self.device).clone()
        self.generator.set_state(state["generator"].cpu())
        if self.normalizer is not None:
            self.normalizer.load_state_dict(state["normalizer"])
        self.steps = int(state["steps"])
