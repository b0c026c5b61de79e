"""The Spec of a log: which of its keys make which observation group, and what its actions range over.

A mapping is plain data, group -> keys in order:

    {"state": ["robot0_eef_pos", "robot0_gripper_qpos", "object"], "front": ["agentview_image"]}

The keys of a flat group lie side by side in the order given; a camera is a group of its own. Without a mapping every
flat key goes into `state`, in alphabetical order, and every camera becomes the group of its name; files of our own
layout hold groups already. The mapping travels in the Spec: the terms of a group are called after the keys, and where
the Spec is a task's, `notes["obs_map"]` keeps it. What a file does not say of a quantity is `unknown` in the Spec, and
a robot refuses such a policy.

Actions are in [-1, 1], except where a file's layout says what they range over (attributes `action_low` and
`action_high`, A numbers each): those are scaled there, as an action term of kind `control` is scaled back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError, SpecError, UsageError
from ..spec import UNKNOWN, ActionTerm, ObsTerm, Spec
from .log import Column, Log

ObsMapping = Mapping[str, Sequence[str]]


def parse_mapping(texts: Sequence[str]) -> dict[str, list[str]]:
    """The mapping told by some of `GROUP=KEY,KEY` or by one JSON file.

    Raises:
        UsageError: it is neither, or the file holds no such mapping.
    """
    if len(texts) == 1 and "=" not in texts[0]:
        try:
            found = json.loads(Path(texts[0]).read_text())
        except (OSError, ValueError) as error:
            raise UsageError(f"no mapping of observations can be read from {texts[0]}: {error}") from None
        well_formed = isinstance(found, dict) and all(
            isinstance(keys, list) and keys and all(isinstance(key, str) for key in keys) for keys in found.values()
        )
        if not well_formed or not found:
            raise UsageError(f"{texts[0]} should hold groups with lists of keys, "
                             'such as {"state": ["robot0_eef_pos", "object"]}')  # fmt: skip
        return found
    mapping: dict[str, list[str]] = {}
    for text in texts:
        group, _, keys = text.partition("=")
        if not group or not all(keys.split(",")):
            raise UsageError(f"{text!r} should be GROUP=KEY,KEY, such as state=robot0_eef_pos,object")
        mapping[group] = keys.split(",")
    return mapping


def default_mapping(log: Log) -> dict[str, list[str]]:
    """The groups of our own layout; else all flat keys of `obs` as `state`, and every camera as the group it is."""
    columns = {key: log.episodes[0].columns[f"obs/{key}"] for key in log.episodes[0].keys("obs")}
    if "poise_spec" in log.attributes:
        return {key: [key] for key in columns}
    cameras = sorted(key for key, column in columns.items() if is_image(column))
    flat = sorted(set(columns) - set(cameras))
    return ({"state": flat} if flat else {}) | {key: [key] for key in cameras}


def is_image(column: Column) -> bool:
    """Whether a column holds pictures: uint8 (T, height, width, channels)."""
    return column.dtype == np.uint8 and len(column.shape) == 4


def spec_of(log: Log, mapping: ObsMapping | None = None, task: Spec | None = None) -> Spec:
    """The Spec of a log's observations, by `mapping`, and of its actions; the task's, checked, where one is told.

    Raises:
        DatasetError: the log is empty, lacks a key of the mapping, or has another size than the task.
    """
    if not log.episodes:
        raise DatasetError(f"{log.path} holds no episode")
    chosen = mapping or default_mapping(log)
    if not chosen:
        raise DatasetError(f"{log.path} holds no observations; it has {', '.join(log.episodes[0].columns)}")
    groups = {group: _terms(log, group, keys) for group, keys in chosen.items()}
    if task is not None:
        return _of_task(log, chosen, groups, task)
    if mapping is None and "poise_spec" in log.attributes:
        return _own(log, groups)
    control_dt = _control_dt(log)
    notes = {} if control_dt else {"control_dt": UNKNOWN}
    return Spec(groups, (_action(log),), control_dt or 1.0, notes=notes)


def action_bounds(log: Log) -> tuple[np.ndarray, np.ndarray] | None:
    """(low, high) (A,) of the actions of a file in other units than [-1, 1], as its attributes say."""
    if "action_low" not in log.attributes or "action_high" not in log.attributes:
        return None
    low, high = (np.atleast_1d(np.asarray(log.attributes[name], np.float64)) for name in ("action_low", "action_high"))
    size = action_size(log)
    if low.shape != (size,) or high.shape != (size,) or not (np.isfinite(low) & np.isfinite(high) & (low < high)).all():
        raise DatasetError(f"{log.path}: action_low {low.tolist()} and action_high {high.tolist()} are no bounds of "
                           f"{size} numbers")  # fmt: skip
    return low, high


def action_size(log: Log) -> int:
    """A."""
    return int(np.prod(log.episodes[0].columns["actions"].shape[1:]))


def is_discrete(log: Log) -> bool:
    """Whether the actions are whole numbers by type, one a step."""
    return np.issubdtype(log.episodes[0].columns["actions"].dtype, np.integer) and action_size(log) == 1


def _own(log: Log, groups: Mapping[str, tuple[ObsTerm, ...]]) -> Spec:
    """The Spec that a file of our own layout carries, of the groups that are there."""
    own = Spec.from_json(str(log.attributes["poise_spec"]))
    if missing := [g for g in own.observations if g not in groups]:
        raise DatasetError(f"{log.path}: its spec has the observation group {missing[0]!r}, and its episodes do not")
    _same_sizes(log, groups, own, "its own spec")
    return own


def _of_task(log: Log, mapping: ObsMapping, groups: Mapping[str, tuple[ObsTerm, ...]], task: Spec) -> Spec:
    """The task's Spec, with the mapping in its notes, where the log gives what it asks for."""
    wanted = task.for_policy_file()
    if missing := [g for g in wanted.observations if g not in groups]:
        raise DatasetError(f"the task sees the observation group {missing[0]!r}, and {log.path} gives "
                           f"{', '.join(groups)}; say which keys make it, as in --obs {missing[0]}=KEY,KEY "
                           f"(there are {', '.join(log.episodes[0].keys('obs'))})")  # fmt: skip
    kept = task.only([g for g in task.observations if g in groups])
    _same_sizes(log, groups, kept, "the task")
    for group, terms in kept.observations.items():
        theirs, ours = [t.name for t in terms], [t.name for t in groups[group]]
        if theirs != ours and sorted(theirs) == sorted(ours):
            raise DatasetError(f"{log.path}: {group} has the keys {', '.join(ours)}, which the task has in another "
                               f"order; say --obs {group}={','.join(theirs)}")  # fmt: skip
    if log.episodes[0].columns.get("actions") is not None and action_size(log) != task.action_dim:
        raise DatasetError(f"{log.path} has actions of {action_size(log)} numbers, the task of {task.action_dim}")
    return replace(kept, notes={**task.notes, "obs_map": {g: list(keys) for g, keys in mapping.items()}})


