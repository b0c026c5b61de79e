"""Rules about a log as a whole: what is there, of which shape and type, and which episodes the filters name."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np

from ..check import ERROR, WARNING, Found, is_picture, rule
from ..log import Episode, Log


@rule("unreadable", ERROR, "A part of the file cannot be read.", "copy it again from where it came")
def unreadable(log: Log) -> Found:
    return []  # found where it is opened and where its columns are read


@rule("lfs-pointer", ERROR, "The file is a pointer of Git LFS and not the data.", "git lfs pull")
def lfs_pointer(log: Log) -> Found:
    return []  # found where it is opened


@rule("half-copy", ERROR, "The file ends before its data does.", "copy it again")
def half_copy(log: Log) -> Found:
    return []  # found where it is opened


@rule("no-episode", ERROR, "There is no episode with a step in the file.", "record some, or delete the file")
def no_episode(log: Log) -> Found:
    if not any(e.steps for e in log.episodes):
        yield "", None, f"{len(log.episodes)} episodes, none with a step"


@rule("zero-length", ERROR, "An episode has no step.", "delete it: readers divide by its length")
def zero_length(log: Log) -> Found:
    if any(e.steps for e in log.episodes):
        yield from ((e.name, None, "no step") for e in log.episodes if e.steps == 0)


@rule("short-episode", WARNING, "An episode has one step alone.", "look at it: recordings of one step are mostly slips")
def short_episode(log: Log) -> Found:
    lengths = [e.steps for e in log.episodes]
    if lengths and max(lengths) > 10:
        yield from ((e.name, None, "one step") for e in log.episodes if e.steps == 1)


@rule("no-actions", WARNING, "An episode has no actions.", "nothing can be imitated; states can be replayed")
def no_actions(log: Log) -> Found:
    yield from ((e.name, None, f"has {', '.join(e.columns) or 'nothing'}") for e in log.episodes
                if e.columns and "actions" not in e.columns)  # fmt: skip


@rule("no-observations", WARNING, "An episode has no observations.", "poise data replay makes them from states")
def no_observations(log: Log) -> Found:
    yield from ((e.name, None, f"has {', '.join(e.columns) or 'nothing'}") for e in log.episodes
                if e.columns and not e.keys("obs"))  # fmt: skip


@rule("column-length", ERROR, "Columns of one episode differ in length.", "find which step was lost; never pad")
def column_length(log: Log) -> Found:
    for e in log.episodes:
        lengths = {name: c.shape[0] if c.shape else 0 for name, c in e.columns.items()}
        if odd := [name for name, n in lengths.items() if n != e.steps]:
            yield e.name, None, f"{odd[0]} has {lengths[odd[0]]} rows, actions have {e.steps}"


@rule("missing-column", ERROR, "Some episodes lack a column that others have.", "leave those out by a filter")
def missing_column(log: Log) -> Found:
    counts = Counter(name for e in log.episodes for name in e.columns)
    partial = {name for name, n in counts.items() if n < len(log.episodes)}
    for e in log.episodes if partial else ():
        if lacks := sorted(partial - set(e.columns)):
            most = counts[lacks[0]]
            if most * 2 >= len(log.episodes):
                yield e.name, None, f"no {', '.join(lacks[:3])}, which {most} of {len(log.episodes)} episodes have"


def _only(log: Log, pictures: bool) -> Log:
    """The log with its cameras alone, or without them."""
    episodes = [Episode(e.name, {k: c for k, c in e.columns.items() if is_picture(c) == pictures})
                for e in log.episodes if e.steps > 0]  # fmt: skip
    return Log(log.path, log.layout, episodes)


def _differs(log: Log, of, what: str) -> Found:
    """Where `of` a column is not what it is in the first episode that has it."""
    seen: dict[str, tuple[str, object]] = {}
    for e in log.episodes:
        for name, column in e.columns.items():
            value = of(column)
            where, usual = seen.setdefault(name, (e.name, value))
            if value != usual:
                yield e.name, None, f"{name} is of {what} {value}, in {where} of {usual}"


@rule(
    "shape", ERROR, "A column's rows have another shape than in other episodes.", "convert or leave out those episodes"
)
def shape(log: Log) -> Found:
    yield from _differs(_only(log, pictures=False), lambda c: tuple(c.shape[1:]), "shape")


@rule("image-size", ERROR, "A camera's pictures differ in size between episodes.", "scale them to one size first")
def image_size(log: Log) -> Found:
    yield from _differs(_only(log, pictures=True), lambda c: tuple(c.shape[1:]), "size")


@rule("dtype-differs", WARNING, "A column is of another type than in other episodes.", "convert them to one type")
def dtype_differs(log: Log) -> Found:
    yield from _differs(log, lambda c: str(c.dtype), "type")


@rule("dtype", ERROR, "A column is of a type that nothing can be learned from.", "write numbers: float32 or uint8")
def dtype(log: Log) -> Found:
    for e in log.episodes[:1]:
        for name, column in e.columns.items():
            if name.partition("/")[0] in ("obs", "next_obs", "actions", "rewards") and column.dtype.kind not in "biuf":
                yield e.name, None, f"{name} is of type {column.dtype}"


@rule("image-dtype", WARNING, "A camera's pictures are not bytes.", "uint8 takes a quarter of the room of float32")
def image_dtype(log: Log) -> Found:
    for e in log.episodes[:1]:
        for name, column in e.columns.items():
            if is_picture(column) and column.dtype.kind == "f" and column.shape[-1] == 3:
                yield e.name, None, f"{name} is of type {column.dtype}"


@rule("num-samples", ERROR, "An episode says another number of steps than it has.", "an interrupted copy or recording")
def num_samples(log: Log) -> Found:
    for e in log.episodes:
        said = e.attributes.get("num_samples", e.steps)
        if np.ndim(said) or said != e.steps:
            yield e.name, None, f"num_samples {said}, and {e.steps} steps"


@rule("total", WARNING, "The file says another number of steps than it has.", "harmless, but something was left out")
def total(log: Log) -> Found:
    said = log.attributes.get("total", log.steps)
    if np.ndim(said) or said != log.steps:
        yield "", None, f"total {said}, and {log.steps} steps"


@rule("name-gap", WARNING, "Numbers of episodes are left out.", "episodes were deleted, or a copy is incomplete")
def name_gap(log: Log) -> Found:
    numbers = [int(tail) for e in log.episodes if (tail := e.name.rpartition("_")[2]).isdigit()]
    if (
        numbers
        and len(numbers) == len(log.episodes)
        and len(missing := set(range(min(numbers), max(numbers))) - {*numbers})
    ):
        yield "", None, f"{len(missing)} missing, the first {min(missing)}"


@rule("environment", WARNING, "What the file says of its environment cannot be read.", "poise data replay needs --task")
def environment(log: Log) -> Found:
    said = log.attributes.get("env_args")
    if said is None:
        return
    try:
        if not isinstance(json.loads(str(said)), dict):
            yield "", None, f"env_args is {str(said)[:60]!r}; expected an object"
    except ValueError as error:
        yield "", None, f"env_args is no JSON: {error}"


@rule("empty-filter", ERROR, "A filter names no episode.", "split again: poise data split")
def empty_filter(log: Log) -> Found:
    yield from (("", None, f"{name} is empty") for name, members in log.filters.items() if not members)


@rule("unknown-member", ERROR, "A filter names an episode that is not there.", "episodes were deleted after the split")
def unknown_member(log: Log) -> Found:
    names = {e.name for e in log.episodes}
    for name, members in log.filters.items():
        yield from (("", None, f"{name} names {m}") for m in members if m not in names)


@rule("filter-twice", WARNING, "A filter names an episode twice.", "it counts twice in every batch")
def filter_twice(log: Log) -> Found:
    for name, members in log.filters.items():
        yield from (("", None, f"{name} names {m} {n} times") for m, n in Counter(members).items() if n > 1)


def held_out(log: Log) -> list[tuple[str, str]]:
    """Pairs of filters of which one is held out from the other."""
    pairs = []
    for name in log.filters:
        for a, b in (("train", "valid"), ("train", "test"), ("train", "val")):
            if name.endswith(a) and (other := name.removesuffix(a) + b) in log.filters:
                pairs.append((name, other))
    return pairs


@rule("leakage", ERROR, "An episode is both learned from and held out.", "split again: poise data split")
def leakage(log: Log) -> Found:
    for a, b in held_out(log):
        if both := sorted(set(log.filters[a]) & set(log.filters[b])):
            yield both[0], None, f"{len(both)} episodes are in both {a} and {b}"
