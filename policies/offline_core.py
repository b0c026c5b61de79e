"""What the learners from files share: perceptrons with their optimizer, and what of the contract never differs.

    Net               K stacked perceptrons, Adam's moments, and buffers for passes over them
    DataFacts         what a learner may know of all its data before the first update
    OfflineLearner    inputs, policy file, exact resume; an algorithm adds its networks and `update`

Legend: K networks, B batch, D inputs, A action, O outputs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..batch import Batch, Sample
from ..errors import UsageError
from ..keyed import Stream
from ..normalizer import Normalizer
from ..spec import Spec
from .adam import adam_, zero_moments
from .learner import concatenated, require_stacked_vectors
from .network_document import layer_sizes
from .policy import Policy
from .settings import require
from .stacked_mlp import Params, Workspace, draw, forward, input_gradient, parameter_gradient


@dataclass(frozen=True)
class DataFacts:
    """Moments of all observations, where they are normalized, and the lowest and highest return of an episode."""

    normalizer: Normalizer | None = None
    returns: tuple[float, float] | None = None


class Net:
    """K perceptrons of one shape with ReLU; everything that changes is in `tensors`."""

    def __init__(self, networks: int, sizes: Sequence[int], generator: torch.Generator, device: torch.device):
        self.params: Params = [p.to(device) for p in draw(networks, sizes, generator)]
        self.moments = zero_moments(self.params)
        self.steps = torch.zeros((), device=device)
        self._work: dict[int, Workspace] = {}

    def work(self, rows: int) -> Workspace:
        """Buffers for passes over so many rows; a pass writes over what the one before left in them."""
        if rows not in self._work:
            self._work[rows] = Workspace.kept(self.params, rows, rows)
        return self._work[rows]

    def __call__(
        self, x: Tensor, params: Params | None = None, dropout: Sequence[Tensor] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Outputs (K, B, O) and hidden units for x (B, D), with other parameters of the same shape where given."""
        return forward(self.params if params is None else params, x, self.work(x.shape[-2]), dropout=dropout)

    def input_gradient(self, hidden: list[Tensor], d_out: Tensor, first: int) -> Tensor:
        """dJ/dx of the inputs from column `first` on, given dJ/doutput (K, B, O)."""
        return input_gradient(self.params, hidden, d_out, first, self.work(d_out.shape[1]))

    def gradient(self, x: Tensor, hidden: list[Tensor], d_out: Tensor, dropout: Sequence[Tensor] = ()) -> Params:
        """dJ/dparameters, given dJ/doutput (K, B, O), and dropout as the forward pass had it."""
        return parameter_gradient(self.params, x, hidden, d_out, self.work(d_out.shape[1]), dropout=dropout)

    def descend(self, x: Tensor, hidden: list[Tensor], d_out: Tensor, rate: float | Tensor) -> None:
        """One step of Adam down J, given dJ/doutput (K, B, O)."""
        self.steps.add_(1.0)
        adam_(self.params, self.gradient(x, hidden, d_out), self.moments, self.steps, rate)

    def tensors(self, name: str) -> dict[str, Tensor]:
        lists = {name: self.params, f"{name}_moment_1": self.moments[0], f"{name}_moment_2": self.moments[1]}
        return numbered(lists) | {f"{name}_steps": self.steps}


