"""Rules about where episodes end and what they pay.

Legend: S steps of a block, E episodes.
"""

from __future__ import annotations

import numpy as np

from ..check import ERROR, WARNING, Block, Found, rule
from ..log import Log
from .values import first_rows

TOGETHER = 3  # episodes of one length from which on an end counts as a time limit


def _ends(block: Block, name: str) -> np.ndarray | None:
    column = block.columns.get(name)
    if column is None or column.dtype.kind not in "biuf":
        return None
    return column.reshape(len(column), -1)[:, 0] != 0


@rule("broken-successor", WARNING, "next_obs is not the next step's observation.",
      "steps were dropped or shuffled; successors are taken from next_obs all the same", of_steps=True)  # fmt: skip
def broken_successor(block: Block) -> Found:
    inside = block.inside()[:-1]
    for name, column in block.flat("obs").items():
        following = block.columns.get(f"next_{name}")
        if following is not None and following.shape == block.columns[name].shape and len(column) > 1:
            after, ahead = following.reshape(len(column), -1)[:-1], column[1:]
            bad = (after != ahead).any(1) & inside
            if not bad.any():
                continue
            scale = 1e-6 * (1.0 + np.abs(column).max(0, initial=0.0))
            bad[bad] = (np.abs(after[bad] - ahead[bad]) > scale).any(1)
            bad = np.append(bad, False)
            yield from ((e, t, f"{name} in {n} steps") for e, t, n in first_rows(block, bad))


@rule("end-inside", ERROR, "An episode goes on after it ended.", "the episode's boundaries are wrong", of_steps=True)
def end_inside(block: Block) -> Found:
    for name in ("terminations", "truncations", "dones"):
        ends = _ends(block, name)
        if ends is None or (name == "dones" and _success_marks(block, ends)):
            continue
        bad = ends.copy()
        bad[block.last] = False
        yield from ((e, t, f"{name} {n} times before the last step") for e, t, n in first_rows(block, bad))


def _success_marks(block: Block, ends: np.ndarray) -> bool:
    """Whether `dones` mark success until the end, as robomimic has it, and not ends: once true they stay so."""
    inside = block.inside()[:-1]
    return not (ends[:-1] & ~ends[1:] & inside).any()


@rule(
    "no-end",
    WARNING,
    "An episode's last step is marked as no end.",
    "it was cut off; say --ends truncated",
    of_steps=True,
)
def no_end(block: Block) -> Found:
    marks = [ends for name in ("terminations", "truncations", "dones") if (ends := _ends(block, name)) is not None]
    if marks:
        ended = np.logical_or.reduce(marks)[block.last]
        for i in np.flatnonzero(~ended).tolist():
            yield block.episodes[i].name, int(block.last[i] - block.first[i]), "no end"


@rule(
    "both-ends",
    WARNING,
    "A step both terminates and runs out of time.",
    "the value of its successor counts as zero",
    of_steps=True,
)
def both_ends(block: Block) -> Found:
    terminated, truncated = _ends(block, "terminations"), _ends(block, "truncations")
    if terminated is not None and truncated is not None:
        yield from ((e, t, f"in {n} steps") for e, t, n in first_rows(block, terminated & truncated))


@rule("time-limit", WARNING, "Episodes of one length all end as if the task had ended.",
      "a time limit is a truncation: poise fit --ends truncated", of_steps=True)  # fmt: skip
def time_limit(block: Block) -> Found:
    for name in ("terminations", "dones"):
        ends = _ends(block, name)
        lengths = block.last - block.first + 1
        if ends is None or len(lengths) < 2 or (name == "dones" and "terminations" in block.columns):
            continue
        longest = int(lengths.max())
        at = (lengths == longest) & ends[block.last]
        if at.sum() >= min(TOGETHER, len(lengths)) and longest >= 50 and longest % 10 == 0:
            first = block.episodes[int(np.flatnonzero(at)[0])].name
            yield first, longest - 1, f"{int(at.sum())} of {len(lengths)} episodes end at {longest} steps by {name}"


@rule("no-timeouts", WARNING, "The file does not tell time limits from ends of the task.",
      "say which it is: poise fit --ends truncated or terminated")  # fmt: skip
def no_timeouts(log: Log) -> Found:
    for e in log.episodes[:1]:
        if "dones" in e.columns and "terminations" not in e.columns:
            yield "", None, "dones alone"
        elif "terminations" in e.columns and "truncations" not in e.columns:
            yield "", None, "terminations alone"


@rule("constant-reward", WARNING, "Rewards never change.", "imitation alone can learn from this", of_steps=True)
def constant_reward(block: Block) -> Found:
    rewards = block.columns.get("rewards")
    if rewards is not None and len(rewards) > 20 and np.ptp(rewards) == 0:
        yield "", None, f"always {float(rewards.flat[0]):g}"


@rule(
    "never-rewarded",
    WARNING,
    "Episodes that are called successes never earn anything.",
    "check the rewards",
    of_steps=True,
)
def never_rewarded(block: Block) -> Found:
    rewards = block.columns.get("rewards")
    if rewards is None:
        return
    totals = np.maximum.reduceat(rewards.reshape(len(rewards), -1)[:, 0], block.first)
    for i, e in enumerate(block.episodes):
        if bool(e.attributes.get("success", False)) and totals[i] <= 0 and float(np.min(rewards)) >= 0:
            yield e.name, None, "success, and no reward above 0"


@rule("late-reward", WARNING, "The reward of success stands a step before or after the end.",
      "rewards may be off by one", of_steps=True)  # fmt: skip
def late_reward(block: Block) -> Found:
    rewards, terminated = block.columns.get("rewards"), _ends(block, "terminations")
    if rewards is None or terminated is None:
        return
    flat = rewards.reshape(len(rewards), -1)[:, 0]
    if len(np.unique(flat[:5000])) > 2:
        return  # not a sparse one
    high = flat.max()
    ended = block.last[terminated[block.last] & (block.last > block.first)]
    early = (flat[ended - 1] == high) & (flat[ended] < high)
    if len(ended) and early.mean() > 0.5:
        yield (*block.place(int(ended[0])), f"in {int(early.sum())} of {len(ended)} episodes that terminate")


@rule(
    "return-said", WARNING, "An episode says another return than its rewards add up to.", "look at both", of_steps=True
)
def return_said(block: Block) -> Found:
    rewards = block.columns.get("rewards")
    if rewards is None:
        return
    sums = np.add.reduceat(rewards.reshape(len(rewards), -1)[:, 0].astype(np.float64), block.first)
    for i, e in enumerate(block.episodes):
        said = e.attributes.get("episode_return", e.attributes.get("return"))
        if isinstance(said, float | np.floating) and abs(float(said) - sums[i]) > 1e-3 * (1 + abs(sums[i])):
            yield e.name, None, f"says {float(said):.4g}, and earns {sums[i]:.4g}"
