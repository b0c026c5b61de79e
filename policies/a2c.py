"""Actor-critic, online: a gradient step after every few steps of the worlds (A2C; Mnih et al. 2016, arXiv 1602.01783).

    theta <- theta + alpha E[ A_t grad log pi(a_t|s_t) + c_2 grad S[pi](s_t) ]       the actor climbs
    phi   <- phi   - beta  c_1 grad E[ (R_t - V(s_t))^2 ]                            the critic descends
    A_t = R_t - V(s_t),   R_t = V(s_t) + sum_l (discount lambda)^l delta_{t+l}

lambda = 1 sums rewards up to the end of the collected steps and bootstraps there (n-step returns); below 1 it is
GAE. This is the lecture's actor-critic with its pseudo-code corrected: log pi(a|s) and not log(a|s), gradients added to
the parameters instead of replacing them, and the critic's with a minus sign. It learns V by regression on returns,
which is policy evaluation, not Q-learning. RMSprop as TensorFlow had it, with epsilon inside the root.

Actor and critic are stepped by hand, side by side (ppo_update.py). Legend: N worlds, T time, R rows, A action.
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
from ..keyed import Stream
from ..normalizer import Normalizer
from ..spec import Spec
from .adam import clip_norm_
from .distributions import categorical_sample
from .learner import concatenated, require_vectors
from .policy import Policy
from .ppo_update import ACTOR, CRITIC, Perceptrons, Seen
from .returns import gae
from .settings import require, setting
from .stacked_mlp import ACTIVATIONS, forward, parameter_gradient
from .stacked_numpy import StackedNumpy, is_small


@dataclass(frozen=True)
class A2CConfig:
    """Settings of the online actor-critic; the defaults are those of Stable-Baselines3."""

    learning_rate: float = setting(7e-4, "Step size of RMSprop.")
    decay: float = setting(0.99, "Memory of RMSprop's mean square.")
    epsilon: float = setting(1e-5, "Added to RMSprop's mean square, inside the root.")
    discount: float = setting(0.99, "Discount of a reward one step later.")
    gae_lambda: float = setting(1.0, "Weight of longer returns; 1 is the n-step return over the collected steps.")
    collect_steps: int = setting(5, "Steps of every world before each update.")
    entropy_coef: float = setting(0.0, "Weight of the entropy bonus.")
    value_coef: float = setting(0.5, "Weight of the critic's loss.")
    max_grad_norm: float = setting(0.5, "Norm to which the gradient of actor and critic together is clipped.")
    log_std: float = setting(0.0, "Log of the noise on continuous actions at the start; it is learned.")
    hidden: tuple[int, ...] = setting((64, 64), "Sizes of the hidden layers of actor and of critic.")
    activation: Literal["elu", "relu", "tanh"] = setting("tanh", "Activation between the layers.")
    normalize_obs: bool = setting(False, "Normalize observations by their running mean and deviation.")

    def __post_init__(self) -> None:
        def number(name: str, low: float, high: float, valid: str, open_low: bool = False) -> None:
            value = getattr(self, name)
            require(math.isfinite(value) and (low < value if open_low else low <= value) and value <= high,
                    name, value, valid)  # fmt: skip

        for name in ("learning_rate", "epsilon"):
            number(name, 0.0, 1.0, "a number above 0, at most 1", open_low=True)
        for name in ("discount", "gae_lambda", "decay"):
            number(name, 0.0, 1.0, "a number from 0 to 1")
        for name in ("entropy_coef", "value_coef"):
            number(name, 0.0, math.inf, "a number of at least 0")
        number("max_grad_norm", 0.0, math.inf, "a number above 0", open_low=True)
        number("log_std", -10.0, 2.0, "a number from -10 to 2")
        require(self.collect_steps >= 1, "collect_steps", self.collect_steps, "at least 1")
        require(self.activation in ACTIVATIONS, "activation", self.activation, f"one of {', '.join(ACTIVATIONS)}")
        require(len(self.hidden) > 0 and all(n > 0 for n in self.hidden), "hidden", self.hidden, "positive sizes")


class A2C:
    """The learner; see `Learner` for the contract."""

    def __init__(
        self,
        spec: Spec,
        config: A2CConfig,
        num_envs: int,
        seed: int,
        device: torch.device | str = "cpu",
        planned_steps: int = 0,
    ):
        require_vectors(spec, "a2c")
        self.spec, self.config, self.num_envs, self.device = spec, config, num_envs, torch.device(device)
        self.collect_steps = config.collect_steps
        self.request = Sample(batch_size=0, length=config.collect_steps)
        self.groups = spec.vectors
        inputs = sum(spec.obs_dim(g) for g in self.groups)
        weights = torch.Generator().manual_seed(int(Stream(seed, "a2c/weights").integer(0, 0)[0]))
        self.generator = torch.Generator(self.device).manual_seed(int(Stream(seed, "a2c/draws").integer(0, 0)[0]))
        self.networks = Perceptrons(
            inputs, inputs, spec.choices or spec.action_dim, config.hidden, config.activation,
            None if spec.discrete else config.log_std, weights, self.device,
        )  # fmt: skip
        self.small = None
        if is_small(self.networks.params, 2 * num_envs * self.collect_steps):
            self.small = StackedNumpy(self.networks.params, self.networks._gradients, config.activation)
        self.networks.second.fill_(1.0)  # the mean square starts at one, as TensorFlow's did: the first steps are small
        self.normalizer = Normalizer(inputs, device=self.device) if config.normalize_obs else None

    def make_buffer(self) -> Rollout:
        return Rollout(self.spec, self.num_envs, self.collect_steps, self.device)

    def updates_due(self, env_steps: int) -> int:
        """One update after every collect phase."""
        return 1

    def initial_state(self, n: int) -> dict[str, Tensor]:
        return {}

    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        """A draw of the policy: choices (N, 1) int64, or actions (N, A) and, unclipped, `raw_action`."""
        given = obs[self.groups[0]]
        x = self._inputs(obs)
        out = self.networks.act(Seen(x, None, {}))[0] if self.small is None else self.small.first(x)
        if self.spec.discrete:
            return categorical_sample(out, self.generator).to(given.device), {}, state
        noise = torch.randn(out.shape, generator=self.generator, device=self.device)
        raw_action = torch.addcmul(out, self.networks.log_std.exp(), noise)
        return raw_action.clamp(-1.0, 1.0).to(given.device), {"raw_action": raw_action}, state

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step of actor and critic on one rollout (N, T)."""
        metrics = self._step(batch)
        if self.normalizer is not None:  # after the update, so that acting and learning saw the same inputs
            self.normalizer.update(concatenated(batch.obs, self.groups).to(self.device), batch.mask)
        return metrics

    @torch.inference_mode()
    def _step(self, batch: Batch) -> dict[str, Tensor]:
        config, networks, (n, t) = self.config, self.networks, batch.reward.shape
        rows = n * t
        # successors go through the networks with the rows, all of them: to ask which are needed costs more
        x = torch.cat([self._inputs(batch.obs), self._inputs(batch.next_obs)]).view(2 * rows, -1)
        hidden: list[Any]
        if self.small is not None:
            out, hidden = self.small.forward(x)  # (2, 2 R, A)
        else:
            out, hidden = forward(networks.params, x, networks.workspace(2 * rows)[0], config.activation)
        value, next_value = out[CRITIC, :, 0].view(2, n, t).unbind()
        advantage = gae(batch.reward, value, next_value, batch.terminated, batch.truncated, config.discount,
                        config.gae_lambda, batch.mask).view(rows)  # fmt: skip

        work, d_out, d_actor, d_value, weight = networks.workspace(rows)
        if batch.mask is not None:
            weight = (batch.mask / batch.mask.sum().clamp_min(1)).view(rows)
        weighted = advantage * weight
        pi = networks.distribution(out[ACTOR, :rows], networks.log_std)
        action = (batch.action if self.spec.discrete else batch.extras["raw_action"]).view(rows, -1)
        log_prob, pull_back = pi.log_prob(action[:, 0] if self.spec.discrete else action)
        gradient: tuple[Tensor, ...] = pull_back(-weighted)
        if config.entropy_coef > 0:
            bonus = pi.entropy_gradient(weight * -config.entropy_coef)
            gradient = tuple(a + b for a, b in zip(gradient, bonus, strict=True))
        d_actor.copy_(gradient[0])
        torch.mul(weighted, -2.0 * config.value_coef, out=d_value)
        if self.small is not None:
            self.small.parameter_gradient(x, hidden, d_out)
        else:
            parameter_gradient(networks.params, x[:rows], [h[:, :rows] for h in hidden], d_out, work, config.activation)
        if networks.gaussian:
            networks.d_log_std.copy_(gradient[-1])
        norm = clip_norm_([networks.gradient], config.max_grad_norm)
        rmsprop_(networks.flat, networks.gradient, networks.second, config.learning_rate, config.decay, config.epsilon)
        return {
            "policy/loss": -torch.dot(log_prob, weighted),
            "critic/loss": torch.dot(advantage, weighted),
            "policy/entropy": pi.entropy().mean(),
            "grad_norm": norm,
        }

    def policy(self) -> Policy:
        """The likeliest choice, or the mean action clipped to [-1, 1], as a detached copy."""
        network: dict[str, Any] = {
            "kind": "mlp", "groups": list(self.groups), "hidden": list(self.config.hidden),
            "activation": self.config.activation, "head": "argmax" if self.spec.discrete else "clip",
        }  # fmt: skip
        tensors = self.networks.actor_tensors()
        if self.normalizer is not None:
            network["normalizer_clip"] = self.normalizer.clip
            tensors["normalizer.mean"], tensors["normalizer.std"] = self.normalizer.mean32, self.normalizer.std32
        return Policy(self.spec, "a2c", network, tensors)

    def _inputs(self, obs: Mapping[str, Tensor]) -> Tensor:
        x = concatenated(obs, self.groups).to(self.device)
        return x if self.normalizer is None else self.normalizer(x)

    # ---- exact resume ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `act` and `update` depend on."""
        return {
            "networks": {name: tensor.clone() for name, tensor in self.networks.tensors().items()},
            "generator": self.generator.get_state(),
            "normalizer": {} if self.normalizer is None else self.normalizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self.networks.tensors().items():
            tensor.copy_(state["networks"][name])  # in place: views hold on to these very tensors
        self.generator.set_state(state["generator"].cpu())
        if self.normalizer is not None:
            self.normalizer.load_state_dict(state["normalizer"])


def rmsprop_(p: Tensor, gradient: Tensor, square: Tensor, rate: float, decay: float, epsilon: float) -> None:
    """One step of RMSprop in place: s <- decay s + (1 - decay) g^2;  p <- p - rate g / sqrt(s + epsilon)."""
    square.mul_(decay).addcmul_(gradient, gradient, value=1.0 - decay)
    p.addcdiv_(gradient, (square + epsilon).sqrt_(), value=-rate)
