"""Splitting a log's episodes into those to learn from and those held out, by what they are, or picking the best.

The two never share an episode, and neither is ever empty: a split that cannot be made is refused. What comes of it are
filters, `train` and `valid` unless told, in the file itself where its layout has them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import DatasetError, UsageError
from .convert import new_path
from .file_lock import FileLock
from .log import Episode, Log
from .open_log import open_log

MOST = 100  # filters that one attribute may make
Filters = dict[str, tuple[str, ...]]


def split(log: Log, valid: float, seed: int = 0, of: str = "", names: tuple[str, str] = ("train", "valid")) -> Filters:
    """Two filters: a share `valid` of the episodes, drawn under `seed`, and the rest.

    of: draw from this filter's episodes alone; the filters are then called <of>_train and <of>_valid.

    Raises:
        UsageError: the share is not between 0 and 1.
        DatasetError: there are not two episodes to split.
    """
    if not 0.0 < valid < 1.0:
        raise UsageError(f"a share of held-out episodes lies between 0 and 1, not at {valid:g}")
    episodes = [e.name for e in (log.filtered(of) if of else log.episodes)]
    if len(episodes) < 2:
        raise DatasetError(f"{log.path} has {len(episodes)} episode{'s' * (len(episodes) != 1)} to split; it takes two")
    held = min(max(1, round(valid * len(episodes))), len(episodes) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(episodes))[:held].tolist())
    first, second = (f"{of}_{name}" if of else name for name in names)
    return {first: tuple(n for i, n in enumerate(episodes) if i not in chosen),
            second: tuple(n for i, n in enumerate(episodes) if i in chosen)}  # fmt: skip


def best(log: Log, share: float, of: str = "", name: str = "") -> Filters:
    """One filter: the share of episodes with the highest return, at least one, best first."""
    if not 0.0 < share <= 1.0:
        raise UsageError(f"a share of the best episodes lies above 0 and is at most 1, not {share:g}")
    episodes = log.filtered(of) if of else list(log.episodes)
    order = np.argsort(-returns_of(log, episodes), kind="stable")[: max(1, round(share * len(episodes)))]
    return {name or f"top_{100 * share:g}": tuple(episodes[i].name for i in order)}


def returns_of(log: Log, episodes: Sequence[Episode]) -> np.ndarray:
    """(E,) sums of rewards."""
    if without := [e.name for e in episodes if "rewards" not in e.columns]:
        raise DatasetError(f"{log.path}: {without[0]} has no rewards, so there is no best")
    return np.array([np.sum(e.columns["rewards"][:], dtype=np.float64) for e in episodes])


def grouped(log: Log, by: str, of: str = "", parts: int = 3) -> Filters:
    """Filters that divide the episodes, every one of them in one.

    by: `return` or `length`: so many parts of about equal size, <by>_1 the lowest; `success`: success and failure, by
        the episodes' attribute; the name of any other attribute: one filter a value, <by>_<value>.

    Raises:
        DatasetError: an episode has no rewards, or no such attribute; or there is nothing to tell episodes apart by.
        UsageError: fewer than two parts.
    """
    episodes = log.filtered(of) if of else list(log.episodes)
    prefix = f"{of}_" if of else ""
    if by in ("return", "length"):
        if parts < 2:
            raise UsageError(f"episodes are divided into 2 parts or more, not {parts}")
        if len(episodes) < parts:
            raise DatasetError(f"{log.path} has {len(episodes)} episodes, too few for {parts} parts")
        values = returns_of(log, episodes) if by == "return" else np.array([e.steps for e in episodes])
        order = np.array_split(np.argsort(values, kind="stable"), parts)
        return {f"{prefix}{by}_{i}": tuple(episodes[j].name for j in sorted(part)) for i, part in enumerate(order, 1)}
    if without := [e for e in episodes if by not in e.attributes]:
        raise DatasetError(f"{log.path}: {without[0].name} has no attribute {by!r}; it has "
                           f"{', '.join(without[0].attributes) or 'none'}")  # fmt: skip
    members: Filters = {}
    for episode in episodes:
        name = prefix + _value_name(by, episode.attributes[by])
        members[name] = (*members.get(name, ()), episode.name)
    if not 2 <= len(members) <= MOST:
        raise DatasetError(f"{log.path}: {by} has {len(members)} value{'s' * (len(members) != 1)} over "
                           f"{len(episodes)} episodes, which divides them into no groups")  # fmt: skip
    return members


def _value_name(by: str, value: Any) -> str:
    """The filter of a value: letters, digits, points and dashes, so that FILE:FILTER can name it."""
    if by == "success":
        return "success" if bool(np.all(value)) else "failure"
    return f"{by}_" + re.sub(r"[^\w.-]+", "-", str(value.item() if isinstance(value, np.generic) else value))


def write_filters(path: str | os.PathLike[str], filters: Mapping[str, Sequence[str]], out: str = "") -> Path:
    """Add filters to a file of robomimic's layout, or to a copy of it named `out`; the new file is renamed last.

    Raises:
        DatasetError: another layout, a filter that is there already, no space, or another process writes the file.
    """
    source = Path(path)
    with open_log(source) as log:
        if log.layout != "robomimic":
            raise DatasetError(f"{source} is of layout {log.layout}, which has no filters: first "
                               f"poise data convert {source} OUT.hdf5 --to robomimic")  # fmt: skip
        if there := [name for name in filters if name in log.filters]:
            raise DatasetError(f"{source} has a filter {there[0]!r} already; give the new ones another name")
    if out:
        return _copy_with(source, filters, Path(out))
    with FileLock(source):
        target = source.with_name(f".{source.name}.split")
        target.unlink(missing_ok=True)
        os.replace(_copy_with(source, filters, target), source)
    return source


def _copy_with(source: Path, filters: Mapping[str, Sequence[str]], target: Path) -> Path:
    """A copy of the file with more filters."""
    with new_path(target) as hidden:
        shutil.copyfile(source, hidden)
        with h5py.File(hidden, "r+") as h5:
            mask: Any = h5.require_group("mask")
            for name, members in filters.items():
                mask[name] = np.array([m.encode() for m in members])
    return target
