"""Learner: the networks and optimisers of one algorithm, behind one contract.

The loop that drives it (train.py) knows no algorithm:

    for each iteration:
        collect_steps times:      act -> env.step -> buffer.add
        updates_due(env_steps) times:  update(buffer.sample(request, rng))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch, Sample, Step
from ..errors import UsageError
from ..spec import Spec
from .policy import Policy

Obs = Mapping[str, Tensor]  # group -> (N, dim)
State = Mapping[str, Tensor]  # what a recurrent policy carries, leading (N,); empty for the others


class Buffer(Protocol):
    """Where experience waits between collecting and learning."""

    def add(self, obs: Obs, action: Tensor, extras: Mapping[str, Tensor], step: Step) -> None:
        """Store one step of every world; `obs` is what was acted on."""
        ...

    def sample(self, request: Sample, rng: np.random.Generator) -> Batch: ...

    def set_priorities(self, rows: Tensor | None, priorities: Tensor) -> None:
        """New priorities (B,) of the rows of a batch, for buffers that can draw by them."""
        ...

    def save(self, folder: Path) -> dict[str, Any]:
        """Write what came since the last save as new files in `folder`; the manifest that names every file in use."""
        ...

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> None: ...


class Learner(Protocol):
    """One algorithm. All its randomness comes from its own generators, which `state_dict` holds."""

    spec: Spec
    request: Sample
    collect_steps: int

    def initial_state(self, n: int) -> State:
        """What `act` carries for n worlds at the start of an episode: leading (n,); empty for most learners."""
        ...

    def act(self, obs: Obs, state: State) -> tuple[Tensor, dict[str, Tensor], State]:
        """An exploring action (N, A) in [-1, 1], what the buffer should keep with it, and the next state."""
        ...

    def updates_due(self, env_steps: int) -> int:
        """How many updates to make after collecting, `env_steps` having been taken over all worlds so far."""
        ...

    def make_buffer(self) -> Buffer:
        """Where experience waits. Learners that can work without a look from the host take `on_device` (train.py)."""
        ...

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update; metrics as scalars on the learner's device.

        An entry "priorities" (B,) is no metric: the loop hands it to the buffer, for `batch.rows`.
        """
        ...

    def policy(self) -> Policy:
        """A detached copy of the policy, as it would be deployed."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class ActedElsewhere(Learner, Protocol):
    """A learner for which copies of it may act in other processes: off-policy (async_collect.py)."""

    steps: int  # environment steps acted for, over all worlds, which exploring may depend on
    device: torch.device

    def acting(self) -> dict[str, Tensor]:
        """What `act` reads of what learning changes."""
        ...

    def act_with(self, tensors: Mapping[str, Tensor]) -> None:
        """Act with what another's `acting` gave from now on."""
        ...

    def watch(self, obs: Obs, state: State) -> State:
        """Take in what worlds show that are acted in elsewhere, as `act` would have done; the next state."""
        ...


def restart(state: State, done: Tensor, initial: State, look: bool = True) -> State:
    """`state` with the rows of the worlds that are `done` (N,) as at the start of an episode.

    look: whether to ask first if there are any, for which the host would wait for a device.
    """
    if look and not done.any():
        return state
    return {k: torch.where(done.to(v.device).view(-1, *[1] * (v.ndim - 1)), initial[k], v) for k, v in state.items()}


def concatenated(obs: Obs, groups: Sequence[str]) -> Tensor:
    """The flat groups side by side: (..., D)."""
    return obs[groups[0]] if len(groups) == 1 else torch.cat([obs[g] for g in groups], -1)


def require_vectors(spec: Spec, algorithm: str) -> None:
    """Raise UsageError unless a perceptron can serve: flat observations, and one choice or continuous actions."""
    if spec.discrete and len(spec.actions) > 1:
        raise UsageError(f"{algorithm} draws one choice, or continuous actions; this task wants several at once: "
                         f"{', '.join(f'{a.name} ({a.kind})' for a in spec.actions)}")  # fmt: skip
    if not spec.vectors:
        raise UsageError(f"{algorithm} reads flat observations; this task has {', '.join(spec.observations)}. "
                         f"ppo, sac and dqn learn from cameras")  # fmt: skip
    if remembered := [g for g in spec.vectors if spec.history(g) > 1]:
        raise UsageError(f"{algorithm} sees one frame at a time; this task stacks {spec.history(remembered[0])} of "
                         f"{remembered[0]}. ppo, sac and dqn learn from stacked frames")  # fmt: skip


def require_stacked_vectors(spec: Spec, algorithm: str, else_: str = "") -> None:
    """Raise UsageError unless a perceptron can serve; frames of several moments are vectors too."""
    if spec.discrete and len(spec.actions) > 1:
        raise UsageError(f"{algorithm} learns one choice, or continuous actions; this data has several at once: "
                         f"{', '.join(f'{a.name} ({a.kind})' for a in spec.actions)}")  # fmt: skip
    if not spec.vectors:
        raise UsageError(f"{algorithm} reads flat observations; this data has {', '.join(spec.observations) or 'none'}"
                         + (f". {else_}" if else_ else ""))  # fmt: skip


def require_continuous(spec: Spec, group: str, algorithm: str) -> None:
    """Raise UsageError where a task's actions are discrete or it lacks the observation group that a learner reads."""
    if spec.discrete:
        raise UsageError(f"{algorithm} here learns continuous actions, and this task has discrete ones; "
                         "choose a task with continuous actions")  # fmt: skip
    if group not in spec.observations:
        raise UsageError(f"{algorithm} reads the observation group {group!r}; this task has "
                         f"{', '.join(spec.observations)}")  # fmt: skip
