"""Demonstrations beside an online run's own experience: `poise train sac --demos FILE`.

Every batch is in part demonstrations and in part replay, `demo_share` of it the former (symmetric sampling at 0.5;
RLPD: Ball et al. 2023, arXiv 2302.02948, sec. 4.1), so that a reward which chance never finds is in every update from
the first on. The worlds give what is new; the demonstrations stay as they are.

Demonstrations fit a run whose task sees, does and rewards what theirs did: what differs is named and refused. Files of
our own layout say all of this; of the other layouts the sizes are compared, and the rewards are the user's affair.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..address import split_options
from ..datasets.file_hash import sha256
from ..datasets.log import Log
from ..datasets.mix import Mix
from ..datasets.offline import OfflineDataset, load, split_filter
from ..datasets.open_log import open_log
from ..errors import DatasetError, RunError, SpecError, UsageError
from ..spec import Spec

SHARE = "demo_share"  # the setting that an algorithm has which takes demonstrations

Files = Sequence[str | os.PathLike[str]]


def require_takes_demos(algorithm: str, settings: Any) -> None:
    """Raise UsageError unless the algorithm with these settings learns from batches in part of other origin."""
    if not hasattr(settings, SHARE):
        raise UsageError(f"{algorithm} does not take --demos: sac, sac/demos, sac/large and sac/pixels do, which "
                         f"learn from any experience; to learn from demonstrations alone, see poise fit")  # fmt: skip


def demonstrations(files: Files, task: str, spec: Spec, device: torch.device) -> OfflineDataset:
    """The episodes of FILE or FILE:FILTER, of any layout, as a source of batches for a run of `task`.

    Raises:
        DatasetError: a file cannot be read, or lacks what learning from rewards needs.
        SpecError: what it shows or does is not what the task shows or takes, with every difference.
    """
    for file in files:
        with open_log(split_filter(file)[0]) as log:
            _require_fit(log, task, spec.for_policy_file())
    return load(files, task=spec.for_policy_file(), device=device)


def mixed(buffer: Any, data: OfflineDataset, share: float) -> Mix:
    """A source where a replay was: `share` of every batch from `data`, the rest from the replay."""
    return Mix([buffer, data], [1.0 - share, share])


def record(files: Files) -> list[dict[str, str]]:
    """What config.json keeps of the files: where they are, the filter, and the hash."""
    found = []
    for file in files:
        path, name = split_filter(file)
        found.append({"file": str(Path(path).resolve()), "filter": name, "sha256": sha256(Path(path))})
    return found


def recorded(config: Mapping[str, Any]) -> list[str]:
    """The files that a run's config.json names, to be given to `demonstrations` again."""
    return [f"{entry['file']}:{entry['filter']}" if entry["filter"] else entry["file"]
            for entry in config.get("demos", ())]  # fmt: skip


def require_unchanged(config: Mapping[str, Any]) -> None:
    """Raise RunError where a file is gone or is not to the bit what the run began with."""
    for entry in config.get("demos", ()):
        try:
            now = sha256(Path(entry["file"]))
        except DatasetError as error:
            raise RunError(f"the run learns from demonstrations that are not there any more: {error}") from None
        if now != entry["sha256"]:
            raise RunError(f"{entry['file']} has changed since the run began (SHA-256 was {entry['sha256'][:12]}…, is "
                           f"{now[:12]}…); put the old file back, or start a new run with the new one")  # fmt: skip


def _require_fit(log: Log, task: str, spec: Spec) -> None:
    if "poise_spec" not in log.attributes:
        return
    own = Spec.from_json(str(log.attributes["poise_spec"])).for_policy_file()
    if lines := spec.diff(own):
        raise SpecError(f"the demonstrations in {log.path} do not fit {task}:\n  " + "\n  ".join(lines))
    theirs = _task_of(log)
    if theirs and _rewarded(theirs) != _rewarded(task):
        raise DatasetError(
            f"{log.path} holds episodes of {theirs}, with its rewards; the run is on {task}, whose "
            f"rewards differ: collect demonstrations there (poise data collect OUT --task {task})"
        )


def _task_of(log: Log) -> str:
    try:
        return str(json.loads(str(log.attributes.get("env_args", "{}"))).get("env_name", ""))
    except (ValueError, AttributeError):
        return ""


def _rewarded(task: str) -> tuple[str, str]:
    """What decides a task's rewards: its name, and which of its rewards was asked for."""
    name, options = split_options(task)
    return name.removeprefix("gym:"), options.get("reward", "dense")
