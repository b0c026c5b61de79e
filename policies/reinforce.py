"""REINFORCE and what made it better, rung by rung: Williams 1992, Sutton et al. 2000, Schulman et al. 2015.

    grad J = E[ sum_t discount^t grad log pi(a_t|s_t) Psi_t ],   estimated from M whole episodes

    Psi_t    total     sum_t' discount^t' r_t'                        the return of the whole episode
             to_go     G_t = sum_{t' >= t} discount^(t'-t) r_t'       rewards that the action can still change
             n_step    r_t + … + discount^n V(s_{t+n})                bootstrapped after n steps
             gae       sum_l (discount lambda)^l delta_{t+l}          Schulman et al. 2015 (arXiv 1506.02438) eq. 16
    less     b         none | the mean of Psi | V(s_t)                which changes the variance, not the expectation

The exact gradient carries discount^t (`discount_weight`), but for `total`, which is discounted from the start already.
Nearly everybody leaves it out, which is biased and lets late steps count as much as early ones. With V(s_t) as baseline
the critic is fitted to the returns by `value_steps` steps of Adam after the policy's step, so that an episode's own
return never serves as its own baseline; where time ran out it also gives the rest of the return. gae with a critic is
the lecture's actor-critic, with the slips of its pseudo-code corrected: gradients are added to the parameters,
ascending for the policy and descending for the critic.

Legend: M episodes, T time, R rows (steps of all episodes), A action, D observation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ..batch import Batch, Sample
from ..datasets.episode_buffer import EpisodeBuffer
from ..errors import UsageError
from ..keyed import Stream
from ..normalizer import Normalizer
from ..spec import Spec
from .adam import Moments, adam_, zero_moments
from .distributions import (
    categorical_entropy,
    categorical_log_prob_and_gradient,
    categorical_sample,
    gaussian_entropy,
    gaussian_log_prob_and_gradient,
)
from .learner import concatenated, require_vectors
from .policy import Policy
from .returns import discounted_returns, gae, n_step_returns
from .settings import require, setting
from .stacked_mlp import ACTIVATIONS, Params, Workspace, draw, forward, parameter_gradient

ESTIMATORS = ("total", "to_go", "n_step", "gae")
BASELINES = ("none", "mean", "value")


@dataclass(frozen=True)
class ReinforceConfig:
    """Settings of REINFORCE and of the actor-critic on whole episodes."""

    estimator: Literal["total", "to_go", "n_step", "gae"] = setting("to_go", "What an action is credited with.")
    baseline: Literal["none", "mean", "value"] = setting("value", "What is subtracted from it: none, mean or value.")
    discount: float = setting(0.99, "Discount of a reward one step later.")
    discount_weight: bool = setting(
        False, "Weight step t by discount^t, as the exact gradient has it; total needs none."
    )
    n_step: int = setting(5, "Rewards before the bootstrap, by estimator n_step.")
    gae_lambda: float = setting(0.95, "Weight of longer returns, by estimator gae.")
    episodes: int = setting(16, "Whole episodes of an update, the same number from every world.")
    learning_rate: float = setting(1e-2, "Step size of Adam for the policy.")
    value_learning_rate: float = setting(1e-2, "Step size of Adam for the critic.")
    value_steps: int = setting(20, "Steps of Adam on the critic in one update, each on all rows.")
    hidden: tuple[int, ...] = setting((64,), "Sizes of the hidden layers of policy and critic.")
    activation: Literal["elu", "relu", "tanh"] = setting("tanh", "Activation between the layers.")
    log_std: float = setting(-0.5, "Log of the noise on continuous actions at the start; it is learned.")
    normalize_obs: bool = setting(False, "Normalize observations by their running mean and deviation.")

    def __post_init__(self) -> None:
        def number(name: str, low: float, high: float, valid: str, open_low: bool = False) -> None:
            value = getattr(self, name)
            require(math.isfinite(value) and (low < value if open_low else low <= value) and value <= high,
                    name, value, valid)  # fmt: skip

        for name, choices in (("estimator", ESTIMATORS), ("baseline", BASELINES), ("activation", ACTIVATIONS)):
            require(getattr(self, name) in choices, name, getattr(self, name), f"one of {', '.join(choices)}")
        if self.estimator in ("n_step", "gae"):
            require(self.baseline == "value", "baseline", self.baseline,
                    f"value, since estimator {self.estimator} bootstraps from a critic")  # fmt: skip
        for name in ("discount", "gae_lambda"):
            number(name, 0.0, 1.0, "a number from 0 to 1")
        for name in ("learning_rate", "value_learning_rate"):
            number(name, 0.0, 1.0, "a number above 0, at most 1", open_low=True)
        number("log_std", -10.0, 2.0, "a number from -10 to 2")
        for name in ("n_step", "episodes", "value_steps"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(len(self.hidden) > 0 and all(n > 0 for n in self.hidden), "hidden", self.hidden, "positive sizes")


class Credit(NamedTuple):
    """What an update makes of its episodes, each (M, T), zero where the mask is."""

    psi: Tensor  # Psi_t - b, with its weight discount^t: what grad log pi is multiplied with
    target: Tensor  # what the critic is fitted to


def credit(
    batch: Batch, value: Tensor | None, next_value: Tensor | None, config: ReinforceConfig, mask: Tensor
) -> Credit:
    """Psi and the critic's targets of episodes (M, T); value and next_value (M, T) where there is a critic."""
    ends, discount = (batch.terminated, batch.truncated), config.discount
    to_go = discounted_returns(batch.reward, next_value, *ends, discount, mask)
    psi = target = to_go
    if config.estimator == "total":
        psi = to_go[:, :1].expand_as(to_go)
    elif config.estimator == "n_step":
        assert next_value is not None
        psi = target = n_step_returns(batch.reward, next_value, *ends, discount, config.n_step, mask)
    elif config.estimator == "gae":
        assert value is not None and next_value is not None
        psi = target = value + gae(batch.reward, value, next_value, *ends, discount, config.gae_lambda, mask)
    if config.baseline == "mean":
        psi = psi - psi[mask].mean()
    elif value is not None:
        psi = psi - value
    if config.discount_weight and config.estimator != "total":  # which counts from the episode's start already
        psi = psi * discount ** torch.arange(psi.shape[1], device=psi.device)
    return Credit(torch.where(mask, psi, 0.0), torch.where(mask, target, 0.0))


