"""SAC where worlds, replay and networks lie on one device: an iteration is a few launches, and no look from the host.

    act       policy, normalizer and noise                          one CUDA graph
    add       into the replay, and the scale of rewards              one
    learn     all updates of the iteration, each with its draw       one

The host decides nothing that depends on numbers: it counts steps, and knows from their count whose turn it is.
On a CPU the same functions are called as they are.

Legend: N worlds, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..cuda_graph import Function, captured
from ..datasets.device_replay import DeviceReplay
from ..spec import Spec
from .reward_scale import RewardScale

if TYPE_CHECKING:
    from .sac import SAC


class Acting:
    """An action of the policy as one CUDA graph."""

    def __init__(self, learner: SAC):
        self._learner = learner
        self._graphs: dict[tuple[str, ...], Function] = {}

    def __call__(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        names = (*obs, *state)
        if names not in self._graphs:
            act = partial(self._act, tuple(obs), tuple(state))
            self._graphs[names] = _recorded(act, self._learner)
        after = self._graphs[names](*obs.values(), *state.values())
        return after.pop("action"), {}, after

    @torch.no_grad()
    def _act(self, groups: tuple[str, ...], names: tuple[str, ...], *tensors: Tensor) -> dict[str, Tensor]:
        obs, state = dict(zip(groups, tensors, strict=False)), dict(zip(names, tensors[len(groups) :], strict=True))
        action, _, after = self._learner.explore(obs, state, random=False)
        return {"action": action, **after}


class Updates:
    """Several updates with their draws as one CUDA graph, for every place in the actor's turn where they may start."""

    def __init__(self, learner: SAC):
        self._learner = learner
        self._graphs: dict[tuple[int, int], Function] = {}

    def __call__(self, replay: DeviceReplay, count: int) -> dict[str, Tensor]:
        learner = self._learner
        replay.require(learner.request)
        start = learner.updates % learner.config.policy_delay
        if (start, count) not in self._graphs:
            several = partial(self._several, replay, start, count)
            self._graphs[start, count] = _recorded(several, learner)
        return self._graphs[start, count]()

    @torch.no_grad()
    def _several(self, replay: DeviceReplay, start: int, count: int) -> dict[str, Tensor]:
        """Means of the metrics over those updates that have them."""
        learner, found = self._learner, {}
        for turn in range(start, start + count):
            metrics = learner.learn(replay.draw(learner.request), turn % learner.config.policy_delay == 0)
            for name, value in metrics.items():
                found.setdefault(name, []).append(value)
        return {name: torch.stack(values).mean(0) for name, values in found.items()}


def _recorded(function: Function, learner: SAC) -> Function:
    """As a CUDA graph, but where other processes have to take part in it."""
    return function if learner.shared else captured(function, learner.device, [learner.generator])


class _WatchedReplay(DeviceReplay):
    """A replay through which the learner sees every reward once, as it comes."""

    rewards: RewardScale

    def _put(self, *values: Tensor) -> dict[str, Tensor]:
        _, reward, terminated, truncated, *_ = values
        self.rewards.update(reward, terminated | truncated)
        return super()._put(*values)


def watched(spec: Spec, num_envs: int, capacity: int, generator: torch.Generator, device: torch.device,
            rewards: RewardScale | None, shared: bool) -> DeviceReplay:  # fmt: skip
    """A replay on the device, past which rewards go into their scale where there is one."""
    if rewards is None:
        return DeviceReplay(spec, num_envs, capacity, generator, device)
    replay = _WatchedReplay(spec, num_envs, capacity, generator, device, capture=not shared)
    replay.rewards = rewards
    return replay
