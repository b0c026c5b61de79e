"""Parquet and arrow files: pyarrow where it is installed, and one line on how to get it where it is not.

A column of a file is read by its row groups, of which LeRobot writes one an episode, so that an episode of a long file
costs what it holds.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DatasetError


def needs_pyarrow(what: str) -> Any:
    """The module pyarrow.

    Raises:
        DatasetError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise DatasetError(f"{what}, which needs pyarrow: pip install 'poise[lerobot]'") from None


class Table:
    """One parquet file, opened anew for every read."""

    def __init__(self, file: Path):
        self.file = file
        self._metadata = self._opened(None).metadata
        groups = [self._metadata.row_group(i).num_rows for i in range(self._metadata.num_row_groups)]
        self._ends = np.cumsum(groups) if groups else np.zeros(0, int)
        self.rows = int(self._ends[-1]) if groups else 0
        self.names = list(self._metadata.schema.to_arrow_schema().names)

    def column(self, name: str, start: int = 0, stop: int | None = None) -> Any:
        """Rows of one column, as an arrow array."""
        stop = self.rows if stop is None else stop
        groups = np.flatnonzero((self._ends > start) & (np.append(0, self._ends[:-1]) < stop)).tolist()
        pyarrow = needs_pyarrow(str(self.file))
        try:
            array = self._opened(self._metadata).read_row_groups(groups, columns=[name]).column(name).combine_chunks()
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            raise DatasetError(f"{self.file}: {name} cannot be read: {error}") from None
        first = int(self._ends[groups[0]] - self._metadata.row_group(groups[0]).num_rows) if groups else start
        return array.slice(start - first, stop - start)

    def _opened(self, metadata: Any) -> Any:
        pyarrow = needs_pyarrow(f"{self.file} is parquet")
        import pyarrow.parquet as parquet

        try:
            with open(self.file, "rb") as file:
                if file.read(20).startswith(b"version https://git-"):
                    raise DatasetError(f"{self.file} is a pointer of Git LFS and not the data: run git lfs pull there")
            return parquet.ParquetFile(self.file, metadata=metadata)
        except pyarrow.ArrowInvalid as error:
            raise DatasetError(f"{self.file} is no whole parquet file, perhaps of a recording that was never finished "
                               f"(LeRobot's finalize()): {error}") from None  # fmt: skip
        except (pyarrow.ArrowException, OSError) as error:
            raise DatasetError(f"{self.file} cannot be read: {error}") from None


def read_table(file: Path, wanted: Callable[[str], bool]) -> Any:
    """The columns of a small file whose names are wanted, as one arrow table."""
    table = Table(file)
    pyarrow = needs_pyarrow(f"{file} is parquet")
    names = [name for name in table.names if wanted(name)]
    return pyarrow.table({name: table.column(name) for name in names})


def numbers(array: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """(rows, *shape) of an arrow array of numbers or of lists of them.

    Raises:
        DatasetError: some are missing, or the rows are of another size.
    """
    rows = len(array)
    if array.null_count:
        raise DatasetError(f"{where} has {array.null_count} missing values")
    nested = array
    while hasattr(nested, "flatten") and str(nested.type).startswith(("list", "fixed_size_list", "large_list")):
        nested = nested.flatten()
    if getattr(nested, "null_count", 0):
        raise DatasetError(f"{where} has {nested.null_count} missing values")
    found = nested.to_numpy(zero_copy_only=False)
    if found.size != rows * int(np.prod(shape)):
        raise DatasetError(f"{where} has {found.size} numbers in {rows} rows, expected rows of {shape}")
    return found.reshape(rows, *shape)