class OfflineLearner(ABC):
    """See `Learner` for the contract; who learns from files alone never acts, so there is no buffer."""

    name: str  # of the algorithm, in policy files
    head = "tanh"  # how the actor's outputs become actions, as in policy files
    actor: Net

    def __init__(self, spec: Spec, config: Any, facts: DataFacts, seed: int, device: torch.device | str = "cpu",
                 planned_steps: int = 0):  # fmt: skip
        self.require(spec)
        self.spec, self.config, self.facts, self.device = spec, config, facts, torch.device(device)
        self.groups, self.normalizer, self.planned_steps = spec.vectors, facts.normalizer, planned_steps
        self.reads: tuple[str, ...] = self.groups  # what batches need to show
        seeds = Stream(seed, self.name)
        self.weights = torch.Generator().manual_seed(int(seeds.integer(0, 0)[0]))
        self.generator = torch.Generator(self.device).manual_seed(int(seeds.integer(1, 0)[0]))
        self.sizes = layer_sizes(spec, self.network())
        self.request = Sample(config.batch_size)

    @abstractmethod
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update; metrics as scalars on the learner's device."""

    @abstractmethod
    def changing(self) -> dict[str, Tensor]:
        """Every tensor that an update changes, by name; the tensors themselves."""

    def require(self, spec: Spec) -> None:
        """Raise UsageError where the algorithm has no use for such data."""
        require_stacked_vectors(spec, self.name)

    # ---- for the algorithms ----------------------------------------------------------------------

    def inputs(self, obs: Mapping[str, Tensor]) -> Tensor:
        """(B, D), normalized."""
        x = concatenated(obs, self.groups).to(self.device)
        return x if self.normalizer is None else self.normalizer(x)

    def annealed(self, rate: float, steps: Tensor) -> float | Tensor:
        """`rate` on its way to zero along a cosine over the planned updates, if any, `steps` of which are behind."""
        if not self.planned_steps:
            return rate
        share = (steps / self.planned_steps).clamp(max=1.0)
        return 0.5 * rate * (1.0 + torch.cos(math.pi * share))

    def noise(self, *shape: int) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def dropout(self, net: Net, rows: int, rate: float) -> list[Tensor]:
        """For every hidden layer of `net`, what its units (K, B, H) are multiplied with; nothing for a rate of 0."""
        if rate == 0.0:
            return []
        shapes = [(len(w), rows, w.shape[-1]) for w in net.params[:-2:2]]
        kept = [torch.empty(s, device=self.device).bernoulli_(1.0 - rate, generator=self.generator) for s in shapes]
        return [mask.div_(1.0 - rate) for mask in kept]

    # ---- the contract ----------------------------------------------------------------------------

    def network(self) -> dict[str, Any]:
        """The policy file's document of the actor."""
        network: dict[str, Any] = {"kind": "mlp", "groups": list(self.groups), "hidden": list(self.config.hidden),
                                   "activation": "relu", "head": self.head}  # fmt: skip
        return network if self.normalizer is None else network | {"normalizer_clip": self.normalizer.clip}

    def policy(self) -> Policy:
        """The actor's deterministic action, as a detached copy."""
        return Policy(self.spec, self.name, self.network(), self.tensors())

    def tensors(self) -> dict[str, Tensor]:
        """The policy file's tensors; where it can be, the tensors themselves."""
        tensors = file_tensors(self.actor.params, self.sizes[-1])
        if self.normalizer is not None:
            tensors |= {"normalizer.mean": self.normalizer.mean32, "normalizer.std": self.normalizer.std32}
        return tensors

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `update` depends on, but for what follows from the data."""
        tensors = {name: tensor.clone() for name, tensor in self.changing().items()}
        return {"tensors": tensors, "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self.changing().items():
            tensor.copy_(state["tensors"][name])
        self.generator.set_state(state["generator"].cpu())


def require_continuous_actions(spec: Spec, algorithm: str) -> None:
    if spec.discrete:
        raise UsageError(f"{algorithm} learns continuous actions, and this data has discrete ones; bc imitates them")


def require_common(config: Any) -> None:
    """The settings that every one of these learners has."""
    require(len(config.hidden) > 0 and all(n > 0 for n in config.hidden), "hidden", config.hidden, "positive sizes")
    require(config.batch_size >= 1, "batch_size", config.batch_size, "at least 1")
    for name in (n for n in vars(config) if n.endswith("learning_rate")):
        rate = getattr(config, name)
        require(0 < rate <= 1, name, rate, "a number above 0, at most 1")
    for name in (n for n in ("discount", "tau") if hasattr(config, n)):
        require(0 <= getattr(config, name) <= 1, name, getattr(config, name), "a number from 0 to 1")


def squared_error(q: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """sum_i E[(q_i - target)^2] and its derivative (K, B), for q (K, B) and target (B,)."""
    error = q - target
    return error.square().mean(1).sum(), error * (2.0 / q.shape[1])


def numbered(lists: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    return {f"{name}.{i}": t for name, tensors in lists.items() for i, t in enumerate(tensors)}


def file_tensors(params: Params, outputs: int) -> dict[str, Tensor]:
    """The first of K perceptrons under the names of the policy file, with its first `outputs` outputs."""
    tensors, layers = {}, len(params) // 2
    for i, (weight, bias) in enumerate(zip(params[::2], params[1::2], strict=True)):
        last = i == layers - 1  # whose weights are (K, out, in), the others (K, in, out)
        tensors[f"actor.{i}.weight"] = weight[0][:outputs] if last else weight[0].T
        tensors[f"actor.{i}.bias"] = bias[0, 0][:outputs] if last else bias[0, 0]
    return tensors
