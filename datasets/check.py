"""Checking demonstrations before anyone learns from them: named rules, each with a sentence, over any layout's log.

    file rules     look at the log as a whole: names, shapes, types, filters, attributes
    step rules     look at blocks of whole episodes, every column one array, so that a rule is a few numpy calls

A rule yields (episode, row, what was found); what each means and what to do stands with it in RULES. An `error` makes
learning wrong or impossible, a `warning` is a fact that a person should know.

Legend: S steps of a block, E episodes of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError, unknown_name
from .log import Column, Episode, Log, Rows
from .open_log import open_log
from .safe_hdf5 import open_hdf5

ERROR, WARNING = "error", "warning"
BLOCK = 192 << 20  # bytes read at once
SAID = 20  # findings of one rule that are told one by one
FRAMES = 12  # of a camera that are looked at in one episode

Found = Iterable[tuple[str, int | None, str]]  # (episode or "", row or None, what was found)


@dataclass(frozen=True)
class Rule:
    """One thing that can be wrong."""

    name: str
    severity: str
    meaning: str  # a sentence
    advice: str  # what to do
    look: Callable[[Any], Found]
    of_steps: bool


@dataclass(frozen=True)
class Finding:
    """Where a rule fired."""

    rule: str
    severity: str
    episode: str
    row: int | None
    message: str


@dataclass(frozen=True)
class Report:
    """What was found in one file: the first findings of every rule, and how many there are of each."""

    path: str
    episodes: int
    steps: int
    findings: tuple[Finding, ...]
    counts: dict[str, int]

    def worst(self, strict: bool = False) -> bool:
        """Whether there is an error, or with `strict` anything."""
        return bool(self.counts) if strict else any(RULES[name].severity == ERROR for name in self.counts)


RULES: dict[str, Rule] = {}  # filled by the files of rules/


def rule(name: str, severity: str, meaning: str, advice: str, of_steps: bool = False) -> Callable[[Any], Any]:
    """Register a function as the rule `name`."""

    def register(look: Callable[[Any], Found]) -> Callable[[Any], Found]:
        assert name not in RULES, name
        RULES[name] = Rule(name, severity, meaning, advice, look, of_steps)
        return look

    return register


@dataclass(frozen=True)
class Block:
    """Some whole episodes, one after the other."""

    log: Log
    episodes: Sequence[Episode]
    columns: dict[str, np.ndarray]  # (S, …) of every column that all these episodes have alike, cameras not among them
    first: np.ndarray  # (E,) row of each episode's first step
    last: np.ndarray  # (E,)
    notes: dict[str, Any] = field(default_factory=dict)  # for rules that compare blocks

    def place(self, row: int) -> tuple[str, int]:
        """(episode, step of it) of a row."""
        i = int(np.searchsorted(self.first, row, "right")) - 1
        return self.episodes[i].name, int(row - self.first[i])

    def flat(self, prefix: str) -> dict[str, np.ndarray]:
        """Columns of numbers below a group, or the column of that name, each (S, D) float."""
        return {name: column.reshape(len(column), -1) for name, column in self.columns.items()
                if (name == prefix or name.startswith(f"{prefix}/")) and column.dtype.kind in "biuf"}  # fmt: skip

    def inside(self) -> np.ndarray:
        """(S,) whether the next row is the same episode's next step."""
        result = np.ones(int(self.last[-1]) + 1, bool)
        result[self.last] = False
        return result


def check(path: str | os.PathLike[str], layout: str | None = None, only: Collection[str] = (),
          ignore: Collection[str] = ()) -> Report:  # fmt: skip
    """Every rule, or those named, over the file or folder at `path`.

    Raises:
        UsageError: there is no such rule.
    """
    rules = chosen(only, ignore)
    try:
        log = open_log(path, layout)
    except DatasetError as error:
        return _unreadable(path, str(error))
    with log:
        return check_log(log, rules)


