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
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..batch import Batch, Sample
from ..spec import Spec
from .distributions import categorical_log_prob_and_gradient
from .offline_core import DataFacts, Net, OfflineLearner, require_common
from .settings import require, setting

LOG_STD_LOW, LOG_STD_HIGH = -5.0, 2.0


@dataclass(frozen=True)
class BCConfig:
    """Settings of behaviour cloning."""

    head: Literal["deterministic", "gaussian"] = setting(
        "deterministic", "What is fitted: deterministic, by squared error, or gaussian, by likelihood."
    )
    hidden: tuple[int, ...] = setting((256, 256), "Sizes of the hidden layers, with ReLU between them.")
    learning_rate: float = setting(1e-3, "Step size of Adam at the start.")
    anneal: bool = setting(True, "Whether it falls to zero along a cosine over the run.")
    batch_size: int = setting(256, "Steps of the demonstrations per update.")
    normalize_obs: bool = setting(True, "Normalize observations by their mean and deviation in the demonstrations.")

    def __post_init__(self) -> None:
        require(self.head in ("deterministic", "gaussian"), "head", self.head, "deterministic or gaussian")
        require_common(self)


class BC(OfflineLearner):
    """The learner."""

    name = "bc"

    def __init__(self, spec: Spec, config: BCConfig, facts: DataFacts, seed: int,
                 device: torch.device | str = "cpu", planned_steps: int = 0):  # fmt: skip
        self.head = "argmax" if spec.discrete else "clip"
        super().__init__(spec, config, facts, seed, device, planned_steps)
        self.request = Sample(config.batch_size, imitation=True)
        outputs = self.sizes[-1] * (2 if config.head == "gaussian" and not spec.discrete else 1)
        self.actor = Net(1, [*self.sizes[:-1], outputs], self.weights, self.device)

    @torch.no_grad()
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step down J."""
        c, x = self.config, self.inputs(batch.obs)
        out, hidden = self.actor(x)
        loss, d_out = self._loss(out[0], batch.action)
        rate = self.annealed(c.learning_rate, self.actor.steps) if c.anneal else c.learning_rate
        self.actor.descend(x, hidden, d_out[None], rate)
        return {"policy/loss": loss}

    @torch.no_grad()
    def score(self, batch: Batch) -> dict[str, Tensor]:
        """How well held-out demonstrations (B) are imitated: J, and the mean absolute error of actions."""
        out, _ = self.actor(self.inputs(batch.obs))
        loss, _ = self._loss(out[0], batch.action)
        if self.spec.discrete:
            return {"loss": loss, "accuracy": (out[0].argmax(-1, keepdim=True) == batch.action).float().mean()}
        mean = out[0][:, : self.spec.action_dim].clamp(-1.0, 1.0)
        return {"loss": loss, "action_error": (mean - batch.action).abs().mean()}

    def _loss(self, out: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """J and dJ/dout (B, O)."""
        if self.spec.discrete:
            log_prob, gradient = categorical_log_prob_and_gradient(action[:, 0], out)
            return -log_prob.mean(), gradient(torch.full_like(log_prob, -1.0 / len(out)))
        if self.config.head == "gaussian":
            return gaussian_nll(out, action)
        error = out - action
        return error.square().mean(), error.mul(2.0 / error.numel())

    def changing(self) -> dict[str, Tensor]:
        return self.actor.tensors("actor")


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
