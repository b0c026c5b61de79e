"""Views of columns that a layout keeps in another shape: several in one, one in several, arrays one after the other.

All read from the file only the rows that are asked for.

Legend: N rows, T steps, D numbers a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..log import Column, Episode


class Part:
    """Numbers start to stop of each row of a column (N, D), as (N, *shape) of `dtype`; of a column (N,) with D = 1."""

    def __init__(self, column: Column, start: int, shape: tuple[int, ...], dtype: np.dtype):
        self._column, self._start, self._shape, self.dtype = column, start, shape, dtype
        self._stop = start + int(np.prod(shape))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._column.shape[0], *self._shape)

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        found = np.asarray(self._column[rows])
        lead = found.shape[: found.ndim - len(self._column.shape) + 1]  # () for one row
        row = found.reshape(*lead, int(np.prod(self._column.shape[1:])))
        return row[..., self._start : self._stop].reshape(*lead, *self._shape).astype(self.dtype, copy=False)


class SideBySide:
    """Columns of one number of rows as one of (N, D), the numbers of each row one after the other."""

    def __init__(self, columns: Sequence[Column]):
        self._columns = columns
        self._widths = [int(np.prod(column.shape[1:])) for column in columns]
        self.dtype = np.result_type(*(column.dtype for column in columns))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._columns[0].shape[0], sum(self._widths))

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        parts = []
        for column, width in zip(self._columns, self._widths, strict=True):
            found = np.asarray(column[rows])
            parts.append(found.reshape(*found.shape[: found.ndim - len(column.shape) + 1], width).astype(self.dtype))
        return np.concatenate(parts, axis=-1)


class Joined:
    """Columns of one type and row shape, one after the other."""

    def __init__(self, columns: Sequence[Column]):
        self._columns = columns
        self._ends = np.cumsum([column.shape[0] for column in columns])

    @property
    def shape(self) -> tuple[int, ...]:
        return (int(self._ends[-1]), *self._columns[0].shape[1:])

    @property
    def dtype(self) -> np.dtype:
        return self._columns[0].dtype

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            return self[:][rows]
        start, stop, _ = rows.indices(self.shape[0])
        parts = []
        for column, end in zip(self._columns, self._ends.tolist(), strict=True):
            first = end - column.shape[0]
            if (low := max(start, first)) < (high := min(stop, end)):
                parts.append(np.asarray(column[low - first : high - first]))
        return np.concatenate(parts) if parts else np.empty((0, *self.shape[1:]), self.dtype)


class Decoded:
    """A column (T, *shape) whose rows a function makes, such as the pictures of a film."""

    def __init__(self, decode: Callable[[int, int], np.ndarray], shape: tuple[int, ...], dtype: np.dtype):
        self._decode, self.shape, self.dtype = decode, shape, dtype

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(self.shape[0])
            return self._decode(start, max(start, stop))
        if isinstance(rows, int | np.integer):
            row = range(self.shape[0])[rows]
            return self._decode(row, row + 1)[0]
        return self._decode(0, self.shape[0])[rows]


def alike(episodes: Sequence[Episode]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Column -> (shape of a row, type), of those that every episode has alike, a row a step."""
    first = episodes[0].columns if episodes else {}
    return {
        name: (tuple(column.shape[1:]), column.dtype)
        for name, column in first.items()
        if all(
            name in e.columns
            and e.columns[name].dtype == column.dtype
            and tuple(e.columns[name].shape) == (e.steps, *column.shape[1:])
            for e in episodes
        )
    }
