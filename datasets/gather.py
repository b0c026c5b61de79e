"""What belongs to rows of a dataset, put together from the steps around them: see offline.py for each.

Legend: B batch, T window, A action, H chunk, G goal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch, Sample
from ..spec import Spec
from .goals import GoalReward, goal_steps
from .step_index import Pool, StepIndex


class Store(Protocol):
    """Where the columns of steps lie: in memory, or in their files."""

    def take(self, names: Sequence[str], rows: np.ndarray) -> dict[str, Tensor]:
        """Columns, each obs/<group> or action, at rows (…)."""
        ...

    def successors(self, names: Sequence[str], rows: np.ndarray) -> dict[str, Tensor]:
        """The observations that followed the actions of steps (…)."""
        ...


class Places(NamedTuple):
    """Steps that a batch shows, and of the episode of each its first step, the last that may be shown, and the last."""

    steps: np.ndarray  # (B,) or (B, T)
    first: np.ndarray  # (B,) or (B, 1)
    stop: np.ndarray
    last: np.ndarray


class Gather:
    """Batches of given rows."""

    def __init__(
        self, store: Store, index: StepIndex, spec: Spec, device: torch.device, goal_reward: GoalReward | None
    ):
        self._store, self._index, self._spec, self._goal_reward = store, index, spec, goal_reward
        self._stacked = {g: h for g in spec.observations if (h := spec.history(g)) > 1}
        self._names = ("action", *(f"obs/{g}" for g in spec.observations if g not in self._stacked))
        self._device, self._moves = device, device.type != "cpu"
        self._nan = torch.full((), np.nan, device=device)
        self._never = torch.zeros((), dtype=torch.bool, device=device)

    def __call__(self, rows: np.ndarray, request: Sample, pool: Pool, rng: np.random.Generator) -> Batch:
        index = self._index
        episode = index.episode.take(rows)
        at = Places(rows, index.first.take(episode), pool.stop.take(episode), index.last.take(episode))
        optional: dict[str, Any] = {"rows": torch.from_numpy(rows)}
        if request.length + request.obs_horizon > 2:
            offsets = np.arange(1 - request.obs_horizon, request.length)
            steps, mask = index.window(rows, at.first, at.stop, offsets)  # (B, T)
            at = Places(steps, at.first[:, None], at.stop[:, None], at.last[:, None])
            optional["mask"] = self._to(mask)
        if request.action_horizon > 1:
            chunk, within = index.window(at.steps, at.first, at.last, np.arange(request.action_horizon))  # (…, H)
            obs, action = self._obs(at), self._store.take(("action",), chunk)["action"]  # (…, H, A)
            optional["action_mask"] = self._to(within)
        else:
            obs, action = self._obs_and_action(at)
        if request.mc_return:
            optional["mc_return"] = self._to(index.returns(request.discount).take(at.steps))
        if len(index.borders) > 2:
            optional["origin"] = self._to(index.origin(rows))
        if request.imitation:
            told = self._imitation(at, request, optional)
        else:
            told = self._transition(at, request, optional, obs)
        batch = Batch(obs, action, *told, **optional)
        return self._in_hindsight(batch, at, request, rng) if request.goal else batch

    def _imitation(self, at: Places, request: Sample, optional: dict[str, Any]) -> tuple[Any, ...]:
        """What imitation does not read: reward, next_obs, terminated, truncated."""
        if request.next_action:
            optional["next_action"] = self._actions(np.minimum(at.steps + 1, at.last))
        never = self._never.expand(at.steps.shape)
        return self._nan.expand(at.steps.shape), {}, never, never

    def _transition(
        self, at: Places, request: Sample, optional: dict[str, Any], obs: dict[str, Tensor]
    ) -> tuple[Any, ...]:
        """reward, next_obs, terminated, truncated of rows of up to n steps."""
        index, last = self._index, at
        if request.n_step > 1:
            rows, count, reward = index.accumulate(at.steps, at.stop, request.n_step, request.discount)
            last, optional["steps"] = at._replace(steps=rows), self._to(count)
        else:
            reward = index.reward.take(at.steps)
        if request.next_action:
            optional["next_action"] = self._actions(np.minimum(last.steps + 1, at.last))
        next_obs = self._successors(last, obs if last is at else self._stacks(last))
        return (self._to(reward), next_obs, self._to(index.terminated.take(last.steps)),
                self._to(index.truncated.take(last.steps)))  # fmt: skip

    def _obs_and_action(self, at: Places) -> tuple[dict[str, Tensor], Tensor]:
        found = self._store.take(self._names, at.steps)
        action = found.pop("action")
        obs = {name.removeprefix("obs/"): value for name, value in found.items()}
        return (obs | self._stacks(at) if self._stacked else obs), action

    def _obs(self, at: Places) -> dict[str, Tensor]:
        return self._obs_and_action(at)[0]

    def _actions(self, steps: np.ndarray) -> Tensor:
        return self._store.take(("action",), steps)["action"]

    def _stacks(self, at: Places) -> dict[str, Tensor]:
        """The groups with a history at steps (…): frames along the last axis, oldest first, zeros before the first."""
        return {group: self._stack(group, at, history) for group, history in self._stacked.items()}

    def _stack(self, group: str, at: Places, history: int) -> Tensor:
        frames = []
        for back in range(history - 1, -1, -1):
            steps = at.steps - back
            frame = self._store.take((f"obs/{group}",), np.maximum(steps, at.first))[f"obs/{group}"]
            if (before := steps < at.first).any():
                frame = frame.masked_fill(self._to(before).view(*before.shape, *[1] * (frame.ndim - before.ndim)), 0)
            frames.append(frame)
        return torch.cat(frames, -1)

    def _successors(self, at: Places, stacks: dict[str, Tensor]) -> dict[str, Tensor]:
        """What followed steps (…): the newest frame, behind the step's own newest ones where a group is stacked."""
        found = self._store.successors([f"obs/{group}" for group in self._spec.observations], at.steps)
        result = {name.removeprefix("obs/"): value for name, value in found.items()}
        for group in self._stacked:
            width = result[group].shape[-1]
            result[group] = torch.cat([stacks[group][..., width:], result[group]], -1)
        return result

    def _in_hindsight(self, batch: Batch, at: Places, request: Sample, rng: np.random.Generator) -> Batch:
        """The batch with goals that its episodes reached, one for a row, and the rewards that go with them."""
        group = "achieved_goal" if "achieved_goal" in self._spec.observations else "state"
        rows = batch.rows.numpy() if batch.rows is not None else at.steps
        ends = at.stop.reshape(-1)
        goal = self._store.successors(
            (f"obs/{group}",), goal_steps(request.goal, rows, ends, request.goal_discount, rng)
        )
        goal = goal[f"obs/{group}"]  # (B, G)
        goal = goal.view(len(rows), *[1] * (at.steps.ndim - 1), -1).expand(*at.steps.shape, -1)
        chosen = self._to(rng.random(len(rows)) < request.goal_share).view(-1, *[1] * (at.steps.ndim - 1))

        def told(obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
            kept = obs.get("goal")
            return {**obs, "goal": goal if kept is None else torch.where(chosen[..., None], goal, kept)}

        if request.imitation or self._goal_reward is None:
            return replace(batch, obs=told(batch.obs))
        reward = self._goal_reward(batch.next_obs[group], goal).to(batch.reward.dtype)
        return replace(batch, obs=told(batch.obs), next_obs=told(batch.next_obs),
                       reward=torch.where(chosen, reward, batch.reward))  # fmt: skip

    def _to(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device) if self._moves else torch.from_numpy(array)
