"""PPO: proximal policy optimization with the clipped objective or a KL penalty, for continuous and discrete actions.

Schulman et al. 2017 (arXiv 1707.06347), with GAE (arXiv 1506.02438), the details of Huang et al. 2022 ("The 37
implementation details of PPO") that matter for control, and a learning rate that can follow the KL divergence of the
update. The equations are in ppo_losses.py, the gradient step in ppo_update.py.

Legend: N worlds, T time, B rows, A action, D observation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..batch import Batch, Sample
from ..datasets.rollout import Rollout
from ..errors import UsageError
from ..keyed import Stream
from ..normalizer import Normalizer
from ..spec import Spec
from .policy import Policy
from .ppo_losses import OBJECTIVES, Rates, Rows, Rule, adapt_penalty
from .ppo_update import METRICS, Perceptrons
from .return_normalizer import ReturnNormalizer
from .returns import gae
from .settings import require, setting
from .stacked_mlp import ACTIVATIONS

PRIVILEGED = "privileged"  # the observation group that the critic reads beside the actor's


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
    objective: Literal["clip", "adaptive_kl", "fixed_kl", "none"] = setting(
        "clip", "What keeps an update near the old policy: clip, a penalty on KL (adaptive_kl, fixed_kl), or none."
    )
    clip: float = setting(0.2, "Ratio of new to old action probability is clipped to 1 +- this, by objective clip.")
    penalty: float = setting(1.0, "Weight of the KL penalty: that of fixed_kl, or where adaptive_kl starts.")
    penalty_kl: float = setting(0.01, "KL divergence [nat] of an update that adaptive_kl aims at.")
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
    normalize_returns: bool = setting(
        False, "Scale rewards by the running deviation of the discounted return; logs show them unscaled."
    )

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
        for name in ("target_kl", "entropy_coef", "value_coef", "penalty"):
            number(name, 0.0, math.inf, "a number of at least 0")
        for name in ("clip", "max_grad_norm", "penalty_kl"):
            number(name, 0.0, math.inf, "a number above 0", open_low=True)
        number("log_std", -10.0, 2.0, "a number from -10 to 2")
        if self.final_log_std is not None:
            number("final_log_std", -10.0, 2.0, "a number from -10 to 2, or none")
        for name, choices in (("objective", OBJECTIVES), ("activation", ACTIVATIONS)):
            value = getattr(self, name)
            require(value in choices, name, value, f"one of {', '.join(choices)}")
        require(self.collect_steps >= 2, "collect_steps", self.collect_steps, "at least 2")
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.minibatches >= 1, "minibatches", self.minibatches, "at least 1")
        require(len(self.hidden) > 0 and all(n > 0 for n in self.hidden), "hidden", self.hidden, "positive sizes")


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
        _check(spec, config, num_envs, planned_steps)
        self.spec, self.config, self.num_envs = spec, config, num_envs
        self.device, self.planned_steps = torch.device(device), planned_steps
        self.collect_steps = config.collect_steps
        self.request = Sample(batch_size=0, length=config.collect_steps)
        self.rule = Rule(
            config.objective, config.clip, config.value_coef, config.entropy_coef, config.max_grad_norm,
            config.target_kl, config.min_learning_rate, config.max_learning_rate,
        )  # fmt: skip

        self.groups = spec.vectors  # what the actor reads; the critic reads what only training knows, too
        self.critic_groups = (*self.groups, *(g for g in spec.observations if g == PRIVILEGED))
        self._seen = sum(spec.obs_dim(g) for g in self.groups)
        known = sum(spec.obs_dim(g) for g in self.critic_groups)
        weights = torch.Generator().manual_seed(int(Stream(seed, "ppo/weights").integer(0, 0)[0]))
        self.generator = torch.Generator(self.device).manual_seed(int(Stream(seed, "ppo/draws").integer(0, 0)[0]))
        self.networks = Perceptrons(
            self._seen, known, spec.choices or spec.action_dim, config.hidden, config.activation,
            None if spec.discrete else config.log_std, weights, self.device,
        )  # fmt: skip
        self.networks.learn_noise = config.final_log_std is None
        self.normalizer = Normalizer(known, device=self.device) if config.normalize_obs else None
        self.returns = ReturnNormalizer(num_envs, config.discount, self.device) if config.normalize_returns else None

        rate = torch.tensor(config.learning_rate, device=self.device)
        self.rates = Rates(rate, rate.clone(), rate.clone(), torch.tensor(config.penalty, device=self.device))
        self.steps = 0  # environment steps learned from, over all worlds
        self._refresh()

    def make_buffer(self) -> Rollout:
        return Rollout(self.spec, self.num_envs, self.collect_steps, self.device)

    def updates_due(self, env_steps: int) -> int:
        """One update after every collect phase."""
        return 1

    def initial_state(self, n: int) -> dict[str, Tensor]:
        return {}

    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        """A draw of the policy.

        Returns:
            action (N, A) in [-1, 1], clipped for the world, or choices (N, 1) int64, on the device of `obs`; of a
            continuous action also `raw_action` (N, A), unclipped as the ratio needs it; the unchanged state. Its
            probability is not kept: `update` computes it together with the values, in one large batch for less.
        """
        x = self._concatenated(obs, self.groups)
        out = self.networks.act(self._normalized(x.to(self.device)))
        if self.spec.discrete:
            choice = torch.multinomial(torch.softmax(out, -1), 1, generator=self.generator)
            return choice.to(x.device), {}, state
        noise = torch.randn(out.shape, generator=self.generator, device=self.device)
        raw_action = torch.addcmul(out, self._std, noise)
        return raw_action.clamp(-1.0, 1.0).to(x.device), {"raw_action": raw_action}, state

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Several epochs of policy improvement and value regression on one rollout (N, T)."""
        config, networks, rates = self.config, self.networks, self.rates
        x, rows, metrics = self._prepare(batch)
        old_log_std = networks.log_std.clone()
        high = config.max_learning_rate if config.target_kl > 0 else config.learning_rate
        rates.bound.fill_(high * (1.0 - config.anneal * self._progress()))

        sums, count = torch.zeros(len(METRICS), device=self.device), 0
        for _ in range(config.epochs):
            for part, columns in networks.minibatches(x, rows, config.minibatches, self.generator):
                sums += networks.step(part, columns, old_log_std, self.rule, rates, count == 0)
                count += 1
        # a gradient that is not finite shows in its norm, so the loop that looks at metrics stops before saving
        metrics |= zip(METRICS, (sums / count).unbind(), strict=True)
        metrics |= self._after(x, rows, old_log_std)

        self.steps += batch.reward.numel()
        if config.final_log_std is not None and networks.gaussian:  # after the update, as the normalizer
            scheduled = config.log_std + (config.final_log_std - config.log_std) * self._progress()
            networks.log_std.fill_(scheduled)
        if networks.gaussian:
            metrics["policy/log_std"] = networks.log_std.mean()
        if self.normalizer is not None:  # after the update, so that acting and the old log_prob saw the same inputs
            self.normalizer.update(self._concatenated(batch.obs, self.critic_groups).to(self.device), batch.mask)
        self._refresh()
        return metrics

    def policy(self) -> Policy:
        """The mean action clipped to [-1, 1], or the likeliest choice, as a detached copy."""
        network: dict[str, Any] = {
            "kind": "mlp", "groups": list(self.groups), "hidden": list(self.config.hidden),
            "activation": self.config.activation, "head": "argmax" if self.spec.discrete else "clip",
        }  # fmt: skip
        tensors = self.networks.actor_tensors()
        if self.normalizer is not None:
            network["normalizer_clip"] = self.normalizer.clip
            tensors["normalizer.mean"], tensors["normalizer.std"] = self._statistics
        return Policy(self.spec, "ppo", network, tensors)

    # ---- one update --------------------------------------------------------------------------------------------

    def _prepare(self, batch: Batch) -> tuple[Tensor, Rows, dict[str, Tensor]]:
        """The networks' inputs and the rollout's transitions as rows (N * T, ...), and metrics of the critic.

        The value of a successor is that of the next observation, but where the episode ended or the rollout did;
        those few are evaluated on their own.
        """
        n, t = batch.reward.shape
        x = self._normalized(self._concatenated(batch.obs, self.critic_groups).flatten(0, 1))  # (N * T, D)
        x = self.networks.inputs(x)
        out, value = self.networks.evaluate(x)
        value = value.view(n, t)
        ends = batch.done.clone()
        ends[:, -1] = True
        ends = ends.nonzero(as_tuple=True)
        after = self._concatenated({g: batch.next_obs[g][ends] for g in self.critic_groups}, self.critic_groups)
        next_value = value.roll(-1, 1)
        next_value[ends] = self.networks.values(self._normalized(after))

        reward, metrics = batch.reward, {}
        if self.returns is not None:
            self.returns.update(reward, batch.done, batch.mask)
            reward = self.returns(reward)
            metrics["reward/scale"] = self.returns.scale[0].clone()
        advantage = gae(reward, value, next_value, batch.terminated, batch.truncated,
                        self.config.discount, self.config.gae_lambda, batch.mask)  # fmt: skip

        action = (batch.action[..., 0] if self.spec.discrete else batch.extras["raw_action"]).flatten(0, 1)
        old_log_prob = self.networks.distribution(out, self.networks.log_std).log_prob(action)[0]
        rows = Rows(action, out, old_log_prob, advantage.flatten(), (advantage + value).flatten())
        if batch.mask is not None:
            keep = batch.mask.flatten()
            x, rows, value = x[..., keep, :], Rows(*(c[keep] for c in rows)), value.flatten()[keep]
        error, target = rows.advantage, rows.value_target
        metrics["critic/explained_variance"] = 1.0 - error.var(correction=0) / target.var(correction=0).clamp_min(1e-12)
        metrics["critic/value"] = value.mean() * (1.0 if self.returns is None else self.returns.scale[0])
        return x, rows, metrics

    def _after(self, x: Tensor, rows: Rows, old_log_std: Tensor) -> dict[str, Tensor]:
        """Metrics of the finished update over its whole batch, and what follows from its divergence."""
        networks, rates = self.networks, self.rates
        new = networks.distribution(networks.outputs(x), networks.log_std)
        old = networks.distribution(rows.old, old_log_std)
        divergence = new.kl(old).mean()  # type: ignore[arg-type]
        outside = (torch.exp(new.log_prob(rows.action)[0] - rows.old_log_prob) - 1.0).abs() > self.config.clip
        metrics = {
            "policy/kl": divergence,
            "policy/clip_fraction": outside.float().mean(),
            "policy/entropy": new.entropy().mean(),
            "learning_rate": rates.step_size.clone(),
        }
        if self.rule.penalized:
            metrics["policy/penalty"] = rates.penalty.clone()
        if self.config.objective == "adaptive_kl":
            rates.penalty.copy_(adapt_penalty(rates.penalty, divergence, self.config.penalty_kl))
        return metrics

    def _progress(self) -> float:
        """How much of the planned run lies behind: 0 to 1."""
        return min(1.0, self.steps / self.planned_steps) if self.planned_steps else 0.0

    def _concatenated(self, obs: Mapping[str, Tensor], groups: tuple[str, ...]) -> Tensor:
        """The vector groups side by side: (..., D)."""
        return obs[groups[0]] if len(groups) == 1 else torch.cat([obs[g] for g in groups], -1)

    def _normalized(self, x: Tensor) -> Tensor:
        """x (..., D) as the networks read it: what the critic reads, or the actor's part of it."""
        if self.normalizer is None:
            return x
        if x.shape[-1] != self._seen:
            return self.normalizer(x)
        mean, std = self._statistics
        return ((x - mean) / std).clamp(-self.normalizer.clip, self.normalizer.clip)

    def _refresh(self) -> None:
        """What acting reads, derived from what has just changed."""
        self._std = self.networks.log_std.exp()
        if self.normalizer is not None:
            self._statistics = self.normalizer.mean32[: self._seen], self.normalizer.std32[: self._seen]

    # ---- exact resume ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `act` and `update` depend on."""
        return {
            "networks": {name: tensor.clone() for name, tensor in self._tensors().items()},
            "generator": self.generator.get_state(),
            "normalizer": {} if self.normalizer is None else self.normalizer.state_dict(),
            "returns": {} if self.returns is None else self.returns.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(state["networks"][name])  # in place: views and graphs hold on to these very tensors
        self.generator.set_state(state["generator"].cpu())
        if self.normalizer is not None:
            self.normalizer.load_state_dict(state["normalizer"])
        if self.returns is not None:
            self.returns.load_state_dict(state["returns"])
        self.steps = int(state["steps"])
        self._refresh()

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor that an update changes, by name."""
        rates = {"learning_rate": self.rates.learning_rate, "penalty": self.rates.penalty}
        return {**self.networks.tensors(), **rates}


def _check(spec: Spec, config: PPOConfig, num_envs: int, planned_steps: int) -> None:
    """Raise UsageError where PPO cannot learn a task, or not with these settings."""
    if spec.discrete and len(spec.actions) > 1:
        raise UsageError(f"ppo draws one choice, or continuous actions; this task wants several at once: "
                         f"{', '.join(f'{a.name} ({a.kind})' for a in spec.actions)}")  # fmt: skip
    if not spec.vectors:
        raise UsageError(f"ppo reads flat observation groups; this task has {', '.join(spec.observations)}")
    rows = num_envs * config.collect_steps
    require(2 * config.minibatches <= rows, "minibatches", config.minibatches,
            f"at most {rows // 2}, so that each holds two or more of the {rows} steps of an update: "
            f"advantages are standardized in each")  # fmt: skip
    if planned_steps <= 0 and (config.anneal > 0 or config.final_log_std is not None):
        raise UsageError(f"settings anneal = {config.anneal} and final_log_std = {config.final_log_std} need the "
                         f"planned number of steps; give --steps, or set them to 0 and none")  # fmt: skip
