"""Rules about numbers: missing, impossible, constant, out of range.

Legend: S steps of a block, D numbers a row.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from ..check import ERROR, WARNING, Block, Found, rule
from .files import held_out

CLIPPED = 0.3  # share of steps at a bound from which on actions count as clipped
STILL = 20  # steps without a change in any observation, while actions change
FAR = 1e3  # times the spread of the middle half
HUGE = 1e6


def first_rows(block: Block, bad: Any) -> list[tuple[str, int, int]]:
    """(episode, step, rows) of each episode where `bad` (S,) holds, with its first step and how many."""
    rows = np.flatnonzero(bad)
    if len(rows) == 0:
        return []
    owner = np.searchsorted(block.first, rows, "right") - 1
    which, start, count = np.unique(owner, return_index=True, return_counts=True)
    found = zip(which.tolist(), start.tolist(), count.tolist(), strict=True)
    return [(block.episodes[i].name, int(rows[s] - block.first[i]), n) for i, s, n in found]


def _suspect(column: np.ndarray) -> bool:
    """Whether a column of floats holds anything that is not finite: one pass over memory."""
    return column.dtype.kind == "f" and not np.isfinite(np.sum(column, dtype=np.float64))


@rule("nan", ERROR, "A number is missing (NaN).", "leave the episode out; never put a zero in its place", of_steps=True)
def nan(block: Block) -> Found:
    for name, column in block.columns.items():
        if _suspect(column):
            bad = np.isnan(column.reshape(len(column), -1)).any(1)
            yield from ((e, t, f"{name} is NaN in {n} steps") for e, t, n in first_rows(block, bad))


@rule("infinite", ERROR, "A number is infinite.", "leave the episode out", of_steps=True)
def infinite(block: Block) -> Found:
    for name, column in block.columns.items():
        if _suspect(column):
            bad = np.isinf(column.reshape(len(column), -1)).any(1)
            yield from ((e, t, f"{name} is infinite in {n} steps") for e, t, n in first_rows(block, bad))


def _actions(block: Block) -> np.ndarray | None:
    actions = block.columns.get("actions")
    if actions is None or actions.dtype.kind != "f" or actions.ndim < 2:
        return None
    return actions.reshape(len(actions), -1)


@rule("action-range", WARNING, "Actions lie beyond [-1, 1].",
      "poise fit scales them (--actions scale) or clips them (--actions clip), when told", of_steps=True)  # fmt: skip
def action_range(block: Block) -> Found:
    actions = _actions(block)
    if actions is not None and "action_low" not in block.log.attributes and np.abs(actions).max(initial=0.0) > 1 + 1e-6:
        bad = np.asarray((np.abs(actions) > 1 + 1e-6).any(1))
        largest = float(np.nanmax(np.abs(actions)))
        name, step, _ = first_rows(block, bad)[0]
        yield name, step, f"{int(bad.sum())} of {len(bad)} steps, up to {largest:.3g}"


@rule("constant-action", WARNING, "An action's dimension never changes.", "nothing can be learned of it", of_steps=True)
def constant_action(block: Block) -> Found:
    actions = _actions(block)
    if actions is not None and len(actions) > 1 and (still := np.flatnonzero(np.ptp(actions, axis=0) == 0)).size:
        yield "", None, f"dimension {still.tolist()} is always {actions[0, still[0]]:.4g}"


@rule("clipped-action", WARNING, "Many actions stand at a bound.", "the recorder may have clipped them", of_steps=True)
def clipped_action(block: Block) -> Found:
    actions = _actions(block)
    if actions is None or len(actions) < 20:
        return
    low, high = actions.min(0), actions.max(0)
    at_bound = ((actions == low) | (actions == high)).mean(0)
    levels = np.array(
        [len(np.unique(actions[:1000, j])) for j in range(actions.shape[1])]
    )  # a gripper has two or three
    if (many := np.flatnonzero((at_bound > CLIPPED) & (levels > 5))).size:
        j = int(many[0])
        share = f"{100 * at_bound[j]:.0f} % of the steps"
        yield "", None, f"dimension {j} stands at {low[j]:.3g} or {high[j]:.3g} in {share}"


@rule(
    "constant-observation", WARNING, "An observation never changes.", "it says nothing; check the sensor", of_steps=True
)
def constant_observation(block: Block) -> Found:
    for name, column in block.flat("obs").items():
        if len(column) > 20 and column.shape[1] and (still := np.flatnonzero(np.ptp(column, axis=0) == 0)).size:
            yield "", None, f"{name}: {len(still)} of {column.shape[1]} numbers, the first at {still[0]}"


@rule("huge", WARNING, "A number is beyond a million.", "a wrong unit, or a simulator that blew up", of_steps=True)
def huge(block: Block) -> Found:
    for group in ("obs", "actions", "rewards"):
        for name, column in block.flat(group).items():
            if column.size and max(float(column.max()), -float(column.min())) > HUGE:
                for e, t, n in first_rows(block, (np.abs(column) > HUGE).any(1)):
                    yield e, t, f"{name} is up to {float(np.abs(column).max()):.3g} in {n} steps"


@rule("outlier", WARNING, "A number lies a thousand spreads away from the others.", "look at that step", of_steps=True)
def outlier(block: Block) -> Found:
    for name, column in block.flat("obs").items():
        if len(column) < 100 or column.dtype.kind != "f":
            continue
        sample = column[:: max(1, len(column) // 2000)].astype(np.float64)
        low, middle, high = np.percentile(sample, [25, 50, 75], axis=0)
        spread = np.maximum(high - low, 1e-3 * (1.0 + np.abs(middle)))
        top, bottom = column.max(0), column.min(0)
        far = np.maximum(top - middle, middle - bottom) > FAR * spread
        for j in np.flatnonzero(far):
            bad = np.abs(column[:, j] - middle[j]) > FAR * spread[j]
            yield from ((e, t, f"{name}[{j}] is {column[bad, j][0]:.4g}, mostly it is about {middle[j]:.4g}")
                        for e, t, _ in first_rows(block, bad))  # fmt: skip


@rule(
    "quaternion",
    WARNING,
    "A quaternion is not of length 1.",
    "another order of numbers, or another quantity",
    of_steps=True,
)
def quaternion(block: Block) -> Found:
    for name, column in block.flat("obs").items():
        if column.shape[1] == 4 and "quat" in name.rpartition("/")[2]:
            bad = np.abs(np.linalg.norm(column, axis=1) - 1.0) > 0.01
            yield from ((e, t, f"{name} has length {np.linalg.norm(column[bad][0]):.3f} in {n} steps")
                        for e, t, n in first_rows(block, bad))  # fmt: skip


@rule(
    "frozen-observation",
    WARNING,
    "No observation changes while actions do.",
    "a sensor or a log stood still",
    of_steps=True,
)
def frozen_observation(block: Block) -> Found:
    actions, seen = _actions(block), block.flat("obs")
    if actions is None or not seen:
        return
    inside = block.inside()[:-1]
    still = inside & (actions[1:] != actions[:-1]).any(1)
    for column in seen.values():
        still &= (column[1:] == column[:-1]).all(1)
        if not still.any():
            return
    rows = np.flatnonzero(still)
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        if len(run) >= STILL:
            yield (*block.place(int(run[0])), f"{len(run)} steps")


@rule(
    "duplicate-step",
    WARNING,
    "A step is recorded twice in a row.",
    "the recorder was faster than its source",
    of_steps=True,
)
def duplicate_step(block: Block) -> Found:
    actions, seen = _actions(block), block.flat("obs")
    if actions is None or not seen:
        return
    same = block.inside()[:-1] & (actions[1:] == actions[:-1]).all(1)
    for column in seen.values():
        if not same.any():
            return
        same &= (column[1:] == column[:-1]).all(1)
    if "next_obs" in {name.partition("/")[0] for name in block.columns}:
        for column in block.flat("next_obs").values():
            same &= (column[1:] == column[:-1]).all(1)
    moving = np.append(same, False) & (np.abs(actions) > 1e-6).any(1)  # at rest, equal steps are what there is
    yield from ((e, t, f"{n} steps repeat the one before") for e, t, n in first_rows(block, moving))


@rule("duplicate-episode", WARNING, "Two episodes are equal.", "one is enough, unless a copy was meant", of_steps=True)
def duplicate_episode(block: Block) -> Found:
    yield from ((name, None, f"equal to {other}") for name, other in _equal(block))


@rule(
    "equal-held-out",
    ERROR,
    "A held-out episode equals one that is learned from.",
    "delete one, split again",
    of_steps=True,
)
def equal_held_out(block: Block) -> Found:
    pairs = held_out(block.log)
    for name, other in _equal(block) if pairs else ():
        for a, b in pairs:
            if (name in block.log.filters[a]) != (other in block.log.filters[a]) and (
                name in block.log.filters[b] or other in block.log.filters[b]):  # fmt: skip
                yield name, None, f"equal to {other}; one is in {a}, one in {b}"


def _equal(block: Block) -> list[tuple[str, str]]:
    """(episode, an earlier one that equals it in actions and observations)."""
    done = block.notes.setdefault("equal", {"hashes": {}})
    if done.get("columns") is block.columns:  # the other rule asked before
        return done["found"]
    seen, found = done["hashes"], []
    columns = [c for name, c in sorted(block.columns.items()) if name == "actions" or name.startswith("obs/")]
    for i, (first, last) in enumerate(zip(block.first, block.last, strict=True)):
        digest = hashlib.blake2b(digest_size=16)
        for column in columns:
            digest.update(np.ascontiguousarray(column[first : last + 1]).data)
        other = seen.setdefault(digest.digest(), block.episodes[i].name)
        if other != block.episodes[i].name and columns and last > first:
            found.append((block.episodes[i].name, other))
    done["columns"], done["found"] = block.columns, found
    return found
