"""Step, Batch and Sample: what worlds give a buffer, what it hands to a learner, and what the learner asks for.

Legend: N worlds, B batch, T time, A action. A Batch leads with (B,) for transitions or (B, T) for sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .errors import UsageError


@dataclass(frozen=True)
class Step:
    """What one step of N worlds gives."""

    obs: Mapping[str, Tensor]  # what to act on next: already reset where an episode ended
    next_obs: Mapping[str, Tensor]  # the true successor, always
    reward: Tensor  # (N,) float32
    terminated: Tensor  # (N,) bool
    truncated: Tensor  # (N,) bool
    success: Tensor | None = None  # (N,) bool, for tasks that define it; read it where an episode ended
    mask: Tensor | None = None  # (N,) bool; False where a simulator used the step up to reset itself

    @cached_property
    def done(self) -> Tensor:
        return self.terminated | self.truncated

    @cached_property
    def ended(self) -> Tensor:
        """Where what comes next belongs to another episode: also after a step that a simulator used up to reset."""
        return self.done if self.mask is None else self.done | ~self.mask


@dataclass(frozen=True)
class Batch:
    """Experience with true successors. Optional fields are None where their producer has none.

    `next_obs` is always the observation that followed the action, also at an episode's last step;
    bootstrapping uses `terminated` alone, `truncated` only cuts traces.
    """

    obs: Mapping[str, Tensor]  # group -> (B, ..., dim)
    action: Tensor  # (B, ..., A) in [-1, 1], or (B, ..., 1) int64 for discrete
    reward: Tensor  # (B, ...); NaN where imitation was asked for, which reads none
    next_obs: Mapping[str, Tensor]  # empty where imitation was asked for
    terminated: Tensor  # (B, ...) bool: the task ended here, its value is zero
    truncated: Tensor  # (B, ...) bool: time ran out here, the value goes on
    mask: Tensor | None = None  # (B, ...) bool: False marks rows that are no transition
    steps: Tensor | None = None  # (B, ...) effective n of an n-step return
    weight: Tensor | None = None  # (B, ...) importance weight of a row in the loss
    rows: Tensor | None = None  # (B,) where the buffer keeps them, for priorities
    origin: Tensor | None = None  # (B,) which source of a Mix
    next_action: Tensor | None = None  # (B, ..., A) what the data did at `next_obs`; where it terminated, any action
    mc_return: Tensor | None = None  # (B, ...) discounted rewards from here to the recorded end of the episode
    action_mask: Tensor | None = None  # (B, ..., H) bool: False where a chunk runs beyond the episode's end
    extras: Mapping[str, Tensor] = field(default_factory=dict)  # what act() stored: log_prob, value, …

    @property
    def done(self) -> Tensor:
        """Where an episode ended, either way."""
        return self.terminated | self.truncated

    def index(self, rows: Any) -> Batch:
        """The batch of the given rows of the leading axis."""
        return self._map(lambda x: x[rows])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return self._map(lambda x: x.to(device))

    def _map(self, f) -> Batch:
        def apply(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {k: f(v) for k, v in value.items()}
            return None if value is None else f(value)

        return Batch(**{f_.name: apply(getattr(self, f_.name)) for f_ in fields(self)})


@dataclass(frozen=True)
class Sample:
    """What an algorithm asks of a source of batches; a source refuses what it cannot give, and says why.

    Legend of a row that belongs to step t: it shows steps t - obs_horizon + 1 ... t + length - 1 of one episode, T of
    them; where those before the first or after the last step are meant, that step is repeated and `Batch.mask` False.
    """

    batch_size: int  # rows; 0 asks for everything the source holds, in order
    length: int = 1  # consecutive steps from a row's own on; T above 1 makes the batch lead with (B, T)
    obs_horizon: int = 1  # consecutive steps up to a row's own, for policies that read several
    action_horizon: int = 1  # above 1, `action` is chunks (B, ..., H, A): a step's action and those after it
    imitation: bool = False  # obs and action are all that is read: files without rewards and successors serve too
    n_step: int = 1  # rewards summed in a row, fewer where an episode or the buffer ends: Batch.steps says how many
    discount: float = 1.0  # of each further reward of an n-step row, and of mc_return
    next_action: bool = False  # Batch.next_action too
    mc_return: bool = False  # Batch.mc_return too
    goal: str = ""  # goals instead of the recorded: final | future | geometric, see datasets/goals.py; "" keeps them
    goal_share: float = 1.0  # of the rows that get such a goal
    goal_discount: float = 0.99  # geometric: the goal lies k steps ahead with probability in proportion to this^k
    priority: float = 0.0  # rows are drawn in proportion to their priority to this power; 0 draws uniformly
    importance: float = 0.0  # Batch.weight undoes the preference to this power; 1 undoes it wholly

    def refuse_beyond(self, source: str, *given: str) -> None:
        """Raise UsageError where more is asked for than the fields `given`, which are what `source` can give."""
        for f in fields(self):
            if f.name not in given and f.name != "batch_size" and getattr(self, f.name) != f.default:
                raise UsageError(f"{source} cannot give {f.name} {getattr(self, f.name)!r}; "
                                 f"of a Sample it knows batch_size, {', '.join(given)}")  # fmt: skip