def _same_sizes(log: Log, groups: Mapping[str, tuple[ObsTerm, ...]], spec: Spec, whose: str) -> None:
    for group in spec.observations:
        terms = groups[group]
        image = len(terms) == 1 and terms[0].dtype == "uint8"
        shape = terms[0].shape if image else (sum(t.size for t in terms),)
        if shape != spec.obs_shape(group):
            raise DatasetError(f"{log.path}: {group} is made of {', '.join(f'{t.name} {t.shape}' for t in terms)}, "
                               f"in all {shape}; {whose} has {spec.obs_shape(group)} there, of "
                               f"{', '.join(f'{t.name} {t.shape}' for t in spec.observations[group])}")  # fmt: skip


def _terms(log: Log, group: str, keys: Sequence[str]) -> tuple[ObsTerm, ...]:
    first = log.episodes[0]
    if missing := [key for key in keys if f"obs/{key}" not in first.columns]:
        raise DatasetError(f"{log.path} has no observation {missing[0]!r}; it has {', '.join(first.keys('obs'))}")
    columns = {key: first.columns[f"obs/{key}"] for key in keys}
    if len(keys) > 1 and (cameras := [key for key, column in columns.items() if is_image(column)]):
        raise DatasetError(
            f"{log.path}: {cameras[0]} is a camera, and a camera is a group of its own; "
            f"{group} should not hold it beside {', '.join(k for k in keys if k != cameras[0])}"
        )
    try:
        return tuple(ObsTerm(key, tuple(column.shape[1:]), dtype="uint8" if is_image(column) else "float32")
                     for key, column in columns.items())  # fmt: skip
    except SpecError as error:
        raise DatasetError(f"{log.path}: {error}") from None


def _action(log: Log) -> ActionTerm:
    first = log.episodes[0]
    if "actions" not in first.columns:
        raise DatasetError(f"{log.path} has no actions; {first.name} has {', '.join(first.columns)}")
    if is_discrete(log):
        most = max((int(np.max(e.columns["actions"][:])) for e in log.episodes if e.steps > 0), default=0)
        return ActionTerm("actions", "discrete", n=max(2, int(log.attributes.get("action_n", most + 1))))
    low, high = action_bounds(log) or (-np.ones(action_size(log)), np.ones(action_size(log)))
    return ActionTerm("actions", UNKNOWN, low=tuple(low.tolist()), high=tuple(high.tolist()))


def _control_dt(log: Log) -> float | None:
    """Seconds between actions, as the file's environment says."""
    if "control_dt" in log.attributes:
        return float(log.attributes["control_dt"])
    try:
        arguments: Any = json.loads(str(log.attributes.get("env_args", "{}")))
        frequency = float(arguments["env_kwargs"]["control_freq"])
    except (ValueError, TypeError, KeyError):
        return None
    return 1.0 / frequency if 0.0 < frequency < np.inf else None
