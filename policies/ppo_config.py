"""The settings of PPO, and which tasks it can learn with them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from ..spec import Spec
from .ppo_losses import OBJECTIVES
from .settings import require, setting
from .stacked_mlp import ACTIVATIONS


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
    lstm: int = setting(0, "Units of an LSTM before the hidden layers, of actor and of critic; 0 for none.")
    sequence: int = setting(
        0, "Steps of a training sequence with an LSTM, a divisor of collect_steps; 0 is all of them."
    )
    conv: tuple[tuple[int, int, int], ...] = setting(
        ((16, 8, 4), (32, 4, 2), (32, 3, 1)),
        "Convolutions over a camera, [channels, kernel, stride] each; not used by tasks without one.",
    )
    image_features: int = setting(64, "Numbers that they hand on, by tanh(layer_norm(linear)); 0 for all of them.")
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
        require(self.lstm >= 0, "lstm", self.lstm, "0 or a number of units")
        require(self.sequence >= 0 and self.collect_steps % (self.sequence or 1) == 0, "sequence", self.sequence,
                f"0, or a divisor of collect_steps {self.collect_steps}")  # fmt: skip
        require(all(len(layer) == 3 and all(n > 0 for n in layer) for layer in self.conv), "conv", self.conv,
                "[channels, kernel, stride] of each layer, all above 0")  # fmt: skip
        require(self.image_features >= 0, "image_features", self.image_features, "0 or more")
        require(len(self.hidden) > 0 and all(n > 0 for n in self.hidden), "hidden", self.hidden, "positive sizes")


def check_task(spec: Spec, config: PPOConfig, num_envs: int, planned_steps: int) -> None:
    """Raise UsageError where PPO cannot learn a task, or not with these settings."""
    if spec.discrete and len(spec.actions) > 1:
        raise UsageError(f"ppo draws one choice, or continuous actions; this task wants several at once: "
                         f"{', '.join(f'{a.name} ({a.kind})' for a in spec.actions)}")  # fmt: skip
    if not spec.vectors and not spec.images:
        raise UsageError(f"ppo's actor reads flat observation groups and a camera; this task has only "
                         f"{', '.join(spec.observations)}")  # fmt: skip
    if len(spec.images) > 1:
        raise UsageError(f"ppo sees one camera; this task has {', '.join(spec.images)}; put the pictures side by side "
                         "as channels of one")  # fmt: skip
    if spec.images and not config.conv:
        raise UsageError(f"the camera {spec.images[0]!r} needs convolutions; set conv=[16,8,4],[32,4,2],[32,3,1]")
    rows = num_envs * config.collect_steps
    require(2 * config.minibatches <= rows, "minibatches", config.minibatches,
            f"at most {rows // 2}, so that each holds two or more of the {rows} steps of an update: "
            f"advantages are standardized in each")  # fmt: skip
    sequences = rows // (config.sequence or config.collect_steps)
    require(config.lstm == 0 or config.minibatches <= sequences, "minibatches", config.minibatches,
            f"at most {sequences}: with an LSTM a minibatch holds whole sequences of sequence = "
            f"{config.sequence or config.collect_steps} steps, and an update has {sequences}")  # fmt: skip
    if planned_steps <= 0 and (config.anneal > 0 or config.final_log_std is not None):
        raise UsageError(f"settings anneal = {config.anneal} and final_log_std = {config.final_log_std} need the "
                         f"planned number of steps; give --steps, or set them to 0 and none")  # fmt: skip