class Reinforce:
    """The learner; see `Learner` for the contract."""

    collect_steps = 1
    request = Sample(batch_size=0)

    def __init__(
        self,
        spec: Spec,
        config: ReinforceConfig,
        num_envs: int,
        seed: int,
        device: torch.device | str = "cpu",
        planned_steps: int = 0,
    ):
        require_vectors(spec, "reinforce")
        if config.episodes % num_envs:
            raise UsageError(f"setting episodes = {config.episodes}: expected a multiple of the {num_envs} worlds, "
                             f"since each contributes the same number; change episodes or num_envs")  # fmt: skip
        self.spec, self.config, self.num_envs, self.device = spec, config, num_envs, torch.device(device)
        self.groups = spec.vectors
        inputs, outputs = sum(spec.obs_dim(g) for g in self.groups), spec.choices or spec.action_dim
        weights = torch.Generator().manual_seed(int(Stream(seed, "reinforce/weights").integer(0, 0)[0]))
        self.generator = torch.Generator(self.device).manual_seed(int(Stream(seed, "reinforce/draws").integer(0, 0)[0]))
        self.actor: Params = [p.to(self.device) for p in draw(1, [inputs, *config.hidden, outputs], weights)]
        self.critic: Params = [p.to(self.device) for p in draw(1, [inputs, *config.hidden, 1], weights)]
        self.log_std = torch.full((0 if spec.discrete else outputs,), config.log_std, device=self.device)
        self.moments: Moments = zero_moments([*self.actor, self.log_std])
        self.value_moments: Moments = zero_moments(self.critic)
        self.updates, self.value_updates = (torch.zeros((), device=self.device) for _ in range(2))
        self.normalizer = Normalizer(inputs, device=self.device) if config.normalize_obs else None
        self._buffer: EpisodeBuffer | None = None

    def make_buffer(self) -> EpisodeBuffer:
        self._buffer = EpisodeBuffer(self.spec, self.num_envs, self.config.episodes // self.num_envs, self.device)
        return self._buffer

    def updates_due(self, env_steps: int) -> int:
        """One update as soon as every world has contributed its episodes."""
        return int(self._buffer is not None and self._buffer.ready)

    def initial_state(self, n: int) -> dict[str, Tensor]:
        return {}

    @torch.no_grad()
    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        """A draw of the policy: choices (N, 1) int64, or actions (N, A) and, unclipped, `raw_action`."""
        given = obs[self.groups[0]]
        out = self._outputs(self.actor, self._inputs(obs))
        if self.spec.discrete:
            return categorical_sample(out, self.generator).to(given.device), {}, state
        noise = torch.randn(out.shape, generator=self.generator, device=self.device)
        raw_action = torch.addcmul(out, self.log_std.exp(), noise)
        return raw_action.clamp(-1.0, 1.0).to(given.device), {"raw_action": raw_action}, state

    @torch.no_grad()
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the policy up the estimated gradient of J, then several of the critic down its error."""
        mask = batch.mask
        assert mask is not None
        x = self._inputs(batch.obs)  # (M, T, D)
        value = next_value = None
        if self.config.baseline == "value":
            value = self._outputs(self.critic, x)[..., 0]
            next_value = self._outputs(self.critic, self._inputs(batch.next_obs))[..., 0]
        psi, target = credit(batch, value, next_value, self.config, mask)
        rows, episodes = x[mask], len(mask)
        action = batch.action[..., 0] if self.spec.discrete else batch.extras["raw_action"]
        gradient, out = self.gradient(rows, action[mask], psi[mask] / episodes)
        self.updates.add_(1.0)
        adam_(
            [*self.actor, self.log_std], [-g for g in gradient], self.moments, self.updates, self.config.learning_rate
        )
        metrics = {
            "policy/grad_norm": torch.linalg.vector_norm(torch.stack([g.norm() for g in gradient])),
            "policy/entropy": categorical_entropy(out).mean() if self.spec.discrete else gaussian_entropy(self.log_std),
            "batch/return": batch.reward[mask].sum() / episodes,
            "batch/advantage": psi[mask].mean(),
        }
        if self.config.baseline == "value":
            metrics["critic/loss"] = self._fit(rows, target[mask])
        if self.normalizer is not None:  # after the update, so that acting and learning saw the same inputs
            self.normalizer.update(concatenated(batch.obs, self.groups).to(self.device), mask)
        return metrics

    def gradient(self, x: Tensor, action: Tensor, weight: Tensor) -> tuple[Params, Tensor]:
        """sum_r weight_r grad log pi(action_r|x_r) for [*actor, log_std], and the actor's outputs (R, A)."""
        work = Workspace.none(self.actor)
        out, hidden = forward(self.actor, x, work, self.config.activation)
        if self.spec.discrete:
            d_out = categorical_log_prob_and_gradient(action, out[0])[1](weight)
            d_log_std = torch.zeros_like(self.log_std)
        else:
            d_out, d_log_std = gaussian_log_prob_and_gradient(action, out[0], self.log_std)[1](weight)
        gradient = parameter_gradient(self.actor, x, hidden, d_out[None], work, self.config.activation)
        return [*gradient, d_log_std], out[0]

    def _fit(self, x: Tensor, target: Tensor) -> Tensor:
        """The critic after `value_steps` steps on E[(V - target)^2]; the loss before the first."""
        work, activation = Workspace.kept(self.critic, len(x), len(x)), self.config.activation
        first = None
        for _ in range(self.config.value_steps):
            out, hidden = forward(self.critic, x, work, activation)
            error = out[0, :, 0] - target
            first = error.square().mean() if first is None else first
            d_out = (2.0 / len(x) * error)[None, :, None]
            gradient = parameter_gradient(self.critic, x, hidden, d_out, work, activation)
            self.value_updates.add_(1.0)
            adam_(self.critic, gradient, self.value_moments, self.value_updates, self.config.value_learning_rate)
        assert first is not None
        return first

    def policy(self) -> Policy:
        """The likeliest choice, or the mean action clipped to [-1, 1], as a detached copy."""
        network: dict[str, Any] = {
            "kind": "mlp", "groups": list(self.groups), "hidden": list(self.config.hidden),
            "activation": self.config.activation, "head": "argmax" if self.spec.discrete else "clip",
        }  # fmt: skip
        tensors = {}
        for i, (weight, bias) in enumerate(zip(self.actor[::2], self.actor[1::2], strict=True)):
            last = i == len(self.config.hidden)
            tensors[f"actor.{i}.weight"], tensors[f"actor.{i}.bias"] = weight[0] if last else weight[0].T, bias[0, 0]
        if self.normalizer is not None:
            network["normalizer_clip"] = self.normalizer.clip
            tensors["normalizer.mean"], tensors["normalizer.std"] = self.normalizer.mean32, self.normalizer.std32
        return Policy(self.spec, "reinforce", network, tensors)

    def _inputs(self, obs: Mapping[str, Tensor]) -> Tensor:
        x = concatenated(obs, self.groups).to(self.device)
        return x if self.normalizer is None else self.normalizer(x)

    def _outputs(self, params: Params, x: Tensor) -> Tensor:
        """Outputs (..., O) for x (..., D)."""
        out, _ = forward(params, x.flatten(0, -2), Workspace.none(params), self.config.activation)
        return out[0].view(*x.shape[:-1], -1)

    # ---- exact resume ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `act` and `update` depend on."""
        return {
            "tensors": {name: t.clone() for name, t in self._tensors().items()},
            "generator": self.generator.get_state(),
            "normalizer": {} if self.normalizer is None else self.normalizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(state["tensors"][name])
        self.generator.set_state(state["generator"].cpu())
        if self.normalizer is not None:
            self.normalizer.load_state_dict(state["normalizer"])

    def _tensors(self) -> dict[str, Tensor]:
        lists = {"actor": [*self.actor, self.log_std], "critic": self.critic, "actor_moment_1": self.moments[0],
                 "actor_moment_2": self.moments[1], "critic_moment_1": self.value_moments[0],
                 "critic_moment_2": self.value_moments[1]}  # fmt: skip
        tensors = {f"{name}.{i}": t for name, params in lists.items() for i, t in enumerate(params)}
        return {**tensors, "updates": self.updates, "value_updates": self.value_updates}
