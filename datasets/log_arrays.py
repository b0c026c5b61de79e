"""Columns of one log as the arrays that a dataset keeps: flat groups side by side, actions in [-1, 1], known ends.

What cannot be kept is refused here and never mended: columns of unequal length, numbers that are not finite, actions
beyond [-1, 1] where nothing says what they range over.

Legend: T steps of an episode, A action.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import DatasetError, UsageError
from ..spec import Spec
from .log import Column, Episode, Log
from .log_spec import action_bounds

ROUNDING = 1e-6  # an action may be beyond 1 by so much
ACTIONS = ("checked", "clip", "scale")
ENDS = ("", "terminated", "truncated")


@dataclass(frozen=True)
class ActionScale:
    """From a file's actions to [-1, 1]: bounds (A,) of its own units, and whether what is beyond is clipped."""

    low: np.ndarray | None = None
    high: np.ndarray | None = None
    clip: bool = False
    discrete: bool = False

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Actions (..., A) float32, or int64 for choices."""
        if self.discrete:
            return np.asarray(raw, np.int64)
        scaled = np.asarray(raw, np.float64)
        if self.low is not None and self.high is not None:
            scaled = (scaled - self.low) / (self.high - self.low) * 2.0 - 1.0
            near = np.abs(scaled) <= 1.0 + ROUNDING  # a bound itself, which rounding may have moved
            scaled = np.where(near, np.clip(scaled, -1.0, 1.0), scaled)
        return (np.clip(scaled, -1.0, 1.0) if self.clip else scaled).astype(np.float32)


@dataclass(frozen=True)
class LogArrays:
    """What one log contributes: its episodes with at least one step, its mapping and how its actions are scaled."""

    log: Log
    episodes: Sequence[Episode]
    keys: Mapping[str, Sequence[str]]  # group -> keys
    spec: Spec
    scale: ActionScale
    ends: str  # what `dones` of unknown kind are: "" | terminated | truncated
    label: str = "actions"  # the column that is the action

    def columns(self, episode: Episode, prefix: str, group: str) -> list[np.ndarray]:
        """The columns of a group, each (T, …), as the file has them."""
        return [self.column(episode, f"{prefix}/{key}") for key in self.keys[group]]

    def column(self, episode: Episode, name: str) -> np.ndarray:
        if name not in episode.columns:
            raise DatasetError(f"{self.log.path}, {episode.name}: {name} is missing; it has "
                               f"{', '.join(episode.columns)}")  # fmt: skip
        array = np.asarray(episode.columns[name][:])
        if len(array) != episode.steps:
            raise DatasetError(f"{self.log.path}, {episode.name}: {name} has {len(array)} rows where actions have "
                               f"{episode.steps}")  # fmt: skip
        return array

    def group(self, episode: Episode, prefix: str, group: str) -> np.ndarray:
        """(T, dim) float32 of a flat group, (T, height, width, channels) uint8 of a camera."""
        columns = self.columns(episode, prefix, group)
        shape = self.spec.obs_shape(group)
        if self.spec.is_image(group):
            if columns[0].shape[1:] != shape or columns[0].dtype != np.uint8:
                raise DatasetError(f"{self.log.path}, {episode.name}: {prefix}/{group} should be uint8 of shape "
                                   f"{shape}, found {columns[0].dtype} {columns[0].shape[1:]}")  # fmt: skip
            return columns[0]
        return flat(columns, shape[0], f"{self.log.path}, {episode.name}: {prefix}/{group}")

    def actions(self, episode: Episode) -> np.ndarray:
        """(T, A)"""
        return self.scale(self.column(episode, self.label).reshape(episode.steps, -1))

    def rewards(self, episode: Episode) -> np.ndarray:
        """(T,) float32"""
        column = self.column(episode, "rewards").reshape(episode.steps)
        return finite(column.astype(np.float32), f"{self.log.path}, {episode.name}: rewards")

    @property
    def has_rewards(self) -> bool:
        return all("rewards" in e.columns for e in self.episodes)

    @property
    def has_successors(self) -> bool:
        """Whether every group has its own `next_obs`."""
        names = [f"next_obs/{key}" for keys in self.keys.values() for key in keys]
        return all(name in e.columns for e in self.episodes for name in names)

    @property
    def knows_ends(self) -> bool:
        """Whether terminated and truncated are told apart, by the file or by the user."""
        return bool(self.ends) or all("terminations" in e.columns for e in self.episodes)

    def ends_of(self, episode: Episode) -> tuple[np.ndarray, np.ndarray]:
        """terminated, truncated (T,) bool; an episode that does not terminate is truncated where its record ends."""
        terminated = np.zeros(episode.steps, bool)
        truncated = np.zeros(episode.steps, bool)
        if "terminations" in episode.columns:
            terminated |= self.column(episode, "terminations").reshape(-1).astype(bool)
            if "truncations" in episode.columns:
                truncated |= self.column(episode, "truncations").reshape(-1).astype(bool)
        elif self.ends == "terminated":
            if "dones" in episode.columns:
                terminated |= self.column(episode, "dones").reshape(-1).astype(bool)
            else:
                terminated[-1] = True
        truncated[-1] |= not terminated[-1]
        return terminated, truncated


def flat(columns: Sequence[np.ndarray], dim: int, what: str) -> np.ndarray:
    """Columns (T, …) of numbers side by side: (T, dim) float32, every one of them finite."""
    parts = [np.asarray(c, np.float32).reshape(len(c), -1) for c in columns]
    array = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    if array.shape[1] != dim:
        raise DatasetError(f"{what} has {array.shape[1]} numbers a step, expected {dim} as in the first episode")
    return finite(array, what)


def finite(array: np.ndarray, what: str, first: int = 0) -> np.ndarray:
    """The same array, whose rows are steps from `first` on.

    Raises:
        DatasetError: a number is NaN or infinite.
    """
    if not np.isfinite(array).all():
        where = tuple(np.argwhere(~np.isfinite(array))[0])
        raise DatasetError(f"{what} holds {array[where]} at step {first + int(where[0])}; "
                           f"see poise data check, and leave such episodes out with a filter")  # fmt: skip
    return array


def action_scales(
    logs: Sequence[tuple[Log, Sequence[Episode]]], spec: Spec, actions: str, task: bool, label: str = "actions"
) -> tuple[list[ActionScale], Spec, list[str]]:
    """How the actions of each log become [-1, 1], the Spec that says so, and what a person should know of it.

    task: whether the Spec is a task's, whose bounds then count rather than the range of the data.

    Raises:
        UsageError: `actions` is no such way.
        DatasetError: actions are beyond [-1, 1], and nothing says what they range over.
    """
    if actions not in ACTIONS:
        raise UsageError(f"actions can be {', '.join(ACTIONS)}, not {actions!r}")
    columns = [_labels(log, episodes, label) for log, episodes in logs]
    if spec.discrete:
        for found in columns:
            _check_choices(found, spec.choices)
        return [ActionScale(discrete=True)] * len(logs), spec, []
    if actions == "scale" and not (task and spec.actions[0].kind == "control"):
        spec = _scaled_by_data(columns, spec)
    scales, notes = [], []
    for (log, _), found in zip(logs, columns, strict=True):
        bounds = action_bounds(log)
        if actions == "scale":
            low, high = ([x for t in spec.actions for x in getattr(t, end)] for end in ("low", "high"))
            bounds = np.asarray(low), np.asarray(high)
        scale = ActionScale(*(bounds or (None, None)))
        beyond, total, worst = _beyond(found, scale)
        if beyond and actions != "clip":
            raise DatasetError(
                f"{log.path}: {beyond} of {total} action values are beyond "
                f"{'what the actions are said to range over' if bounds else '[-1, 1]'}, the furthest {worst:g}. "
                f"--actions clip clips them, as simulators do; --actions scale scales by the range of the data"
            )
        if beyond:
            notes.append(f"{log.path}: {beyond} of {total} action values were beyond [-1, 1], the furthest {worst:g}, "
                         f"and are clipped")  # fmt: skip
        scales.append(replace(scale, clip=beyond > 0))
    return scales, spec, notes


def _labels(log: Log, episodes: Sequence[Episode], label: str) -> list[tuple[str, Column]]:
    """(where, column) of the actions of every episode."""
    if lacking := [e for e in episodes if label not in e.columns]:
        raise DatasetError(f"{log.path}, {lacking[0].name}: {label} is missing; it has {', '.join(lacking[0].columns)}")
    return [(f"{log.path}, {e.name}: {label}", e.columns[label]) for e in episodes]


def _scaled_by_data(logs: Sequence[Sequence[tuple[str, Column]]], spec: Spec) -> Spec:
    """The Spec with the range of the data as bounds of its one action term; what is constant keeps a width of 2."""
    if len(spec.actions) != 1:
        raise UsageError(f"the range of the data gives bounds of one action term; this Spec has "
                         f"{', '.join(t.name for t in spec.actions)}")  # fmt: skip
    ends = []
    for where, column in (labelled for columns in logs for labelled in columns):
        values = finite(np.asarray(column[:], np.float64).reshape(column.shape[0], -1), where)
        ends.append((values.min(0), values.max(0)))
    low, high = np.array(ends).swapaxes(0, 1)
    low, high = low.min(0), high.max(0)
    still = high - low < 1e-9
    low, high = np.where(still, low - 1.0, low), np.where(still, high + 1.0, high)
    term = replace(spec.actions[0], low=tuple(low.tolist()), high=tuple(high.tolist()))
    return replace(spec, actions=(term,))


def _beyond(columns: Sequence[tuple[str, Column]], scale: ActionScale) -> tuple[int, int, float]:
    """(values beyond [-1, 1], values, the furthest of them)."""
    beyond, total, worst = 0, 0, 0.0
    for where, column in columns:
        values = scale(finite(np.asarray(column[:]).reshape(column.shape[0], -1), where))
        size = np.abs(values)
        beyond += int(np.count_nonzero(size > 1.0 + ROUNDING))
        total += values.size
        if size.size and size.max() > abs(worst):
            worst = float(values.reshape(-1)[size.argmax()])
    return beyond, total, worst


def _check_choices(columns: Sequence[tuple[str, Column]], n: int) -> None:
    for where, column in columns:
        chosen = np.asarray(column[:])
        if not np.array_equal(chosen, chosen.astype(np.int64)) or chosen.min() < 0 or chosen.max() >= n:
            raise DatasetError(f"{where} should be whole numbers from 0 to {n - 1}, found {chosen.min()} to "
                               f"{chosen.max()}")  # fmt: skip
