"""Minari's episodes in arrow or parquet: data/<i>/part-0.<format>, read into memory.

    observations (T + 1,)   a fixed-size list of a Box's numbers, a struct of a Dict's or Tuple's parts, JPEG bytes
    actions  rewards  terminations  truncations (T + 1,)   padded by one row, which is cut off
    infos    a struct

Needs pyarrow, which `pip install 'poise[lerobot]'` brings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DatasetError
from ..log import Column
from .minari_spaces import Space, leaves, shape_of
from .tables import needs_pyarrow

CUT = ("actions", "rewards", "terminations", "truncations")


def stored_episodes(folder: Path, kind: str, spaces: Mapping[str, Space | None]) -> list[Any]:
    """(number, arrays by path as in the HDF5 file, attributes) of every episode.

    Raises:
        DatasetError: pyarrow is not installed, or a file is damaged or of another form.
    """
    pyarrow = needs_pyarrow(f"{folder} keeps its episodes as {kind}")
    import pyarrow.dataset as ds

    numbers = sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and not p.is_symlink() and p.name.isdecimal())
    found = []
    for number in numbers:
        place = folder / str(number)
        files = sorted(str(p) for p in place.glob(f"*.{kind}") if not p.is_symlink())
        try:
            table = ds.dataset(files, format=kind).to_table() if files else None
            if table is None:
                raise ValueError(f"no .{kind} in it")
            said = json.loads((place / "metadata.json").read_text()) if (place / "metadata.json").is_file() else {}
            arrays = _arrays(table, spaces, int(said.get("total_steps", len(table) - 1)))
        except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DatasetError(f"{place} is damaged: {error}") from None
        found.append((number, arrays, {key: value for key, value in said.items() if value is not None}))
    return found


def _arrays(table: Any, spaces: Mapping[str, Space | None], steps: int) -> dict[str, Column]:
    columns = {name: table.column(name).combine_chunks() for name in table.column_names if name != "episode_id"}
    found: dict[str, Column] = {}
    for name, column in columns.items():
        space = spaces.get(name)
        if space is not None:
            for key, leaf in leaves(space):
                part = column
                for step in key.split("/") if key else []:
                    part = part.field(step.removeprefix("_index_"))
                found[f"{name}/{key}" if key else name] = _numbers(part, shape_of(leaf), leaf["type"] == "Text")
        else:
            found |= _of_struct(column, name)
    return {name: a[:steps] if name.split("/")[0] in CUT else a for name, a in found.items()}


def _numbers(column: Any, shape: tuple[int, ...], text: bool = False) -> Any:
    """(rows, *shape) of a column of lists or numbers; texts and JPEG bytes as objects."""
    if hasattr(column, "flatten") and hasattr(column.type, "list_size"):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), *shape)
    if text or str(column.type) in ("binary", "large_binary", "string", "large_string"):
        array = np.empty(len(column), object)
        array[:] = [np.frombuffer(v, np.uint8) if isinstance(v, bytes) else v or "" for v in column.to_pylist()]
        return array
    return column.to_numpy(zero_copy_only=False)


def _of_struct(column: Any, name: str) -> dict[str, Any]:
    """Arrays of a struct by path; shapes stand in the fields' metadata."""
    if not str(column.type).startswith("struct"):
        size = getattr(column.type, "list_size", None)
        return {name: _numbers(column, () if size is None else (size,))}
    found: dict[str, Any] = {}
    for i, field in enumerate(column.type):
        shape = (field.metadata or {}).get(b"shape")
        part, place = column.field(i), f"{name}/{field.name}"
        if shape is None:
            found |= _of_struct(part, place)
        else:
            found[place] = _numbers(part, tuple(int(n) for n in shape.split(b",") if n))
    return found
