"""Arrays of N worlds with the rows of some of them replaced, as new arrays: whoever holds the old ones keeps them.

Legend: N worlds, n of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def replaced(values: np.ndarray, rows: np.ndarray, new: Any) -> np.ndarray:
    """values (N, ...) with rows (n,) replaced by new (n, ...)."""
    result = values.copy()
    result[rows] = new
    return result


def scattered(whole: dict[str, np.ndarray], worlds: np.ndarray, part: Mapping[str, Any], num_envs: int) -> dict:
    """The same for a dict of arrays; where all worlds are replaced, `whole` may lack what is new."""
    if len(worlds) == num_envs:
        return {name: np.array(values) for name, values in part.items()}
    return {name: replaced(whole[name], worlds, values) for name, values in part.items()}
