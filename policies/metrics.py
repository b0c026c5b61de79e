"""What runs count: means of a learner's metrics, when the next look is due, and what is not a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class MetricMeans:
    """Means of a learner's metrics; they stay on the device until asked for, then come in one transfer."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        if self._count == 0:
            self._sums = {k: v.detach().double() for k, v in metrics.items()}
        else:  # one call for all, since this runs with every update
            sums = [self._sums[name] for name in metrics]
            torch._foreach_add_(sums, list(metrics.values()))  # pyright: ignore[reportPrivateImportUsage]
        self._count += 1

    def means(self) -> dict[str, float]:
        if self._count == 0:
            return {}
        values = (torch.stack(list(self._sums.values())) / self._count).tolist()
        return dict(zip(self._sums, values, strict=True))

    def clear(self) -> None:
        self._count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums, self._count = state["sums"], state["count"]


OF_EPISODES, EPISODES = ("train/return", "train/length", "train/success"), "train/episodes"


def together(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """The metrics of processes that train together as those of the run.

    What is of episodes is weighted by their number, what else is of worlds (train/) counts, the rest is a mean.
    """
    if len(parts) == 1:
        return parts[0]
    result = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = np.array([part[name] for part in parts if name in part])
        if name in OF_EPISODES:
            weight = np.array([part[EPISODES] for part in parts if name in part])
            result[name] = float((weight * values).sum() / weight.sum())
        else:
            result[name] = float(values.sum() if name.startswith("train/") else values.mean())
    return result


def next_multiple(steps: int, total: int, parts: int) -> float:
    """The first of the `parts` equal marks on the way to `total` that lies beyond `steps`."""
    if parts == 0:
        return math.inf
    return (math.floor(steps * parts / total) + 1) * total / parts


def not_finite(state: Any, path: str = "") -> str:
    """The path of the first number, array or tensor in nested dicts and lists that is not finite; "" for none."""
    if isinstance(state, Mapping):
        parts = state.items()
    elif isinstance(state, list | tuple):
        parts = enumerate(state)
    elif isinstance(state, Tensor):
        return path if state.is_floating_point() and not bool(torch.isfinite(state).all()) else ""
    elif isinstance(state, np.ndarray):
        return path if state.dtype.kind == "f" and not np.isfinite(state).all() else ""
    else:
        return path if isinstance(state, float) and not math.isfinite(state) else ""
    return next((bad for key, part in parts if (bad := not_finite(part, f"{path}/{key}" if path else str(key)))), "")
