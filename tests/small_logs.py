"""Small logs in memory whose every number tells where it stands, for tests of datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from poise.datasets.log import Episode, Log


def episode(name: str, number: int, steps: int, *, end: str = "t", known: bool = True, without: Sequence[str] = (),
            **columns: np.ndarray) -> Episode:  # fmt: skip
    """Observation 100 number + t at step t, in obs/x (T, 2) with .5 beside it and obs/y (T,); reward t + 1.

    end: "t" terminated, "u" truncated. known: it has `next_obs`. columns: others, or in place of these.
    """
    t = np.arange(steps)
    x = np.stack([100.0 * number + np.arange(steps + 1), np.full(steps + 1, 0.5)], 1)
    last = t == steps - 1
    found = {
        "obs/x": x[:-1],
        "obs/y": -x[:-1, 0],
        "actions": np.stack([t / 100, -t / 100], 1),
        "rewards": t + 1.0,
        "terminations": last & (end == "t"),
        "truncations": last & (end == "u"),
    }
    if known:
        found |= {"next_obs/x": x[1:], "next_obs/y": -x[1:, 0]}
    return Episode(name, {k: v for k, v in (found | columns).items() if k not in without})


def log(*episodes: Episode, name: str = "some.hdf5", **attributes) -> Log:
    return Log(Path(name), "robomimic", list(episodes), attributes)
