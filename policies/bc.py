"""Behaviour cloning: a network that does what the demonstrations did.

    deterministic   J = E[ mean_i (mu_i(s) - a_i)^2 ]                                    Pomerleau 1988
    gaussian        J = -E[ log N(a; mu(s), sigma(s)) ],  sigma in [e^-5, e^2]
    discrete        J = -E[ log softmax(f(s))_a ]

Observations are normalized by the moments of the demonstrations, which travel in the policy file. Deployed is mu, or
the likeliest choice.

Legend: B batch, D inputs, A action, O outputs of the network: A, or 2 A (mu, log sigma), or the choices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..batch import Batch, Sample
from ..keyed import Stream
from ..normalizer import Normalizer
from ..spec import Spec
from .adam import adam_, zero_moments
from .distributions import categorical_log_prob_and_gradient
from .learner import concatenated, require_stacked_vectors
from .network_document import layer_sizes
from .policy import Policy
from .settings import require, setting
from .stacked_mlp import ACTIVATIONS, Params, Workspace, draw, forward, parameter_gradient

LOG_STD_LOW, LOG_STD_HIGH = -5.0, 2.0


@dataclass(frozen=True)
class BCConfig:
    """Settings of behaviour cloning."""

    head: Literal["deterministic", "gaussian"] = setting(
        "deterministic", "What is fitted: deterministic, by squared error, or gaussian, by likelihood."
    )
    hidden: tuple[int, ...] = setting((256, 256), "Sizes of the hidden layers.")
    activation: Literal["relu", "tanh", "elu"] = setting("relu", "Activation between the layers.")
    learning_rate: float = setting(1e-3, "Step size of Adam at the start.")
    anneal: bool = setting(True, "Whether it falls to zero along a cosine over the run.")
    batch_size: int = setting(256, "Steps of the demonstrations per update.")
    normalize_obs: bool = setting(True, "Normalize observations by their mean and deviation in the demonstrations.")

    def __post_init__(self) -> None:
        require(self.head in ("deterministic", "gaussian"), "head", self.head, "deterministic or gaussian")
        require(len(self.hidden) > 0 and all(n > 0 for n in self.hidden), "hidden", self.hidden, "positive sizes")
        require(self.activation in ACTIVATIONS, "activation", self.activation, f"one of {', '.join(ACTIVATIONS)}")
        require(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "a number above 0, at most 1")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")


class BC:
    """The learner; see `Learner` for the contract. It imitates and never acts, so it has no buffer."""

    def __init__(self, spec: Spec, config: BCConfig, normalizer: Normalizer | None, seed: int,
                 device: torch.device | str = "cpu", planned_steps: int = 0):  # fmt: skip
        require_stacked_vectors(spec, "bc")
        self.spec, self.config, self.device = spec, config, torch.device(device)
        self.request = Sample(config.batch_size, imitation=True)
        self.groups, self.normalizer, self.planned_steps = spec.vectors, normalizer, planned_steps
        sizes = list(layer_sizes(spec, self._network()))
        if config.head == "gaussian" and not spec.discrete:
            sizes[-1] *= 2
        weights = torch.Generator().manual_seed(int(Stream(seed, "bc/weights").integer(0, 0)[0]))
        self.params: Params = [p.to(self.device) for p in draw(1, sizes, weights)]
        self.moments = zero_moments(self.params)
        self.updates = torch.zeros((), device=self.device)
        self._work = Workspace.kept(self.params, config.batch_size, config.batch_size)

    @torch.no_grad()
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step down J."""
        x = self._inputs(batch.obs)
        out, hidden = forward(self.params, x, self._work, self.config.activation)
        loss, d_out = self._loss(out[0], batch.action)
        gradient = parameter_gradient(self.params, x, hidden, d_out[None], self._work, self.config.activation)
        self.updates.add_(1.0)
        adam_(self.params, gradient, self.moments, self.updates, self._rate())
        return {"policy/loss": loss}

    @torch.no_grad()
    def score(self, batch: Batch) -> dict[str, Tensor]:
        """How well held-out demonstrations (B) are imitated: J, and the mean absolute error of actions."""
        out, _ = forward(self.params, self._inputs(batch.obs), Workspace.none(self.params), self.config.activation)
        loss, _ = self._loss(out[0], batch.action)
        if self.spec.discrete:
            return {"loss": loss, "accuracy": (out[0].argmax(-1, keepdim=True) == batch.action).float().mean()}
        mean = out[0][:, : self.spec.action_dim].clamp(-1.0, 1.0)
        return {"loss": loss, "action_error": (mean - batch.action).abs().mean()}

    def _loss(self, out: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """J and dJ/dout (B, O)."""
        rows = len(out)
        if self.spec.discrete:
            log_prob, gradient = categorical_log_prob_and_gradient(action[:, 0], out)
            return -log_prob.mean(), gradient(torch.full_like(log_prob, -1.0 / rows))
        if self.config.head == "gaussian":
            return gaussian_nll(out, action)
        error = out - action
        return error.square().mean(), error.mul(2.0 / error.numel())

    def _rate(self) -> float | Tensor:
        if not (self.config.anneal and self.planned_steps):
            return self.config.learning_rate
        share = ((self.updates - 1.0) / self.planned_steps).clamp(max=1.0)
        return self.config.learning_rate * 0.5 * (1.0 + torch.cos(math.pi * share))

    def _inputs(self, obs: Mapping[str, Tensor]) -> Tensor:
        x = concatenated(obs, self.groups).to(self.device)
        return x if self.normalizer is None else self.normalizer(x)

    def _network(self) -> dict[str, Any]:
        network: dict[str, Any] = {
            "kind": "mlp", "groups": list(self.groups), "hidden": list(self.config.hidden),
            "activation": self.config.activation, "head": "argmax" if self.spec.discrete else "clip",
        }  # fmt: skip
        return network if self.normalizer is None else network | {"normalizer_clip": self.normalizer.clip}

    def policy(self) -> Policy:
        """The mean action clipped to [-1, 1], or the likeliest choice, as a detached copy."""
        outputs = self.spec.choices or self.spec.action_dim * self.spec.action_horizon
        tensors = {}
        for i, (weight, bias) in enumerate(zip(self.params[::2], self.params[1::2], strict=True)):
            last = i == len(self.config.hidden)
            tensors[f"actor.{i}.weight"] = weight[0][:outputs] if last else weight[0].T
            tensors[f"actor.{i}.bias"] = bias[0, 0][:outputs] if last else bias[0, 0]
        if self.normalizer is not None:
            tensors["normalizer.mean"], tensors["normalizer.std"] = self.normalizer.mean32, self.normalizer.std32
        return Policy(self.spec, "bc", self._network(), tensors)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `update` depends on; the normalizer follows from the data."""
        return {name: tensor.clone() for name, tensor in self._tensors().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(state[name])

    def _tensors(self) -> dict[str, Tensor]:
        lists = {"params": self.params, "moment_1": self.moments[0], "moment_2": self.moments[1]}
        return {f"{name}.{i}": t for name, ts in lists.items() for i, t in enumerate(ts)} | {"updates": self.updates}


def gaussian_nll(out: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """-E[log N(action; mu, sigma)], and its derivative with respect to out (B, 2 A) = (mu, log sigma)."""
    mean, raw = out.chunk(2, -1)
    log_std = raw.clamp(LOG_STD_LOW, LOG_STD_HIGH)
    z = (action - mean) * torch.exp(-log_std)
    nll = 0.5 * z.square() + log_std + 0.5 * math.log(2.0 * math.pi)
    # beyond the clamp the derivative goes where it leads back inside
    d_log_std = 1.0 - z.square()
    stuck = ((raw < LOG_STD_LOW) & (d_log_std > 0)) | ((raw > LOG_STD_HIGH) & (d_log_std < 0))
    d_out = torch.cat([-z * torch.exp(-log_std), d_log_std.masked_fill(stuck, 0.0)], -1)
    return nll.sum(-1).mean(), d_out / len(out)
