"""Where the episodes of a flat D4RL file end.

    timeouts are there       terminals or timeouts
    next_observations are    terminals, and where next_observations[i] is not observations[i+1]
    neither                  terminals, and every `horizon` steps where a horizon is told

Files of the first kind are complete; the others were decided upon, and the notes say how. maze2d marks with terminals
(or timeouts) that a goal was reached and goes on from there: one trajectory that never ends.

Legend: N rows, O observation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..log import Column

BLOCK = 1 << 16  # rows compared at once


def episode_ends(arrays: Mapping[str, Column], horizon: int = 0) -> tuple[np.ndarray, list[str]]:
    """(E,) one past the last row of every episode, and what had to be decided."""
    marked = np.asarray(arrays["terminals"][:]).reshape(-1) != 0
    rows, notes = len(marked), []
    if "timeouts" in arrays:
        ends = marked | (np.asarray(arrays["timeouts"][:]).reshape(-1) != 0)
    elif "next_observations" in arrays:
        breaks = _breaks(arrays["observations"], arrays["next_observations"])
        ends = marked | breaks
        others = int((breaks & ~marked).sum())
        notes.append(f"no timeouts: episodes end at {int(marked.sum())} terminals and at {others} other rows whose "
                     "next_observations are not the row after")  # fmt: skip
    else:
        ends = marked.copy()
        told = (
            f"and after {horizon} steps, as told"
            if horizon
            else ("alone, so that time limits go unseen; say --layout 'd4rl?horizon=STEPS' where there was one")
        )
        notes.append(f"no timeouts and no next_observations: episodes end at {int(marked.sum())} terminals {told}")
        notes += _goes_on(arrays["observations"], marked)
    if horizon and "timeouts" not in arrays:
        ends |= _every(ends, horizon)
    if rows and not ends[-1]:
        notes.append("the last row is marked as no end: the last episode counts as cut off there")
    if rows and not ends[:-1].any():
        notes.append(f"one trajectory of {rows} steps")
    stops = np.flatnonzero(ends) + 1
    return (stops if rows == 0 or ends[-1] else np.append(stops, rows)), notes


def _breaks(observations: Column, following: Column) -> np.ndarray:
    """(N,) whether the observation after a row is not the next row's."""
    rows = observations.shape[0]
    found = np.zeros(rows, bool)
    for start in range(0, rows - 1, BLOCK):
        stop = min(start + BLOCK, rows - 1)
        after, row = np.asarray(following[start:stop]), np.asarray(observations[start + 1 : stop + 1])
        differs = (after != row) & ~((after != after) & (row != row))  # NaN is NaN
        found[start:stop] = differs.reshape(stop - start, -1).any(1)
    return found


def _every(ends: np.ndarray, horizon: int) -> np.ndarray:
    """(N,) the last of every `horizon` steps since an episode began."""
    rows = np.arange(len(ends))
    began = np.maximum.accumulate(np.where(np.append(True, ends[:-1]), rows, 0)) if len(ends) else rows
    return (rows - began + 1) % horizon == 0


def _goes_on(observations: Column, marked: np.ndarray) -> list[str]:
    """A note where the rows after the terminals are no further off than the rows after others."""
    inner, after = [], []
    for start in range(0, len(marked) - 1, BLOCK):
        stop = min(start + BLOCK, len(marked) - 1)
        rows = np.asarray(observations[start : stop + 1], np.float64).reshape(stop + 1 - start, -1)
        moved = np.abs(np.diff(rows, axis=0)).max(1, initial=0.0)
        inner.append(moved[~marked[start:stop]])
        after.append(moved[marked[start:stop]])
    if not after or not (jumps := np.concatenate(after)).size or not (steps := np.concatenate(inner)).size:
        return []
    near = int((jumps <= np.max(steps)).sum())
    if 2 * near < jumps.size:
        return []
    return [f"after {near} of {jumps.size} terminals the next row is within an ordinary step: the trajectory may go on "
            "through them, as maze2d's does, whose marks say that a goal was reached"]  # fmt: skip
