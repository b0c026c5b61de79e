"""The two cores of soft actor-critic behind one face: networks, their update, and what of them a policy file holds.

    Plain     continuous actions, vectors, scalar critics: sac_update.py, its derivative written by hand
    General   every other setting: sac_general.py, by automatic differentiation

`choose_core` picks by the settings and the task. Either runs on the CPU or a GPU: there each update is one CUDA graph.

Legend: N worlds, B batch, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from ..cuda_graph import captured
from ..errors import UsageError
from ..history import stacked_shape
from ..spec import Spec
from . import sac_general, sac_update
from .adam import BETA_2
from .compiled import compiled
from .network_document import feature_maps
from .networks import ConvEncoder, initialize_
from .parallel import ALONE, Group
from .precision import bf16_products
from .sac_config import SACConfig
from .sac_general import Seen, Variant
from .sac_update import Rates
from .settings import require
from .stacked_mlp import Params, Workspace

Step = Callable[..., dict[str, Tensor]]


class Core(Protocol):
    """What the learner asks of its networks."""

    def outputs(self, vector: Tensor | None, image: Tensor | None) -> Tensor:
        """The actor's outputs (N, 2A), or (N, choices)."""
        ...

    def update(self, obs: Seen, action: Tensor, reward: Tensor, next_obs: Seen, terminated: Tensor,
               discount: Tensor | None, noise: Tensor, with_actor: bool,
               pair: Tensor | None = None) -> dict[str, Tensor]:  # fmt: skip
        """One update in place; discount None where every row looks one step ahead; pair as in sac_general."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that an update changes, by name; the tensors themselves."""
        ...

    def network(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a policy file holds: of the document the parts that the core knows, and the actor's tensors."""
        ...


def choose_core(
    spec: Spec, config: SACConfig, obs_dim: int, generator: torch.Generator, device: torch.device, compile: bool,
    group: Group = ALONE,
) -> Core:  # fmt: skip
    """The hand-written core where it can, the general one elsewhere."""
    plain = (config.critic, config.norm, config.bootstrap, config.policy_delay, config.critics, config.beta_2) == (
        "scalar", "none", "min", 1, 2, BETA_2)  # fmt: skip
    if plain and not spec.images and not spec.discrete:
        return Plain(obs_dim, spec.action_dim, config, generator, device, compile, group)
    return General(spec, config, obs_dim, generator, device, compile, group)


# ---- by hand -------------------------------------------------------------------------------------


class Plain:
    """sac_update.py with its parameters and workspaces."""

    def __init__(self, obs_dim: int, action_dim: int, config: SACConfig, generator: torch.Generator,
                 device: torch.device, compile: bool, group: Group = ALONE):  # fmt: skip
        self._action_dim, self._hidden, bf16 = action_dim, config.hidden, config.precision == "bf16"
        self.networks = sac_update.Networks.draw(
            obs_dim, action_dim, config.hidden, config.init_alpha, generator, device
        )
        self._rates = Rates(
            config.learning_rate, config.discount, config.tau, config.entropy_target(action_dim, choices=0)
        )
        actor, critic, rows = self.networks.actor, self.networks.critic, config.batch_size
        if compile:
            self.work = (Workspace.none(actor, bf16), Workspace.none(critic, bf16))
        else:
            self.work = (Workspace.kept(actor, 2 * rows, rows, bf16), Workspace.kept(critic, rows, rows, bf16))
        update = compiled(sac_update.update, device, "sac") if compile else sac_update.update
        self._fixed_rows = rows if compile else None

        def step(*tensors: Tensor) -> dict[str, Tensor]:
            return update(self.networks, sac_update.Transitions(*tensors), self._rates, *self.work, group)

        self._step: Step = step if compile else captured(step, device)
        self._layers = [(w[0], b[0]) for w, b in zip(actor[::2], actor[1::2], strict=True)]

    def outputs(self, vector: Tensor | None, image: Tensor | None) -> Tensor:
        """With as few calls as there can be: acting costs mostly calls."""
        assert vector is not None
        *hidden, (last_weight, last_bias) = self._layers
        for weight, bias in hidden:
            vector = torch.addmm(bias, vector, weight).relu_()
        return torch.addmm(last_bias, vector, last_weight.T)

    def update(self, obs: Seen, action: Tensor, reward: Tensor, next_obs: Seen, terminated: Tensor,
               discount: Tensor | None, noise: Tensor, with_actor: bool,
               pair: Tensor | None = None) -> dict[str, Tensor]:  # fmt: skip
        assert obs.vector is not None and next_obs.vector is not None and with_actor
        _require_rows(reward, self._fixed_rows)
        further = () if discount is None else (discount,)
        return self._step(obs.vector, action, reward, next_obs.vector, terminated, noise, *further)

    def tensors(self) -> dict[str, Tensor]:
        n = self.networks
        lists: dict[str, Params] = {
            "actor": n.actor, "critic": n.critic, "target_critic": n.target_critic,
            "critic_moment_1": n.critic_moments[0], "critic_moment_2": n.critic_moments[1],
            "actor_moment_1": n.actor_moments[0], "actor_moment_2": n.actor_moments[1],
        }  # fmt: skip
        return {**_numbered(lists), "log_alpha": n.log_alpha, "steps": n.steps}

    def network(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        *layers, last_weight, last_bias = self.networks.actor
        # ours are (1, in, out), the file's (out, in); of the last layer only the mean, not log_std
        weights = [*(w[0].T for w in layers[::2]), last_weight[0, : self._action_dim]]
        biases = [*(b[0, 0] for b in layers[1::2]), last_bias[0, 0, : self._action_dim]]
        tensors = {f"actor.{i}.weight": w for i, w in enumerate(weights)}
        return {}, tensors | {f"actor.{i}.bias": b for i, b in enumerate(biases)}


# ---- by automatic differentiation ----------------------------------------------------------------


class General:
    """sac_general.py with its parameters, and a camera's encoder where there is one."""

    def __init__(self, spec: Spec, config: SACConfig, obs_dim: int, generator: torch.Generator,
                 device: torch.device, compile: bool, group: Group = ALONE):  # fmt: skip
        choices, action_dim, categorical = spec.choices, spec.action_dim, config.critic == "categorical"
        if choices > 0 and categorical:
            raise UsageError("setting critic = 'categorical': expected scalar for a task with discrete actions")
        self._conv, encoder = _encoder(spec, config, generator)
        self._variant = Variant(
            config.learning_rate, config.tau, config.entropy_target(action_dim, choices), choices,
            config.atoms if categorical else 0, config.v_min, config.v_max, config.norm == "layer",
            config.project_weights, config.bootstrap == "mean", config.critics, config.beta_2,
        )  # fmt: skip
        features = obs_dim + (encoder.size if encoder is not None else 0)
        outputs, inputs = (choices, features) if choices > 0 else (2 * action_dim, features + action_dim)
        atoms = choices or max(1, self._variant.atoms)
        self.networks = sac_general.Networks.draw(
            features, outputs, inputs, atoms, config.hidden, self._variant.norm, config.init_alpha,
            None if encoder is None else encoder.to(device), generator, device, config.critics,
        )  # fmt: skip
        if config.project_weights:
            for params in (self.networks.actor, self.networks.critic, self.networks.target_critic):
                sac_general.project_weights_(params)
        self._bf16, self._device, self._discount = config.precision == "bf16", device, config.discount
        self._group = group
        self._outputs = choices or action_dim  # of the actor's, those that a policy file holds
        self._pictures = encoder is not None
        self._vectors = obs_dim > 0
        self._both = torch.arange(2, device=device)
        self._fixed_rows = config.batch_size if compile else None
        self._steps = {}
        for turn in (False, True):  # two functions: what is compiled does not look at its arguments
            update = compiled(sac_general.update, device, "sac") if compile else sac_general.update
            self._steps[turn] = self._as_step(update, turn, not compile)

    def _as_step(self, update: Step, with_actor: bool, capture: bool) -> Step:
        """The update as a function of tensors alone, which a CUDA graph can be made of."""

        def step(action: Tensor, reward: Tensor, terminated: Tensor, discount: Tensor, noise: Tensor, pair: Tensor,
                 *seen: Tensor) -> dict[str, Tensor]:  # fmt: skip
            parts = list(seen)
            both = [Seen(parts.pop(0) if self._vectors else None, parts.pop(0) if self._pictures else None)
                    for _ in range(2)]  # fmt: skip
            t = sac_general.Transitions(both[0], action, reward, both[1], terminated, discount, noise, pair)
            return update(self.networks, t, self._variant, with_actor, self._group)

        return captured(step, self._device) if capture else step

    def outputs(self, vector: Tensor | None, image: Tensor | None) -> Tensor:
        n = self.networks
        seen = sac_general.features(n, n.eyes, Seen(vector, image))
        return sac_general.forward(n.actor, seen, self._variant.norm)[0]

    def update(self, obs: Seen, action: Tensor, reward: Tensor, next_obs: Seen, terminated: Tensor,
               discount: Tensor | None, noise: Tensor, with_actor: bool,
               pair: Tensor | None = None) -> dict[str, Tensor]:  # fmt: skip
        _require_rows(reward, self._fixed_rows)
        if discount is None:
            discount = torch.full_like(reward, self._discount)
        parts = (obs.vector, obs.image, next_obs.vector, next_obs.image)
        context: AbstractContextManager = bf16_products(self._device) if self._bf16 else nullcontext()
        with context:
            return self._steps[with_actor](
                action,
                reward,
                terminated,
                discount,
                noise,
                self._both if pair is None else pair,
                *(x for x in parts if x is not None),
            )

    def tensors(self) -> dict[str, Tensor]:
        n = self.networks
        lists: dict[str, Params] = {
            "actor": n.actor, "critic": n.critic, "target_critic": n.target_critic, "encoder": n.eyes,
            "critic_moment_1": n.critic_moments[0], "critic_moment_2": n.critic_moments[1],
            "actor_moment_1": n.actor_moments[0], "actor_moment_2": n.actor_moments[1],
        }  # fmt: skip
        return {**_numbered(lists), "log_alpha": n.log_alpha, "steps": n.steps, "actor_steps": n.actor_steps}

    def network(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        n, norm = self.networks, self._variant.norm
        tensors = {} if n.encoder is None else n.encoder.tensors()
        per_layer, params = (4 if norm else 2), n.actor
        for i, at in enumerate(range(0, len(params), per_layer)):
            weight, bias = params[at][0].T, params[at + 1][0, 0]
            if at == len(params) - 2:  # of the last layer only the means, not log_std
                weight, bias = weight[: self._outputs], bias[: self._outputs]
            elif norm:
                tensors[f"actor.{i}.norm.weight"] = params[at + 2][0, 0]
                tensors[f"actor.{i}.norm.bias"] = params[at + 3][0, 0]
            tensors[f"actor.{i}.weight"], tensors[f"actor.{i}.bias"] = weight, bias
        return {**({"norm": "layer"} if norm else {}), **({"conv": self._conv} if self._conv else {})}, tensors


def _encoder(spec: Spec, config: SACConfig, generator: torch.Generator) -> tuple[dict[str, Any], ConvEncoder | None]:
    """The encoder of the task's camera and its part of the network document; nothing without a camera."""
    if not spec.images:
        return {}, None
    group, layers = spec.images[0], [list(layer) for layer in config.conv]
    shape = stacked_shape(spec, group)
    require(all(min(size[1:]) >= 1 for size in feature_maps(shape, layers)), "conv", config.conv,
            f"layers that fit into a picture of {shape[0]} x {shape[1]}")  # fmt: skip
    encoder = ConvEncoder(shape, layers, "relu", config.image_features)
    initialize_(encoder, generator, None)
    return {"group": group, "layers": layers, "activation": "relu", "features": config.image_features}, encoder


def _require_rows(reward: Tensor, rows: int | None) -> None:
    """Raise UsageError unless a batch has the rows that its update was compiled for, where it was."""
    if rows is not None and len(reward) != rows:
        raise UsageError(f"the update is compiled for batches of {rows} rows and was given {len(reward)}; "
                         f"set batch_size, or compile=off")  # fmt: skip


def _numbered(lists: dict[str, Params]) -> dict[str, Tensor]:
    return {f"{name}.{i}": t for name, params in lists.items() for i, t in enumerate(params)}
