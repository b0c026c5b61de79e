"""Asynchronous collecting: actor processes step the worlds while the learner learns. `collect = async`.

    actors:   act with the newest weights -> env.step -> row     at most `max_lead` rows ahead of the learner
    learner:  collect_steps rows -> replay; updates_due updates; every `publish_every` updates new weights

So there are as many updates for every environment step as in the synchronous loop, in the same order; only the actions
come from weights that are some updates old. That suits learners that learn from anyone's steps (sac, dqn). The rows in
flight when a checkpoint is saved go into the replay early, and count when their turn comes.

`async/staleness` is how many published versions the weights of a row lie behind when the learner takes it, and
`async/waiting_…` the share of the time that either side spends waiting for the other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Step
from ..errors import UsageError
from .actors import Actors
from .learner import ActedElsewhere, restart
from .recipes import Recipe
from .run_settings import RunSettings
from .train import Training
from .weight_board import Publisher, WeightBoard, pack


def actors_for(algorithm: str, task: str, chosen: Recipe, randomize: Any) -> Actors:
    """The actors of a run, not yet started.

    Raises:
        UsageError: the algorithm learns from its own newest steps alone.
    """
    if not hasattr(chosen.learner, "watch"):
        raise UsageError(f"collect = async: {algorithm} learns from steps of its newest policy alone, so its worlds "
                         "would wait for it anyway; async is for sac and dqn, use collect=sync")  # fmt: skip
    return Actors(algorithm, task, chosen, randomize)


class AsyncTraining(Training):
    """The loop of training with rows in the place of steps."""

    env: Actors
    learner: ActedElsewhere
    run: RunSettings

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.initial_state = self._there(self.initial_state)
        self.state = self.initial_state
        self.publisher = Publisher(WeightBoard(self.learner.acting()))
        self.early = 0  # rows that were taken before their turn
        self.unpublished = 0  # updates since weights were published
        self.staleness = _Staleness()
        self.looked, self.waits = time.monotonic(), np.zeros(2)  # at the last log line: when, and waited [s] until then

    def iterate(self) -> None:
        for _ in range(self.learner.collect_steps):
            if self.early > 0:
                self.early -= 1
                self.env.give(self.early)
            else:
                self._take()
            self.steps += self.env.num_envs
        self.publisher.deliver()
        self.unpublished += self.learn()
        if self.unpublished >= self.run.publish_every:
            self.publisher.offer(self.learner.acting())
            self.unpublished = 0

    def _take(self) -> None:
        """The next row into the replay."""
        here, there = self.env.take(self.learner.device)
        self.env.give(self.early)
        self.staleness.add(self.publisher.board.version - here.version)
        step, shown = there.step, here.step
        if self.env.said("new").any():
            step = _contained(step, self.obs) if self.on_device else step
            shown = replace(shown, mask=None)  # the episodes that were lost end here
        self.state = self.learner.watch(self.obs, self.state)
        self.buffer.add(self.obs, there.action, {}, step)
        self.episodes.add(step if self.on_device else shown)
        if self.state:
            self.state = restart(self.state, step.ended, self.initial_state, look=not self.on_device)
        self.obs = step.obs

    def begin(self) -> None:
        self._start(row=0)

    def _start(self, row: int, states: Any = ()) -> None:
        board, phase = self.publisher.board, self.env.num_envs * self.learner.collect_steps
        board.publish(pack(self.learner.acting()).cpu().numpy())
        end = -(-self.run.steps // phase) * self.learner.collect_steps
        first = self.env.start(row, end, board.descriptor, self.learner.device, self.run.actors, states)
        self.obs = first.step.obs
        self.env.give(self.early)

    def own_metrics(self) -> dict[str, float]:
        now, waits = time.monotonic(), np.array([self.env.waited, self.env.said("waited").mean()])
        # a new actor has waited less than the one before it, and rows tell it a little later than it was
        shares = np.clip((waits - self.waits) / max(now - self.looked, 1e-9), 0.0, 1.0)
        self.looked, self.waits = now, waits
        waiting = dict(zip(("async/waiting_learner", "async/waiting_actors"), shares.tolist(), strict=True))
        return super().own_metrics() | self.staleness.take() | waiting

    def own_state(self) -> dict[str, Any]:
        self.env.ask_states()
        while self.env.coming > 0:
            self._take()
            self.early += 1
        states = self.env.states()
        self.env.give(self.early)
        return {"actors": states, "act_state": dict(self.state), "episodes": self.episodes.state_dict(),
                "early": self.early}  # fmt: skip

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        self.episodes.load_state_dict(state["episodes"])
        self.state, self.early = self._there(state["act_state"]), state["early"]
        self._start(self.steps // self.env.num_envs + self.early, state["actors"])

    def _there(self, state: Mapping[str, Any]) -> dict[str, Any]:
        return {name: tensor.to(self.learner.device) for name, tensor in state.items()}


def _contained(step: Step, obs: Mapping[str, Tensor]) -> Step:
    """A row in which worlds were lost with their actor, for a replay without masks: as broken worlds are contained.

    Their reward is 0, their successor what they showed last, and their episode truncated.
    """
    assert step.mask is not None
    kept = {g: torch.where(step.mask.view(-1, *[1] * (x.ndim - 1)), x, obs[g]) for g, x in step.next_obs.items()}
    return replace(step, next_obs=kept, mask=None)


class _Staleness:
    """Versions that rows lay behind, since they were last asked for."""

    def __init__(self) -> None:
        self._sum = self._count = self._max = 0

    def add(self, behind: np.ndarray) -> None:
        self._sum, self._count = self._sum + int(behind.sum()), self._count + behind.size
        self._max = max(self._max, int(behind.max()))

    def take(self) -> dict[str, float]:
        if self._count == 0:
            return {}
        values = {"async/staleness": self._sum / self._count, "async/staleness_max": float(self._max)}
        self._sum = self._count = self._max = 0
        return values
