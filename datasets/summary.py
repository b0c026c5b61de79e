"""What is in a log: columns, lengths, returns, action ranges, success, filters. Numbers for others to print or draw.

Legend: E episodes, A numbers of an action.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import SpecError
from ..spec import UNKNOWN, Spec
from .log import Episode, Log

SAID = ("task", "policy", "robot", "randomize", "noise", "seed", "commit")  # of a provenance


@dataclass(frozen=True)
class ColumnSummary:
    """One column, over the episodes that have it."""

    name: str
    shape: tuple[int, ...]  # of one step, in the first of these episodes
    dtype: str
    episodes: int  # that have it
    terms: str = ""  # what its numbers are and their units, where the file's Spec says


@dataclass(frozen=True)
class Summary:
    """One log in numbers; what its file does not hold is None or empty."""

    path: str
    layout: str
    episodes: int
    steps: int
    lengths: tuple[int, float, int] | None  # shortest, median, longest
    returns: tuple[float, float, float] | None  # worst, mean, best
    success_rate: float | None  # of the episodes, where every one says
    columns: tuple[ColumnSummary, ...]
    action_low: tuple[float, ...]  # (A,) least of each number
    action_high: tuple[float, ...]
    filters: dict[str, int]  # name -> episodes
    notes: tuple[str, ...]  # the reader's
    bytes: int  # on disk
    environment: str  # as the file names it
    provenance: dict[str, Any]  # what ours say of where they come from: task, policy, seed, commit, …


def summarize(log: Log) -> Summary:
    """The log in numbers, of which actions and rewards alone are read."""
    lengths = np.array([e.steps for e in log.episodes])
    totals = episode_returns(log.episodes)
    low, high = action_range(log.episodes)
    return Summary(
        str(log.path), log.layout, len(log.episodes), log.steps,
        (int(lengths.min()), float(np.median(lengths)), int(lengths.max())) if len(lengths) else None,
        (float(totals.min()), float(totals.mean()), float(totals.max())) if totals is not None else None,
        success_rate(log.episodes), tuple(column_summaries(log.episodes, _terms(log))),
        tuple(low.tolist()), tuple(high.tolist()),
        {name: len(members) for name, members in log.filters.items()}, tuple(log.notes),
        _bytes(log.path), _environment(log), _provenance(log))  # fmt: skip


def column_summaries(
    episodes: Sequence[Episode], terms: Mapping[str, str] = MappingProxyType({})
) -> list[ColumnSummary]:
    """Every column that any episode has, in the order in which they are met."""
    first, counts = {}, {}
    for episode in episodes:
        for name, column in episode.columns.items():
            first.setdefault(name, column)
            counts[name] = counts.get(name, 0) + 1
    return [ColumnSummary(name, tuple(c.shape[1:]), str(c.dtype), counts[name], terms.get(name, ""))
            for name, c in first.items()]  # fmt: skip


def episode_returns(episodes: Sequence[Episode]) -> np.ndarray | None:
    """(E,) sums of rewards, where every episode has them."""
    if not episodes or not all("rewards" in e.columns for e in episodes):
        return None
    return np.array([np.sum(e.columns["rewards"][:], dtype=np.float64) for e in episodes])


def action_range(episodes: Sequence[Episode]) -> tuple[np.ndarray, np.ndarray]:
    """(A,) least and greatest of each number of the actions, NaN where one is; empty without actions alike."""
    columns = [e.columns["actions"] for e in episodes if "actions" in e.columns and e.steps > 0]
    if not columns or len({c.shape[1:] for c in columns}) > 1 or any(c.dtype.kind not in "biuf" for c in columns):
        return np.zeros(0), np.zeros(0)
    ends = []
    for column in columns:
        values = np.asarray(column[:], np.float64).reshape(column.shape[0], -1)
        ends.append((values.min(0), values.max(0)))
    return np.min([low for low, _ in ends], axis=0), np.max([high for _, high in ends], axis=0)


def success_rate(episodes: Sequence[Episode]) -> float | None:
    """The share of episodes whose attribute `success` is true, where every one has it."""
    if not episodes or not all("success" in e.attributes for e in episodes):
        return None
    return float(np.mean([bool(e.attributes["success"]) for e in episodes]))


def _terms(log: Log) -> dict[str, str]:
    """Column -> its terms with their units, of a file of ours."""
    try:
        spec = Spec.from_json(str(log.attributes["poise_spec"]))
    except (KeyError, SpecError):
        return {}
    said = {group: ", ".join(t.name + (f" [{t.unit}]" if t.unit not in ("", UNKNOWN) else "") for t in terms)
            for group, terms in spec.observations.items()}  # fmt: skip
    return {f"obs/{group}": text for group, text in said.items()}


def _bytes(path: Path) -> int:
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size if path.exists() else 0


def _environment(log: Log) -> str:
    """The environment's name, whichever attribute has it."""
    for name in ("env_args", "env_info", "env_spec"):
        try:
            said = json.loads(str(log.attributes[name]))
        except (KeyError, ValueError):
            continue
        if isinstance(said, dict) and (found := said.get("env_name") or said.get("id")):
            return str(found)
    return str(log.attributes.get("env", ""))


def _provenance(log: Log) -> dict[str, Any]:
    try:
        said = json.loads(str(log.attributes["poise_provenance"]))
    except (KeyError, ValueError):
        return {}
    return {name: said[name] for name in SAID if isinstance(said, dict) and said.get(name) not in (None, "", {})}
