"""PPO where worlds and learner share one device: a rollout and an update are a few launches, and no look from the host.

    act       the policy with its noise                                                          one CUDA graph
    update    values, advantages, every epoch and minibatch, the KL rule, the normalizer          one

Where an episode ended is a mask here: all successors are valued in one pass of the critic, and the mask chooses. On a
CPU the same functions are called as they are.

Legend: N worlds, T time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..batch import Batch
from ..cuda_graph import Function, captured

if TYPE_CHECKING:
    from .ppo import PPO

PARTS = ("obs", "next_obs", "extras")  # of a batch, by name; the others are tensors
COLUMNS = ("action", "reward", "terminated", "truncated")


class Graphs:
    """What a learner does as CUDA graphs, one for every set of tensors that it is given."""

    def __init__(self, learner: PPO, record: bool):
        """record: false where other processes take part in what it does, which is then called as it is."""
        self._learner, self._record = learner, record
        self._graphs: dict[tuple[str, ...], Function] = {}

    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        """As the learner's `act`."""
        named = {**{f"obs/{g}": x for g, x in obs.items()}, **{f"state/{k}": x for k, x in state.items()}}
        out = self._run("act", self._act, named)
        action = out.pop("action")
        raw = {"raw_action": out.pop("raw_action")} if "raw_action" in out else {}
        return action, {**raw, **state}, out

    @torch.no_grad()
    def _act(self, named: dict[str, Tensor]) -> dict[str, Tensor]:
        obs, state = _part(named, "obs"), _part(named, "state")
        action, extras, after = self._learner.explore(obs, state)
        raw = {"raw_action": extras["raw_action"]} if "raw_action" in extras else {}
        return {"action": action, **raw, **after}

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """As the learner's `learn`, for a rollout without masked steps."""
        named = {f"{part}/{name}": x for part in PARTS for name, x in getattr(batch, part).items()}
        return self._run("learn", self._learn, named | {name: getattr(batch, name) for name in COLUMNS})

    def _learn(self, named: dict[str, Tensor]) -> dict[str, Tensor]:
        columns: dict[str, Any] = {name: named[name] for name in COLUMNS}
        return self._learner.learn(Batch(**{part: _part(named, part) for part in PARTS}, **columns))

    def _run(self, what: str, function: Any, named: dict[str, Tensor]) -> dict[str, Tensor]:
        names = tuple(named)
        if (what, *names) not in self._graphs:
            of_tensors = partial(_called, function, names)
            learner = self._learner
            self._graphs[what, *names] = (
                captured(of_tensors, learner.device, [learner.generator]) if self._record else of_tensors
            )
        return self._graphs[what, *names](*named.values())


def _called(function: Any, names: tuple[str, ...], *tensors: Tensor) -> dict[str, Tensor]:
    return function(dict(zip(names, tensors, strict=True)))


def _part(named: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(part + "/"): x for name, x in named.items() if name.startswith(part + "/")}
