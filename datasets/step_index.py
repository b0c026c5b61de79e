"""What is known of every step of a dataset apart from its columns: its episode, its reward, how it ended.

Legend: S steps, E episodes, B batch, T window, n steps of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..batch import Sample
from ..errors import DatasetError
from .log_arrays import LogArrays


class Pool(NamedTuple):
    """The rows that a request may draw: of each episode those up to `stop`, which is its last or the one before."""

    stop: np.ndarray  # (E,)
    whole: bool  # every step may be drawn


class StepIndex:
    """Rows of steps, episodes one after the other."""

    def __init__(self, parts: Sequence[LogArrays]):
        every = [(part, episode) for part in parts for episode in part.episodes]
        lengths = np.array([episode.steps for _, episode in every])
        self.last = np.cumsum(lengths) - 1  # (E,) row of each episode's last step
        self.first = self.last - lengths + 1
        number = np.uint16 if len(every) <= 1 << 16 else np.int32  # a step's own share of memory is this and its reward
        self.episode = np.repeat(np.arange(len(every), dtype=number), lengths)  # (S,)
        self.borders = np.cumsum([0] + [sum(e.steps for e in part.episodes) for part in parts])  # where each log begins
        self._paths = [part.log.path for part in parts]
        self._has_dones = "dones" in parts[0].episodes[0].columns
        self._lacking = {what: [part.log.path for part in parts if not getattr(part, what)]
                         for what in ("has_rewards", "knows_ends")}  # fmt: skip
        if not self._lacking["has_rewards"]:
            self.reward = np.empty(len(self), np.float32)
            for (part, episode), first, last in zip(every, self.first.tolist(), self.last.tolist(), strict=True):
                self.reward[first : last + 1] = part.rewards(episode)
        if not self._lacking["knows_ends"]:
            self.terminated, self.truncated = np.empty(len(self), bool), np.empty(len(self), bool)
            for (part, episode), first, last in zip(every, self.first.tolist(), self.last.tolist(), strict=True):
                self.terminated[first : last + 1], self.truncated[first : last + 1] = part.ends_of(episode)
        self._followed = np.repeat([p.has_successors for p in parts], [len(p.episodes) for p in parts])
        self._returns: dict[float, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.episode)

    # ---- which rows ----------------------------------------------------------------------------

    def pool(self, request: Sample) -> Pool:
        """The rows that can serve a request.

        Raises:
            DatasetError: the files lack what it asks for.
        """
        if request.mc_return or not request.imitation:
            self.require_rewards()
        stop = self.last
        if not request.imitation or request.mc_return or request.next_action:
            self.require_ends()
        if not request.imitation or request.next_action:
            goes_on = ~self.terminated[self.last]
            stop = self.last - (goes_on if request.next_action else goes_on & ~self._followed)
        for path, low, high in zip(self._paths, self.borders[:-1], self.borders[1:], strict=True):
            if not (stop >= self.first)[self.episode[low] : self.episode[high - 1] + 1].any():
                raise DatasetError(f"{path} holds no step with a successor: its episodes are of one step, "
                                   "and the observation after it is not in the file")  # fmt: skip
        return Pool(stop, bool((stop == self.last).all()))

    def require_rewards(self) -> None:
        if lacking := self._lacking["has_rewards"]:
            raise DatasetError(f"{lacking[0]} holds no rewards, so it can be imitated (poise fit bc) and "
                               "nothing else")  # fmt: skip

    def require_ends(self) -> None:
        if lacking := self._lacking["knows_ends"]:
            kind = "only dones" if self._has_dones else "neither terminations nor dones"
            raise DatasetError(
                f"{lacking[0]} holds {kind}, so it does not say whether an episode's end is the end of the task "
                "(its value is zero) or of the record (its value goes on). Say --ends terminated or --ends truncated; "
                "imitation (poise fit bc) needs neither"
            )

    # ---- what belongs to rows ------------------------------------------------------------------

    def window(
        self, rows: np.ndarray, first: np.ndarray, stop: np.ndarray, offsets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(steps, mask) (B, T) at `offsets` (T,) from rows (B,); outside first … stop the nearest, mask False."""
        wanted = rows[..., None] + offsets
        steps = np.minimum(wanted, stop[..., None])
        if offsets[0] < 0:
            np.maximum(steps, first[..., None], out=steps)
        return steps, steps == wanted

    def accumulate(
        self, rows: np.ndarray, stop: np.ndarray, n: int, discount: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row of the last reward, effective n, discounted rewards) (…) of rows (…) of up to n steps."""
        steps, within = self.window(rows, rows, stop, np.arange(n))  # (…, n)
        done = self.terminated.take(steps[..., :-1]) | self.truncated.take(steps[..., :-1])
        within[..., 1:] &= ~np.logical_or.accumulate(done, axis=-1)
        factor = (discount ** np.arange(n)).astype(np.float32)
        reward = (self.reward.take(steps) * factor * within).sum(-1, dtype=np.float32)
        count = within.sum(-1)
        return rows + count - 1, count, reward

    def returns(self, discount: float) -> np.ndarray:
        """(S,) float32 discounted rewards to the end of the episode or to where it terminates."""
        if discount not in self._returns:
            self._returns = {discount: self._to_go(discount)}
        return self._returns[discount]

    def _to_go(self, discount: float) -> np.ndarray:
        ends = self.terminated.copy()
        ends[self.last] = True
        result, total = np.empty(len(self), np.float32), 0.0
        rewards, stops = self.reward.tolist(), ends.tolist()
        for row in range(len(self) - 1, -1, -1):
            total = rewards[row] + (0.0 if stops[row] else discount * total)
            result[row] = total
        return result

    def origin(self, rows: np.ndarray) -> np.ndarray:
        """Which log each row is of."""
        return np.searchsorted(self.borders[1:], rows, side="right")
