"""The Spec of a log: which of its keys make which observation group.

A mapping is plain data, group -> keys in order, and travels in the Spec's terms: the keys of a flat group lie side by
side in the order given, a camera is a group of its own. What a file does not say of a quantity is `unknown` in the
Spec, and a robot refuses such a policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import DatasetError
from ..spec import ActionTerm, ObsTerm, Spec
from .log import Log

ObsMapping = Mapping[str, Sequence[str]]


def default_mapping(log: Log) -> dict[str, list[str]]:
    """All flat keys of `obs` in alphabetical order as `state`; every camera as the group of its name."""
    columns = {key: log.episodes[0].columns[f"obs/{key}"] for key in log.episodes[0].keys("obs")}
    flat = sorted(key for key, column in columns.items() if column.dtype != np.uint8 or len(column.shape) != 4)
    cameras = sorted(set(columns) - set(flat))
    return ({"state": flat} if flat else {}) | {key: [key] for key in cameras}


def spec_of(log: Log, mapping: ObsMapping | None = None) -> Spec:
    """The Spec of a log's observations, by `mapping`, and of its actions; its own where the file carries one.

    Raises:
        DatasetError: the log is empty, or the mapping names a key that it lacks.
    """
    if not log.episodes:
        raise DatasetError(f"{log.path} holds no episode")
    if "poise_spec" in log.attributes and mapping is None:
        return Spec.from_json(str(log.attributes["poise_spec"]))
    first = log.episodes[0]
    groups: dict[str, tuple[ObsTerm, ...]] = {}
    for group, keys in (mapping or default_mapping(log)).items():
        if missing := [key for key in keys if f"obs/{key}" not in first.columns]:
            raise DatasetError(f"{log.path} has no observation {missing[0]!r}; it has {', '.join(first.keys('obs'))}")
        groups[group] = tuple(_term(key, first.columns[f"obs/{key}"], log) for key in keys)
    size = int(np.prod(first.columns["actions"].shape[1:]))
    action = ActionTerm("actions", "unknown", low=(-1.0,) * size, high=(1.0,) * size)
    return Spec(groups, (action,), control_dt=_control_dt(log))


def _term(key: str, column, log: Log) -> ObsTerm:
    image = column.dtype == np.uint8 and len(column.shape) == 4
    return ObsTerm(key, tuple(column.shape[1:]), dtype="uint8" if image else "float32")


def _control_dt(log: Log) -> float:
    """Seconds between actions, as the file's environment says; 1 where it does not."""
    arguments = json.loads(str(log.attributes.get("env_args", "{}"))).get("env_kwargs", {})
    return 1.0 / float(arguments["control_freq"]) if "control_freq" in arguments else 1.0
