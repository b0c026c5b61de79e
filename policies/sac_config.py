"""Settings of soft actor-critic and its variants, checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .adam import BETA_2
from .precision import CHOICES
from .settings import require, setting


@dataclass(frozen=True)
class SACConfig:
    """Settings of soft actor-critic; defaults are the paper's (appendix D) where it names them."""

    hidden: tuple[int, ...] = setting((256, 256), "Hidden layer sizes of actor and critics, with ReLU between them.")
    learning_rate: float = setting(3e-4, "Step size of Adam for the actor, the critics and the temperature.")
    beta_2: float = setting(BETA_2, "Adam's memory of squared gradients; 0.95 follows data that change fast (FastSAC).")
    discount: float = setting(0.99, "Weight of the value one step later.")
    tau: float = setting(0.005, "Share of the critics that the target critics take on with every update.")
    batch_size: int = setting(256, "Transitions per update.")
    capacity: int = setting(1_000_000, "Transitions that the replay holds over all worlds; the oldest make room.")
    demo_share: float = setting(0.5, "Of every batch, the share that --demos give, where there are any.")
    learning_starts: int = setting(1_000, "Environment steps over all worlds with random actions, before learning.")
    collect_steps: int = setting(1, "Steps of all worlds between two update phases.")
    updates: int = setting(1, "Updates in one phase.")
    n_step: int = setting(1, "Rewards summed before the critic's value; fewer where an episode ends.")
    target_entropy: float | None = setting(
        None, "Entropy that the temperature aims at [nat]; none is minus dim A, or the two settings below."
    )
    target_std: float | None = setting(
        None, "Aim at the entropy of a Gaussian of this deviation in each action instead (FlashSAC: 0.15)."
    )
    entropy_ratio: float = setting(0.98, "Of discrete actions: aim at this share of the largest entropy, log n.")
    init_alpha: float = setting(1.0, "Temperature to start from.")
    normalize_obs: bool = setting(False, "Whether networks see observations with running mean 0 and deviation 1.")
    normalize_rewards: bool = setting(
        False, "Whether the critics see rewards divided by a running scale of their discounted sum, to fit v_max."
    )
    norm: Literal["none", "layer"] = setting("none", "Layer norm between hidden layers and their ReLU, or none.")
    project_weights: bool = setting(
        False, "Whether every unit keeps weights of norm 1, and every norm its scale; needs norm=layer."
    )
    critic: Literal["scalar", "categorical"] = setting(
        "scalar", "A critic gives the return's mean, or its distribution over atoms between v_min and v_max (C51)."
    )
    atoms: int = setting(101, "Atoms of the categorical critic.")
    v_min: float = setting(-5.0, "Smallest return that a categorical critic can tell, of normalized rewards if so set.")
    v_max: float = setting(5.0, "Largest of them.")
    bootstrap: Literal["min", "mean"] = setting("min", "What counts of the two critics: the smaller, or the mean.")
    critics: int = setting(
        2, "Critics. Of more than two, a target takes two drawn anew, and the policy follows the mean of all (REDQ)."
    )
    policy_delay: int = setting(1, "Updates of the critics for one of actor and temperature.")
    noise_hold: int = setting(1, "Longest time, in steps, that exploring holds on to one draw of noise; 1 draws anew.")
    conv: tuple[tuple[int, int, int], ...] = setting(
        ((16, 8, 4), (32, 4, 2), (32, 3, 1)), "Layers over a camera, where there is one: channels, kernel, stride."
    )
    image_features: int = setting(64, "Numbers that the encoder of a camera hands on.")
    random_shift: int = setting(4, "Pixels by which pictures are shifted at random in an update (DrQ); 0 for none.")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "Of the products between hidden layers: fp32, bf16, or auto, which is bf16 for large ones on a GPU."
    )
    compile: Literal["auto", "on", "off"] = setting(
        "auto", "Compile the update once, some 30 s: on, off, or auto, where the run is long enough to pay for it."
    )

    def __post_init__(self) -> None:
        def number(name: str, valid: str, holds: Callable[[float], bool]) -> None:
            value = getattr(self, name)
            require(math.isfinite(value) and holds(value), name, value, valid)

        require(len(self.hidden) > 0 and all(n > 0 for n in self.hidden), "hidden", self.hidden, "positive sizes")
        number("learning_rate", "a number above 0", lambda x: x > 0)
        number("beta_2", "a number from 0 to below 1", lambda x: 0 <= x < 1)
        number("discount", "a number from 0 to 1", lambda x: 0 <= x <= 1)
        number("critics", "2 or more", lambda x: x >= 2)
        number("demo_share", "a number from 0 to 1", lambda x: 0 <= x <= 1)
        number("tau", "a number above 0, at most 1", lambda x: 0 < x <= 1)
        number("init_alpha", "a number above 0", lambda x: x > 0)
        number("entropy_ratio", "a number above 0, at most 1", lambda x: 0 < x <= 1)
        for name in ("batch_size", "collect_steps", "updates", "n_step", "policy_delay", "noise_hold",
                     "image_features"):  # fmt: skip
            number(name, "at least 1", lambda x: x >= 1)
        number("atoms", "at least 2", lambda x: x >= 2)
        number("random_shift", "0 or more", lambda x: x >= 0)
        number("v_min", "a finite number", lambda x: True)
        number("v_max", f"a number above v_min {self.v_min}", lambda x: x > self.v_min)
        number("capacity", f"at least batch_size {self.batch_size}", lambda x: x >= self.batch_size)
        number("learning_starts", f"at least batch_size {self.batch_size}", lambda x: x >= self.batch_size)
        if self.target_entropy is not None:
            number("target_entropy", "a finite number, or none for minus dim A", lambda x: True)
        if self.target_std is not None:
            number("target_std", "a number above 0, or none", lambda x: x > 0)
        require(self.norm in ("none", "layer"), "norm", self.norm, "none or layer")
        require(not self.project_weights or self.norm == "layer", "project_weights", True, "false without norm=layer")
        require(self.critic in ("scalar", "categorical"), "critic", self.critic, "scalar or categorical")
        require(self.bootstrap in ("min", "mean"), "bootstrap", self.bootstrap, "min or mean")
        require(self.precision in CHOICES, "precision", self.precision, "auto, fp32 or bf16")
        require(self.compile in ("auto", "on", "off"), "compile", self.compile, "auto, on or off")
        require(len(self.conv) > 0 and all(len(x) == 3 and all(n > 0 for n in x) for x in self.conv), "conv", self.conv,
                "[channels,kernel,stride],... of each layer, all above 0")  # fmt: skip

    def entropy_target(self, action_dim: int, choices: int) -> float:
        """What the temperature aims at [nat], for actions of so many dimensions or so many choices."""
        if self.target_entropy is not None:
            return self.target_entropy
        if choices > 0:
            return self.entropy_ratio * math.log(choices)
        if self.target_std is None:
            return -float(action_dim)
        return 0.5 * action_dim * math.log(2.0 * math.pi * math.e * self.target_std**2)
