"""OfflineDataset: demonstrations of one or more files as a source of batches.

    data = load(["expert.hdf5", "human.hdf5:train"], weights=[1, 3])
    batch = data.sample(Sample(256, length=10, imitation=True), rng)

Steps of all episodes lie one after the other, S of them; a sample is rows of them, and what belongs to a row is put
together from the steps around it, none beyond its episode:

    window           steps t - obs_horizon + 1 … t + length - 1; where there is none, the first or last, mask False
    stacked frames   a group with history h in the Spec is h frames along the last axis, oldest first, zeros before the
                     episode's first, as history.py stacks them at deployment
    action chunk     the step's action and those after it, the last repeated, action_mask False there
    n-step row       reward = sum_i discount^i r_{t+i} over `steps` <= n rewards, fewer where the episode ends or
                     terminates; next_obs and terminated are those of the last of them
    goal             goals.py
    next_action      the action of the next step; of a step that terminated, its own
    mc_return        discounted rewards to the recorded end of the episode, nothing beyond a truncation

All that varies is drawn from `rng`, so the same generator gives the same batches, and its state is all there is to
save. A step that has no known successor (the last of an episode without `next_obs` that did not terminate) is shown to
imitation alone. The steps lie in memory, or in the files where they are larger (step_store.py).

Legend: S steps, E episodes, B batch, T window, A action, H chunk.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..batch import Batch, Sample
from ..errors import DatasetError, UsageError
from ..spec import Spec
from .gather import Gather
from .goals import GoalReward, goal_steps
from .log import Episode, Log
from .log_arrays import ENDS, LogArrays, action_scales
from .log_spec import ObsMapping, default_mapping, spec_of
from .memory_store import memory_allowed
from .mix import checked_weights, shares
from .step_index import Pool, StepIndex
from .step_store import make_store

GIVEN = ("length", "obs_horizon", "action_horizon", "imitation", "n_step", "discount", "next_action", "mc_return",
         "goal", "goal_share", "goal_discount")  # fmt: skip


class OfflineDataset:
    """The steps of some logs, from `episodes` of each (all unless told), on one device.

    mapping: which keys make which observation group, the same of every log; see log_spec.py.
    task: the Spec of the task that the data is of; the data must fit it, and it becomes the dataset's.
    weights: shares of the logs in every batch; without them every step is as likely as any other.
    ends: what `dones` of unknown kind are, "terminated" or "truncated".
    actions: what to do with actions beyond [-1, 1]: "checked" refuses, "clip", "scale" by the range of the data.
    label: the column that is the action: "actions" were executed; "actions_asked", where there are such, is what an
           expert meant before noise was added (Laskey et al. 2017, "DART", arXiv 1703.09327).
    goal_reward: (achieved, goal) -> reward, for rows with goals in hindsight.
    memory: bytes that the steps may take, as 500M or 2G too, before they are read from the files instead, batch by
            batch; half of what is free unless told.
    """

    def __init__(self, logs: Sequence[Log], mapping: ObsMapping | None = None, device: torch.device | str = "cpu", *,
                 episodes: Sequence[Sequence[Episode]] | None = None, task: Spec | None = None,
                 weights: Sequence[float] | None = None, ends: str = "", actions: str = "checked",
                 label: str = "actions", goal_reward: GoalReward | None = None,
                 memory: int | str | None = None):  # fmt: skip
        if not logs:
            raise UsageError("a dataset needs at least one file")
        if ends not in ENDS:
            raise UsageError(f"ends can be terminated or truncated, not {ends!r}")
        self.device, self._goal_reward = torch.device(device), goal_reward
        chosen = [[e for e in es if e.steps > 0] for es in (episodes or [log.episodes for log in logs])]
        if empty := [log for log, es in zip(logs, chosen, strict=True) if not es]:
            raise DatasetError(f"{empty[0].path} holds no episode with a step")
        spec = spec_of(logs[0], mapping, task)
        pairs = list(zip(logs, chosen, strict=True))
        scales, self.spec, notes = action_scales(pairs, spec, actions, task is not None, label)
        self.notes: tuple[str, ...] = (*dict.fromkeys(note for log in logs for note in log.notes), *notes)
        parts = [LogArrays(log, es, _keys(log, mapping, self.spec), self.spec, scale, ends, label)
                 for (log, es), scale in zip(pairs, scales, strict=True)]  # fmt: skip
        self._weights = None if weights is None else checked_weights(weights, len(logs))
        self._index = StepIndex(parts)
        allowed = memory_allowed(memory, self.device)
        self._store, self.in_files = make_store(parts, self._index, self.spec, self.device, allowed)
        self._gather = Gather(self._store, self._index, self.spec, self.device, goal_reward)
        self._request: Sample | None = None  # the last that came, and what was made of it
        self._pool: Pool | None = None

    # ---- what is there -------------------------------------------------------------------------

    @property
    def num_rows(self) -> int:
        """Steps, each of which imitation may draw."""
        return len(self._index)

    @property
    def num_episodes(self) -> int:
        return len(self._index.last)

    def episode_returns(self) -> np.ndarray:
        """(E,) sums of rewards."""
        self._index.require_rewards()
        return np.add.reduceat(self._index.reward.astype(np.float64), self._index.first)

    def discounted_returns(self, discount: float) -> np.ndarray:
        """(S,) discounted rewards from every step to the recorded end of its episode."""
        self._index.require_rewards()
        return self._index.returns(discount)

    def blocks(self, rows: int = 8192, groups: Sequence[str] | None = None) -> Iterator[Batch]:
        """All steps in order, `rows` at a time, as imitation sees them: for statistics of what does not fit memory.

        groups: the observation groups to show, all unless told; cameras that nobody asks for are not read.
        """
        request, rng, gather = Sample(0, imitation=True), np.random.default_rng(0), self._gather
        if groups is not None:
            gather = Gather(self._store, self._index, self.spec.only(groups), self.device, None)
        pool = self._index.pool(request)
        for start in range(0, self.num_rows, rows):
            yield gather(np.arange(start, min(start + rows, self.num_rows)), request, pool, rng)

    def show(self, groups: Sequence[str]) -> None:
        """Put no other observation groups into batches from now on: cameras that nobody looks at cost nothing then."""
        self._gather = Gather(self._store, self._index, self.spec.only(groups), self.device, self._goal_reward)

    # ---- sampling ------------------------------------------------------------------------------

    def sample(self, request: Sample, rng: np.random.Generator) -> Batch:
        """Rows drawn uniformly with replacement, by file where files have weights; all in order with batch_size 0.

        Raises:
            UsageError: the request asks for what no dataset gives.
            DatasetError: it asks for what these files do not hold.
        """
        if request is not self._request or self._pool is None:
            request.refuse_beyond("a dataset", *GIVEN)
            self._refuse_goals(request)
            self._request, self._pool = request, self._index.pool(request)
        pool, borders = self._pool, self._index.borders
        if request.batch_size == 0:
            rows = np.arange(self.num_rows)
            rows = rows[rows <= pool.stop[self._index.episode]]
        elif self._weights is None:
            rows = self._draw(request.batch_size, 0, self.num_rows, pool, rng)
        else:
            counts = shares(request.batch_size, self._weights, rng)
            logs = zip(counts, borders[:-1].tolist(), borders[1:].tolist(), strict=True)
            rows = np.concatenate([self._draw(count, low, high, pool, rng) for count, low, high in logs])
        return self._gather(rows, request, pool, rng)

    def _draw(self, count: int, low: int, high: int, pool: Pool, rng: np.random.Generator) -> np.ndarray:
        """`count` rows of low … high - 1; those that the pool leaves out are drawn again."""
        rows = rng.integers(low, high, (count,))
        if not pool.whole:
            while len(bad := (rows > pool.stop.take(self._index.episode.take(rows))).nonzero()[0]) > 0:
                rows[bad] = rng.integers(low, high, len(bad))
        return rows

    def _refuse_goals(self, request: Sample) -> None:
        if not request.goal:
            return
        goal_steps(request.goal, np.zeros(1, int), np.zeros(1, int), request.goal_discount, np.random.default_rng(0))
        if request.n_step > 1 or request.mc_return:
            raise UsageError("goals in hindsight change the rewards of every step: ask for n_step 1, and no mc_return")
        if not request.imitation and self._goal_reward is None:
            raise UsageError("goals in hindsight need the task's reward: OfflineDataset(…, goal_reward=(achieved, goal)"
                             " -> reward); imitation needs none")  # fmt: skip
        if request.goal_share < 1.0 and "goal" not in self.spec.observations:
            raise UsageError("these files hold no goals, so goal_share must be 1")


def _keys(log: Log, mapping: ObsMapping | None, spec: Spec) -> ObsMapping:
    """group -> keys of this log, for the groups of the Spec."""
    chosen = mapping or default_mapping(log)
    if missing := [group for group in spec.observations if group not in chosen]:
        raise DatasetError(f"{log.path} does not give the observation group {missing[0]!r}; it gives "
                           f"{', '.join(chosen)}")  # fmt: skip
    return {group: chosen[group] for group in spec.observations}


def load(files: Sequence[str | os.PathLike[str]], mapping: ObsMapping | None = None, *, layout: str | None = None,
         look: Callable[[Log], None] | None = None, **settings: Any) -> OfflineDataset:  # fmt: skip
    """The dataset of some files of any layout, each FILE or FILE:FILTER; `settings` are OfflineDataset's.

    look: called with every file's log, of the filter's episodes, before anything is read from it for learning.
    """
    from .convert import narrowed
    from .open_log import open_log

    with contextlib.ExitStack() as stack:
        logs, episodes = [], []
        for file in files:
            path, name = split_filter(file)
            log = stack.enter_context(open_log(path, layout))
            logs.append(log)
            episodes.append(log.filtered(name) if name else log.episodes)
            if look is not None:
                look(narrowed(log, name) if name else log)
        return OfflineDataset(logs, mapping, episodes=episodes, **settings)


def split_filter(file: str | os.PathLike[str]) -> tuple[str, str]:
    """("FILE", "FILTER") of FILE:FILTER, and no filter where a file has that very name or the text names none."""
    text = os.fspath(file)
    path, colon, name = text.rpartition(":")
    if not colon or os.path.exists(text) or not os.path.exists(path):
        return text, ""
    return path, name
