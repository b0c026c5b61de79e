"""The spaces of Minari's metadata, which are JSON: what their parts are called, and the JSON of what a log holds.

    {"type": "Box", "dtype", "shape", "low", "high"}   Discrete {n, start}   MultiDiscrete {nvec, start}
    MultiBinary {n}   Text {min_length, max_length, charset}   Dict {"subspaces": {…}}   Tuple {"subspaces": […]}

-Infinity stands in them, which strict JSON has no word for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ...errors import DatasetError

Space = Mapping[str, Any]
LEAVES = ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Text")


def parse(text: Any, where: str) -> Space:
    """The space of a metadata entry.

    Raises:
        DatasetError: it is no space that Minari 0.5 knows.
    """
    try:
        space = json.loads(text)
        for _, leaf in leaves(space):
            if leaf["type"] in ("Box", "MultiBinary"):
                shape_of(leaf)
        return space
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{where} is no space that Minari 0.5 writes: {error}") from None


def leaves(space: Space, name: str = "") -> Iterator[tuple[str, Space]]:
    """(name, space) of everything that is no Dict and no Tuple: names a/b, of tuples _index_0; "" of a space alone."""
    kind = space["type"]
    if kind in LEAVES:
        yield name, space
        return
    if kind not in ("Dict", "Tuple"):
        raise ValueError(f"its type is {kind!r}")
    parts = space["subspaces"]
    named = parts.items() if kind == "Dict" else ((f"_index_{i}", part) for i, part in enumerate(parts))
    for key, part in named:
        yield from leaves(part, f"{name}/{key}" if name else key)


def shape_of(leaf: Space) -> tuple[int, ...]:
    """Shape of one row."""
    if leaf["type"] == "MultiBinary":
        n = leaf["n"]
        return tuple(int(x) for x in n) if isinstance(n, list) else (int(n),)
    if leaf["type"] == "MultiDiscrete":
        return np.asarray(leaf["nvec"]).shape
    return tuple(int(x) for x in leaf.get("shape", ()))


def is_jpeg(leaf: Space) -> bool:
    """Whether Minari codes such a space as JPEG: uint8 of 0 to 255, at least 32 by 32."""
    shape = shape_of(leaf) if leaf["type"] == "Box" else ()
    return (
        len(shape) in (2, 3)
        and min(shape[:2]) >= 32
        and leaf["dtype"] == "uint8"
        and bool(np.all(np.asarray(leaf["low"]) == 0))
        and bool(np.all(np.asarray(leaf["high"]) == 255))
    )


def box(shape: tuple[int, ...], dtype: np.dtype, low: Any = None, high: Any = None) -> Space:
    """The widest Box of a shape and type, or the one between bounds."""
    if low is None or high is None:
        if dtype.kind == "f":
            low, high = -np.inf, np.inf
        elif dtype.kind == "b":
            low, high = False, True
        else:
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    ends = {
        name: np.broadcast_to(np.asarray(end, dtype), shape).tolist() for name, end in (("low", low), ("high", high))
    }
    return {"type": "Box", "dtype": str(dtype), "shape": list(shape), **ends}


def text(longest: int, characters: str) -> Space:
    return {"type": "Text", "max_length": max(1, longest), "min_length": 0, "charset": characters}


def nested(parts: Mapping[str, Space]) -> Space:
    """The Dict of leaves with names a/b."""
    tree: dict[str, Any] = {}
    for name, leaf in parts.items():
        *groups, last = name.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {"type": "Dict", "subspaces": {}})["subspaces"]
        place[last] = leaf
    return {"type": "Dict", "subspaces": tree}