def check_log(log: Log, rules: Sequence[Rule]) -> Report:
    """These rules over an open log."""
    findings: list[Finding] = []
    counts: dict[str, int] = {}

    def add(rule: Rule, found: Found) -> None:
        for episode, row, message in found:
            counts[rule.name] = counts.get(rule.name, 0) + 1
            if counts[rule.name] <= SAID:
                findings.append(Finding(rule.name, rule.severity, episode, row, message))

    try:
        for one in rules:
            if not one.of_steps:
                add(one, one.look(log))
        for block in blocks(log):
            for one in rules:
                if one.of_steps:
                    add(one, one.look(block))
    except (DatasetError, OSError, RuntimeError) as error:
        add(RULES["unreadable"], [("", None, str(error).splitlines()[0])])
    return Report(str(log.path), len(log.episodes), log.steps, tuple(findings), counts)


def chosen(only: Collection[str] = (), ignore: Collection[str] = ()) -> list[Rule]:
    """The rules of these names, or all, but for those to ignore."""
    from .rules import boundaries, files, images, times, values  # noqa: F401  they register themselves

    for name in (*only, *ignore):
        if name not in RULES:
            raise unknown_name("rule", name, RULES)
    return [r for r in RULES.values() if (not only or r.name in only) and r.name not in ignore]


def quick_errors(log: Log) -> list[str]:
    """The errors of rules about structure and numbers, a line each: what a learner must not begin with."""
    rules = [r for r in chosen() if r.severity == ERROR]
    report = check_log(log, rules)
    return [f"{f.rule}: {f.episode}{'' if f.row is None else f', step {f.row}'}: {f.message}" for f in report.findings]


def blocks(log: Log) -> Iterator[Block]:
    """The log in blocks of whole episodes of up to BLOCK bytes; a block's columns are those its episodes have alike."""
    notes: dict[str, Any] = {}
    episodes = [e for e in log.episodes if e.steps > 0]
    start = 0
    while start < len(episodes):
        stop, size = start, 0
        while stop < len(episodes) and (stop == start or size + _bytes(episodes[stop]) <= BLOCK):
            size += _bytes(episodes[stop])
            stop += 1
        part = episodes[start:stop]
        lengths = np.array([e.steps for e in part])
        last = np.cumsum(lengths) - 1
        columns = {name: together(part, name) for name in _alike(part)}
        yield Block(log, part, columns, last - lengths + 1, last, notes)
        start = stop


def together(episodes: Sequence[Episode], name: str) -> np.ndarray:
    """One column of these episodes, one after the other: read in one go where the file holds it so."""
    parts: list[Column] = [e.columns[name] for e in episodes]
    first, last = parts[0], parts[-1]
    if isinstance(first, Rows) and isinstance(last, Rows) and all(
        isinstance(a, Rows) and isinstance(b, Rows) and a.column is b.column and a.stop == b.start
        for a, b in pairwise(parts)):  # fmt: skip
        return np.asarray(first.column[first.start : last.stop])
    return np.concatenate([np.asarray(part[:]) for part in parts])


def is_picture(column: Column) -> bool:
    """Frames (T, height, width, channels), or several of them a step."""
    return len(column.shape) >= 4 and column.shape[-1] in (1, 3, 4) and min(column.shape[-3:-1]) >= 8


def _alike(episodes: Sequence[Episode]) -> list[str]:
    first = episodes[0].columns
    return [name for name, c in first.items() if c.dtype.kind in "biufc" and not is_picture(c) and all(
        name in e.columns and e.columns[name].shape == (e.steps, *c.shape[1:]) and e.columns[name].dtype.kind in "biufc"
        for e in episodes)]  # fmt: skip


def _bytes(episode: Episode) -> int:
    return sum(int(np.prod(c.shape)) * c.dtype.itemsize for c in episode.columns.values() if not is_picture(c))


def _unreadable(path: str | os.PathLike[str], message: str) -> Report:
    """A file that cannot be opened, and why that may be."""
    name, place = "unreadable", Path(path)
    if place.is_file():
        with place.open("rb") as file:
            head = file.read(64)
        if head.startswith(b"version https://git-lfs"):
            name, message = "lfs-pointer", f"{place} is a pointer of Git LFS: fetch the data with git lfs pull"
        elif head.startswith(b"\x89HDF"):
            try:
                open_hdf5(place).close()
            except DatasetError as error:
                name, message = "half-copy" if "truncated" in str(error) else name, str(error)
    finding = Finding(name, ERROR, "", None, message)
    return Report(str(path), 0, 0, (finding,), {name: 1})
