"""Behaviour cloning: a network that does what the demonstrations did.

    deterministic   J = E[ mean_i (mu_i(s) - a_i)^2 ]                                    Pomerleau 1988
    gaussian        J = -E[ log N(a; mu(s), sigma(s)) ],  sigma in [e^-5, e^2]
    gmm             J = -E[ log sum_m w_m N(a; mu_m(s), sigma_m(s)) ]                     mixture.py
    discrete        J = -E[ log softmax(f(s))_a ]

Observations are normalized by the moments of the demonstrations, which travel in the policy file. Deployed is mu, or
the likeliest mu_m, or the likeliest choice. With a camera the network sees its features beside the vectors, and each
picture it learns from is shifted by a few pixels at random (random_shift.py). With chunk = H it predicts the H actions
from a step on, of which those count that the episode still has (Zhao et al. 2023, arXiv 2304.13705).

Legend: B batch, H actions of a chunk, D inputs, F features, A action, M components, O outputs of the network: H A, or
2 H A (mu, log sigma), or 2 M A + M, or the choices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..batch import Batch, Sample
from ..errors import UsageError
from ..history import stacked_shape
from ..spec import Spec
from .distributions import categorical_log_prob_and_gradient
from .encoder import Encoder
from .learner import require_stacked_vectors
from .mixture import likeliest_mean, mixture_nll
from .offline_core import DataFacts, Net, OfflineLearner, numbered, require_common
from .random_shift import random_shift
from .settings import require, setting

LOG_STD_LOW, LOG_STD_HIGH = -5.0, 2.0
HEADS = ("deterministic", "gaussian", "gmm")


@dataclass(frozen=True)
class BCConfig:
    """Settings of behaviour cloning."""

    head: Literal["deterministic", "gaussian", "gmm"] = setting(
        "deterministic", "What is fitted: deterministic, by squared error; gaussian or gmm, a mixture, by likelihood."
    )
    modes: int = setting(5, "Gaussians of the mixture.")
    min_std: float = setting(1e-4, "Smallest deviation of each of them.")
    chunk: int = setting(1, "Actions in a row that it predicts; deterministic and gaussian heads.")
    hidden: tuple[int, ...] = setting((256, 256), "Sizes of the hidden layers, with ReLU between them.")
    learning_rate: float = setting(1e-3, "Step size of Adam at the start.")
    anneal: bool = setting(True, "Whether it falls to zero along a cosine over the run.")
    batch_size: int = setting(256, "Steps of the demonstrations per update.")
    normalize_obs: bool = setting(True, "Normalize observations by their mean and deviation in the demonstrations.")
    camera: str = setting("", "Camera that it sees beside the vectors: its name, or auto for the only one.")
    conv: tuple[tuple[int, int, int], ...] = setting(
        ((16, 8, 4), (32, 4, 2), (32, 3, 1)), "Layers over the camera: channels, kernel, stride."
    )
    image_features: int = setting(64, "Numbers that the encoder of the camera hands on.")
    random_shift: int = setting(4, "Pixels by which pictures are shifted at random in an update (DrQ); 0 for none.")

    def __post_init__(self) -> None:
        require(self.head in HEADS, "head", self.head, "deterministic, gaussian or gmm")
        require(1 <= self.modes <= 1000, "modes", self.modes, "from 1 to 1000")
        require(1 <= self.chunk <= 1000, "chunk", self.chunk, "from 1 to 1000")
        require(self.chunk == 1 or self.head != "gmm", "chunk", self.chunk, "1 with a mixture")
        require(0 <= self.min_std < 1, "min_std", self.min_std, "0 or more, below 1")
        require(len(self.conv) > 0 and all(len(x) == 3 and all(n > 0 for n in x) for x in self.conv), "conv", self.conv,
                "[channels,kernel,stride],... of each layer, all above 0")  # fmt: skip
        require(self.image_features >= 1, "image_features", self.image_features, "at least 1")
        require(self.random_shift >= 0, "random_shift", self.random_shift, "0 or more")
        require_common(self)


class BC(OfflineLearner):
    """The learner."""

    name = "bc"

    def __init__(self, spec: Spec, config: BCConfig, facts: DataFacts, seed: int,
                 device: torch.device | str = "cpu", planned_steps: int = 0):  # fmt: skip
        self.fitted = "discrete" if spec.discrete else config.head
        self.head = {"discrete": "argmax", "gmm": "mixture"}.get(self.fitted, "clip")
        self.camera = chosen_camera(spec, config.camera)
        if config.chunk > 1:
            if spec.discrete:
                raise UsageError(f"setting chunk={config.chunk}: choices are learned one at a time; leave it at 1")
            spec = replace(spec, action_horizon=config.chunk)
        super().__init__(spec, config, facts, seed, device, planned_steps)
        self.request = Sample(config.batch_size, imitation=True, action_horizon=config.chunk)
        beyond = {"gaussian": config.chunk * spec.action_dim, "gmm": config.modes * spec.action_dim}.get(
            self.fitted, 0
        )  # deviations
        self.actor = Net(1, [*self.sizes[:-1], self.sizes[-1] + beyond], self.weights, self.device)
        self.encoder: Encoder | None = None
        if self.camera:
            shape = stacked_shape(spec, self.camera)
            self.encoder = Encoder(self.network()["conv"], shape, self.weights, self.device)
            self.reads = (*self.groups, self.camera)

    def require(self, spec: Spec) -> None:
        if not self.camera:
            require_stacked_vectors(spec, self.name, "bc/image learns from cameras")

    @torch.no_grad()
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step down J."""
        c, x = self.config, self._seen(batch.obs, learning=True)
        out, hidden = self.actor(x)
        loss, d_out = self._loss(out[0], *self._aims(batch))
        rate = self.annealed(c.learning_rate, self.actor.steps) if c.anneal else c.learning_rate
        d_features = None
        if self.encoder is not None:
            d_features = self.actor.input_gradient(hidden, d_out[None], x.shape[1] - c.image_features)
        self.actor.descend(x, hidden, d_out[None], rate)
        if self.encoder is not None and d_features is not None:
            self.encoder.descend(d_features, self.actor.steps, rate)
        return {"policy/loss": loss}

    @torch.no_grad()
    def score(self, batch: Batch) -> dict[str, Tensor]:
        """How well held-out demonstrations (B) are imitated: J, and the mean absolute error of actions."""
        out, _ = self.actor(self._seen(batch.obs, learning=False))
        action, counts = self._aims(batch)
        loss, _ = self._loss(out[0], action, counts)
        if self.spec.discrete:
            return {"loss": loss, "accuracy": (out[0].argmax(-1, keepdim=True) == batch.action).float().mean()}
        shown = out[0][:, : self.sizes[-1]]
        mean = likeliest_mean(shown, self.config.modes) if self.fitted == "gmm" else shown.clamp(-1.0, 1.0)
        error = (mean - action).abs()
        return {"loss": loss, "action_error": error.mean() if counts is None else (error * counts).sum() / counts.sum()}

    def _aims(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The actions (B, H A) to predict, and which of them the episode has (1 or 0); None for all."""
        if self.config.chunk == 1:
            return batch.action, None
        assert batch.action_mask is not None
        counts = batch.action_mask[..., None].expand(batch.action.shape).flatten(1).to(batch.action.dtype)
        return batch.action.flatten(1), counts

    def _seen(self, obs: Mapping[str, Tensor], learning: bool) -> Tensor:
        """What the perceptron reads (B, D): the vectors, normalized, and behind them the camera's features."""
        if self.encoder is None:
            return self.inputs(obs)
        image = obs[self.camera].to(self.device)
        if learning:
            features = self.encoder(random_shift(image, self.config.random_shift, self.generator))
        else:
            features = self.encoder.look(image)
        return torch.cat([self.inputs(obs), features], -1) if self.groups else features

    def _loss(self, out: Tensor, action: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """J and dJ/dout (B, O); counts (B, H A): 0 for actions after an episode's end."""
        match self.fitted:
            case "discrete":
                log_prob, gradient = categorical_log_prob_and_gradient(action[:, 0], out)
                return -log_prob.mean(), gradient(torch.full_like(log_prob, -1.0 / len(out)))
            case "gaussian":
                return gaussian_nll(out, action, counts)
            case "gmm":
                return mixture_nll(out, action, self.config.modes, self.config.min_std)
        error = out - action
        if counts is None:
            return error.square().mean(), error.mul(2.0 / error.numel())
        error = error * counts
        return error.square().sum() / counts.sum(), error.mul(2.0 / counts.sum())

    # ---- the contract ----------------------------------------------------------------------------

    def network(self) -> dict[str, Any]:
        network, c = super().network(), self.config
        if self.head == "mixture":
            network["modes"] = c.modes
        if self.camera:
            network["conv"] = {"group": self.camera, "layers": [list(layer) for layer in c.conv], "activation": "relu",
                               "features": c.image_features}  # fmt: skip
        return network

    def tensors(self) -> dict[str, Tensor]:
        return super().tensors() | ({} if self.encoder is None else self.encoder.network.tensors())

    def changing(self) -> dict[str, Tensor]:
        return self.actor.tensors("actor") | ({} if self.encoder is None else numbered(self.encoder.lists()))


def chosen_camera(spec: Spec, wanted: str) -> str:
    """The camera of that name, or the only one for `auto`; "" for none.

    Raises:
        UsageError: there is no such camera, or several for `auto`.
    """
    if not wanted or wanted in spec.images:
        return wanted
    if wanted == "auto" and len(spec.images) == 1:
        return spec.images[0]
    there = ", ".join(spec.images) or "none"
    raise UsageError(f"setting camera: expected {'one camera' if wanted == 'auto' else repr(wanted)}, this data has "
                     f"{there}" + ("; name one with --set camera=NAME" if spec.images else ""))  # fmt: skip


def gaussian_nll(out: Tensor, action: Tensor, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """-E[log N(action; mu, sigma)], and its derivative with respect to out (B, 2 A) = (mu, log sigma).

    counts (B, A): 0 for numbers that do not count, else 1.
    """
    mean, raw = out.chunk(2, -1)
    log_std = raw.clamp(LOG_STD_LOW, LOG_STD_HIGH)
    z = (action - mean) * torch.exp(-log_std)
    nll = 0.5 * z.square() + log_std + 0.5 * math.log(2.0 * math.pi)
    # beyond the clamp the derivative goes where it leads back inside
    d_log_std = 1.0 - z.square()
    stuck = ((raw < LOG_STD_LOW) & (d_log_std > 0)) | ((raw > LOG_STD_HIGH) & (d_log_std < 0))
    d_mean, d_log_std = -z * torch.exp(-log_std), d_log_std.masked_fill(stuck, 0.0)
    if counts is not None:
        nll, d_mean, d_log_std = nll * counts, d_mean * counts, d_log_std * counts
    d_out = torch.cat([d_mean, d_log_std], -1)
    return nll.sum(-1).mean(), d_out / len(out)
