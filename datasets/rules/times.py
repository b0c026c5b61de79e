"""Rules about time: what robots' logs lose, and what their clocks do.

Legend: S steps of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..check import ERROR, WARNING, Block, Found, rule
from .values import first_rows

CLOCKS = ("t_mono", "t_device", "timestamp", "time", "infos/timestamp", "obs/timestamp")
DRIFT = 1e-3  # of the time that passed


def _clocks(block: Block) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(name, steps of time (S - 1,), which of them lie within an episode)."""
    for name in CLOCKS:
        if (clock := block.columns.get(name)) is not None and clock.size == len(clock) and len(clock) > 2:
            yield name, np.diff(clock.reshape(-1).astype(np.float64)), block.inside()[:-1]


def _late(block: Block, name: str, steps: np.ndarray, bad: np.ndarray, usual: float) -> Found:
    """The steps (S,) that took too long by a clock."""
    for episode, row, count in first_rows(block, bad):
        first = steps[bad[:-1]][0]
        yield episode, row, f"{name}: {count} steps, the first of {first:.3g} s; usually {usual:.3g} s"


def _usual(steps: np.ndarray, inside: np.ndarray) -> float:
    return float(np.median(steps[inside])) if inside.any() else 0.0


@rule(
    "time-backward",
    ERROR,
    "Time stands still or runs backwards within an episode.",
    "sort the steps, or cut there",
    of_steps=True,
)
def time_backward(block: Block) -> Found:
    for name, steps, inside in _clocks(block):
        bad = np.append((steps <= 0) & inside, False)
        yield from ((e, t, f"{name} in {n} steps") for e, t, n in first_rows(block, bad))


@rule("dropped-frame", WARNING, "A step takes a whole number of periods: those between are missing.",
      "the episode is not what was played; cut it there", of_steps=True)  # fmt: skip
def dropped_frame(block: Block) -> Found:
    for name, steps, inside in _clocks(block):
        usual = _usual(steps, inside)
        if usual <= 0:
            continue
        times = steps / usual
        bad = np.append(inside & (times > 1.8) & (times < 20) & (np.abs(times - np.round(times)) < 0.15), False)
        yield from _late(block, name, steps, bad, usual)


@rule(
    "time-gap",
    WARNING,
    "A step takes far longer than usual.",
    "the recorder paused: cut the episode there",
    of_steps=True,
)
def time_gap(block: Block) -> Found:
    for name, steps, inside in _clocks(block):
        usual = _usual(steps, inside)
        bad = np.append(inside & (steps >= 20 * usual), False) if usual > 0 else np.zeros(len(steps) + 1, bool)
        yield from _late(block, name, steps, bad, usual)


@rule("jitter", WARNING, "Periods vary by more than a fifth.", "the control rate was not kept", of_steps=True)
def jitter(block: Block) -> Found:
    for name, steps, inside in _clocks(block):
        usual = _usual(steps, inside)
        if usual > 0 and (spread := float(np.std(np.clip(steps[inside], 0, 3 * usual)))) > 0.2 * usual:
            yield "", None, f"{name}: {usual:.3g} s, deviation {spread:.2g} s"


@rule("drift", WARNING, "Two clocks of one log run apart.", "one of them is not in seconds", of_steps=True)
def drift(block: Block) -> Found:
    mine, device = block.columns.get("t_mono"), block.columns.get("t_device")
    if mine is None or device is None:
        return
    for i, (first, last) in enumerate(zip(block.first, block.last, strict=True)):
        passed, other = float(mine[last] - mine[first]), float(device[last] - device[first])
        if abs(passed - other) > DRIFT * passed + 2e-3 and last - first > 10:
            yield block.episodes[i].name, int(last - first), f"{passed:.4g} s by t_mono, {other:.4g} s by t_device"


@rule(
    "verdict",
    WARNING,
    "The supervisor refused or clipped commands.",
    "what was asked is not what was done",
    of_steps=True,
)
def verdict(block: Block) -> Found:
    verdicts = block.columns.get("verdict")
    if verdicts is not None:
        yield from (
            (e, t, f"{n} steps") for e, t, n in first_rows(block, verdicts.reshape(len(verdicts), -1)[:, 0] > 0)
        )


@rule(
    "asked-range",
    ERROR,
    "What the policy put out is no number or far beyond [-1, 1].",
    "a broken policy",
    of_steps=True,
)
def asked_range(block: Block) -> Found:
    asked = block.columns.get("actions_asked")
    if asked is not None and asked.dtype.kind == "f":
        bad = ~(np.abs(asked.reshape(len(asked), -1)) <= 10.0).all(1)
        yield from ((e, t, f"{n} steps") for e, t, n in first_rows(block, bad))
