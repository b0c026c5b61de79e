"""Soft actor-critic, version 2: the learner around `sac_update`, which holds the equations.

Off-policy: it collects with a random policy, then with its own, into a replay, and makes `updates` updates after
every `collect_steps` steps of all worlds. Observations are not normalized unless asked for; the replay holds them
raw either way.

Legend: N worlds, B batch, A action, O observation.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ..batch import Batch, Sample
from ..datasets.replay import Replay
from ..errors import UsageError
from ..keyed import Stream
from ..normalizer import Normalizer
from ..spec import Spec
from .adam import flushed_denormals
from .distributions import tanh_gaussian_action
from .learner import require_continuous
from .policy import Policy
from .precision import PRECISIONS, require_bf16
from .sac_update import Networks, Rates, Transitions, update
from .settings import require, setting
from .stacked_mlp import Params, Workspace

GROUP = "state"  # the observation group that actor and critics read
COMPILE_PAYS_AFTER = 100_000  # updates; compiling takes 15-40 s once, and each update then saves some 0.6 ms

log = logging.getLogger("poise.sac")


@dataclass(frozen=True)
class SACConfig:
    """Settings of soft actor-critic; defaults are the paper's (appendix D) where it names them."""

    hidden: tuple[int, ...] = setting((256, 256), "Hidden layer sizes of actor and critics, with ReLU between them.")
    learning_rate: float = setting(3e-4, "Step size of Adam for the actor, the critics and the temperature.")
    discount: float = setting(0.99, "Weight of the value one step later.")
    tau: float = setting(0.005, "Share of the critics that the target critics take on with every update.")
    batch_size: int = setting(256, "Transitions per update.")
    capacity: int = setting(1_000_000, "Transitions that the replay holds over all worlds; the oldest make room.")
    learning_starts: int = setting(1_000, "Environment steps over all worlds with random actions, before learning.")
    collect_steps: int = setting(1, "Steps of all worlds between two update phases.")
    updates: int = setting(1, "Updates in one phase.")
    target_entropy: float | None = setting(None, "Entropy that the temperature aims at [nat]; none is minus dim A.")
    init_alpha: float = setting(1.0, "Temperature to start from.")
    normalize_obs: bool = setting(False, "Whether networks see observations with running mean 0 and deviation 1.")
    precision: Literal["fp32", "bf16"] = setting(
        "fp32", "Of the products between hidden layers: fp32, or bf16 where the CPU or GPU has it, for speed."
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
        number("discount", "a number from 0 to 1", lambda x: 0 <= x <= 1)
        number("tau", "a number above 0, at most 1", lambda x: 0 < x <= 1)
        number("init_alpha", "a number above 0", lambda x: x > 0)
        for name in ("batch_size", "collect_steps", "updates"):
            number(name, "at least 1", lambda x: x >= 1)
        number("capacity", f"at least batch_size {self.batch_size}", lambda x: x >= self.batch_size)
        number("learning_starts", f"at least batch_size {self.batch_size}", lambda x: x >= self.batch_size)
        if self.target_entropy is not None:
            number("target_entropy", "a finite number, or none for minus dim A", lambda x: True)
        require(self.precision in PRECISIONS, "precision", self.precision, "fp32 or bf16")
        require(self.compile in ("auto", "on", "off"), "compile", self.compile, "auto, on or off")


class SAC:
    """The learner; see `Learner` for the contract."""

    def __init__(
        self,
        spec: Spec,
        config: SACConfig,
        num_envs: int,
        seed: int,
        device: torch.device | str = "cpu",
        planned_steps: int = 0,
    ):
        """`planned_steps`: environment steps of the whole run over all worlds, to judge compiling; 0 is unknown."""
        require_continuous(spec, GROUP, "sac")
        if config.precision == "bf16":
            require_bf16(torch.device(device))
        self.spec, self.config, self.num_envs, self.device = spec, config, num_envs, torch.device(device)
        self.collect_steps = config.collect_steps
        self.request = Sample(config.batch_size)
        self._obs_dim, self._action_dim = spec.obs_dim(GROUP), spec.action_dim

        weights = torch.Generator().manual_seed(int(Stream(seed, "sac/weights").integer(0, 0)[0]))
        self.generator = torch.Generator(self.device).manual_seed(int(Stream(seed, "sac/draws").integer(0, 0)[0]))
        self.networks = Networks.draw(
            self._obs_dim, self._action_dim, config.hidden, config.init_alpha, weights, self.device
        )
        self.normalizer = Normalizer(self._obs_dim, device=self.device) if config.normalize_obs else None
        self.steps = 0  # environment steps acted for, over all worlds

        entropy = -float(self._action_dim) if config.target_entropy is None else config.target_entropy
        self._rates = Rates(config.learning_rate, config.discount, config.tau, entropy)
        self._compiled = _should_compile(config, num_envs, planned_steps, self.device)
        self._update: Callable[..., dict[str, Tensor]] = update
        if self._compiled:
            self._update = _compiled_update(self.device)
        self._layers = [(w[0], b[0]) for w, b in zip(*(self.networks.actor[i::2] for i in (0, 1)), strict=True)]
        self._work = self._workspaces()

    def make_buffer(self) -> Replay:
        return Replay(self.spec, self.num_envs, self.config.capacity, self.device)

    def updates_due(self, env_steps: int) -> int:
        """`updates` after every collect phase, once the random phase is over."""
        return self.config.updates if env_steps >= self.config.learning_starts else 0

    def initial_state(self, n: int) -> dict[str, Tensor]:
        return {}

    @torch.no_grad()
    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        """A sample of the policy (N, A) in [-1, 1] on the device of `obs`; uniform noise while learning has not begun.

        Returns: the action, nothing for the buffer to keep beside it, the unchanged state.
        """
        x = obs[GROUP].to(self.device)
        if self.normalizer is not None:
            self.normalizer.update(x)
        shape = (len(x), self._action_dim)
        if self.steps < self.config.learning_starts:
            action = torch.rand(shape, generator=self.generator, device=self.device) * 2.0 - 1.0
        else:
            mean, log_std = self._actor(self._normalize(x)).chunk(2, -1)
            noise = torch.randn(shape, generator=self.generator, device=self.device)
            action = tanh_gaussian_action(mean, log_std, noise)
        self.steps += len(x)
        return action.to(obs[GROUP].device), {}, state

    @torch.no_grad()
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update of critics, actor, temperature and targets on a batch of transitions."""
        if batch.mask is not None or batch.action.ndim != 2:
            masked = "a mask" if batch.mask is not None else "no mask"
            raise UsageError(f"sac learns from single transitions, all of them real; got actions of shape "
                             f"{tuple(batch.action.shape)} and {masked}")  # fmt: skip
        noise = torch.randn(2 * len(batch.action), self._action_dim, generator=self.generator, device=self.device)
        obs, next_obs = self._normalize(batch.obs[GROUP]), self._normalize(batch.next_obs[GROUP])
        transitions = Transitions(obs, batch.action, batch.reward, next_obs, batch.terminated, noise)
        return self._update(self.networks, transitions, self._rates, *self._work)

    def policy(self) -> Policy:
        """The deterministic policy tanh(mean), as a detached copy."""
        network: dict[str, Any] = {"kind": "mlp", "groups": [GROUP], "hidden": list(self.config.hidden),
                                   "activation": "relu", "head": "tanh"}  # fmt: skip
        *layers, last_weight, last_bias = self.networks.actor
        # ours are (1, in, out), the file's (out, in); of the last layer only the mean, not log_std
        weights = [*(w[0].T for w in layers[::2]), last_weight[0, : self._action_dim]]
        biases = [*(b[0, 0] for b in layers[1::2]), last_bias[0, 0, : self._action_dim]]
        tensors = {f"actor.{i}.weight": w for i, w in enumerate(weights)}
        tensors |= {f"actor.{i}.bias": b for i, b in enumerate(biases)}
        if self.normalizer is not None:
            network["normalizer_clip"] = self.normalizer.clip
            tensors["normalizer.mean"], tensors["normalizer.std"] = self.normalizer.mean32, self.normalizer.std32
        return Policy(self.spec, "sac", network, tensors)

    def _actor(self, x: Tensor) -> Tensor:
        """Mean and log_std (N, 2A) for x (N, O), with as few calls as there can be: acting costs mostly calls."""
        *hidden, (last_weight, last_bias) = self._layers
        for weight, bias in hidden:
            x = torch.addmm(bias, x, weight).relu_()
        return torch.addmm(last_bias, x, last_weight.T)

    def _normalize(self, x: Tensor) -> Tensor:
        return x if self.normalizer is None else self.normalizer(x)

    def _workspaces(self) -> tuple[Workspace, Workspace]:
        actor, critic, bf16 = self.networks.actor, self.networks.critic, self.config.precision == "bf16"
        if self._compiled:
            return Workspace.none(actor, bf16), Workspace.none(critic, bf16)
        rows = self.config.batch_size
        return Workspace.kept(actor, 2 * rows, rows, bf16), Workspace.kept(critic, rows, rows, bf16)

    # ---- exact resume ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `act` and `update` depend on."""
        return {
            "networks": {name: tensor.clone() for name, tensor in self._tensors().items()},
            "generator": self.generator.get_state(),
            "normalizer": {} if self.normalizer is None else self.normalizer.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(state["networks"][name])  # in place: the update holds on to these very tensors
        self.generator.set_state(state["generator"].cpu())
        if self.normalizer is not None:
            self.normalizer.load_state_dict(state["normalizer"])
        self.steps = int(state["steps"])

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor that an update changes, by name."""
        n = self.networks
        lists: dict[str, Params] = {
            "actor": n.actor, "critic": n.critic, "target_critic": n.target_critic,
            "critic_moment_1": n.critic_moments[0], "critic_moment_2": n.critic_moments[1],
            "actor_moment_1": n.actor_moments[0], "actor_moment_2": n.actor_moments[1],
        }  # fmt: skip
        tensors = {f"{name}.{i}": t for name, params in lists.items() for i, t in enumerate(params)}
        return {**tensors, "log_alpha": n.log_alpha, "steps": n.steps}


def _should_compile(config: SACConfig, num_envs: int, planned_steps: int, device: torch.device) -> bool:
    """Whether to compile the update: asked for, or there is a compiler and time to win back the wait."""
    # torch needs a C++ compiler for the CPU; for CUDA it brings its own
    able = device.type != "cpu" or shutil.which("c++") is not None or shutil.which("g++") is not None
    if config.compile == "on" and not able:
        raise UsageError("setting compile = 'on': needs a C++ compiler, and there is no c++ or g++ on PATH; "
                         "install one (apt install g++), or set compile=off")  # fmt: skip
    planned_updates = planned_steps // (num_envs * config.collect_steps) * config.updates
    return config.compile == "on" or (config.compile == "auto" and able and planned_updates >= COMPILE_PAYS_AFTER)


def _compiled_update(device: torch.device) -> Callable[..., dict[str, Tensor]]:
    """`update` compiled whole at its first call, which reports how long that took."""
    # on the CPU a C++ wrapper around the kernels saves Python's share between them, 2 % of an update
    options = {"cpp_wrapper": True} if device.type == "cpu" else {}
    compiled = torch.compile(  # pyright: ignore[reportCallIssue]  (torch's stub lacks isolate_recompiles)
        update, fullgraph=True, dynamic=False, isolate_recompiles=True, options=options
    )
    first = True

    def call(*arguments: Any) -> dict[str, Tensor]:
        nonlocal first
        if not first:
            with flushed_denormals():
                return compiled(*arguments)
        first, started = False, time.monotonic()
        log.info("compiling the update of sac, once; --set compile=off avoids the wait")
        result = compiled(*arguments)
        log.info("compiled the update of sac in %.1f s", time.monotonic() - started)
        return result

    return call
