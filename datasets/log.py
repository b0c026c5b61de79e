"""Log: demonstrations as every layout's reader gives them and every layout's writer takes them.

    Log                     one file or folder: what it says of itself, its episodes, its filters
    └── Episode             a name, attributes, and columns with one row a step
        └── Column          an array, or one still on disk: shape, dtype, and rows when asked for

Columns have our layout's names (episodes.py), whatever the file calls them:

    obs/<key>  next_obs/<key>  actions  rewards  terminations  truncations  dones  states  …  infos/<key>

What a file does not hold is absent, never filled in: a file without `next_obs` gives episodes whose last step has no
successor, one without `rewards` can be imitated and nothing else. `dones` is what a file says whose ends are of
unknown kind; where ends are told apart, `terminations` and `truncations` say so.

Legend: T steps of an episode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import DatasetError


class Column(Protocol):
    """One quantity of one episode: a numpy array, an HDF5 dataset, or `Rows` of a larger one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, …)"""
        ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


class Rows:
    """Rows start to stop of a column that holds more, read when asked for."""

    def __init__(self, column: Column, start: int, stop: int):
        self.column, self.start, self.stop = column, start, stop

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.stop - self.start, *self.column.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self.column.dtype

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        if isinstance(rows, slice) and rows.step in (None, 1):
            first, last, _ = rows.indices(self.stop - self.start)
            return self.column[self.start + first : self.start + max(first, last)]
        return self.column[self.start : self.stop][rows]


@dataclass(frozen=True)
class Episode:
    """One episode; its columns lead with (T,)."""

    name: str
    columns: Mapping[str, Column]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """T, by the actions; or by any column where a file holds none."""
        column = self.columns.get("actions", next(iter(self.columns.values()), None))
        return column.shape[0] if column is not None else 0

    def keys(self, group: str) -> list[str]:
        """The names under a group such as `obs`, in order of the file."""
        return [name.removeprefix(f"{group}/") for name in self.columns if name.startswith(f"{group}/")]


@dataclass(frozen=True)
class Log:
    """The episodes of one file or folder. Use as a context manager: columns may still be on disk."""

    path: Path
    layout: str  # the name it is registered under in open_log.py
    episodes: Sequence[Episode]
    attributes: Mapping[str, Any] = field(default_factory=dict)  # what the file says of itself, env_args and the like
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # filter -> names of episodes
    extras: Mapping[str, Any] = field(default_factory=dict)  # arrays of the file and of no episode, by path
    notes: tuple[str, ...] = ()  # what the reader had to decide, for a person to read
    release: Callable[[], None] = lambda: None

    @property
    def steps(self) -> int:
        return sum(episode.steps for episode in self.episodes)

    def __getitem__(self, name: str) -> Episode:
        for episode in self.episodes:
            if episode.name == name:
                return episode
        raise DatasetError(f"{self.path} has no episode {name!r}; it has {len(self.episodes)}, "
                           f"{', '.join(e.name for e in self.episodes[:3])} and on")  # fmt: skip

    def filtered(self, name: str) -> list[Episode]:
        """The episodes under one filter, in its order."""
        if name not in self.filters:
            raise DatasetError(f"{self.path} has no filter {name!r}; it has {', '.join(self.filters) or 'none'}")
        by_name = {episode.name: episode for episode in self.episodes}
        if missing := [n for n in self.filters[name] if n not in by_name]:
            raise DatasetError(f"{self.path}: filter {name!r} names {missing[0]!r}, which is no episode of it")
        return [by_name[n] for n in self.filters[name]]

    def close(self) -> None:
        self.release()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
