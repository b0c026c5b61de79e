"""`poise data from-run`: what an online run did, as a file of demonstrations.

The newest checkpoint of a run folder holds the replay; datasets/replay_log.py makes episodes of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.episodes import EpisodeWriter, environment
from ..datasets.log import Episode
from ..datasets.replay_log import replay_log
from ..errors import RunError
from ..sim.make import make
from .checkpoint import read_manifest
from .run_folder import read_config


@dataclass(frozen=True)
class Written:
    """What was written, and what there is to say of it."""

    out: Path
    episodes: int
    steps: int
    return_mean: float | None  # of the episodes that are whole
    notes: tuple[str, ...]


def write_run(run_dir: str | os.PathLike[str], out: str | os.PathLike[str], first: int | None = None) -> Written:
    """Write the replay of a run to the new file `out`: all that it keeps, or of the run's first `first` steps.

    Raises:
        RunError: no run there, or one without a replay.
        DatasetError: the file exists, the disk refuses it, or the replay has none of these steps any more.
    """
    folder = Path(run_dir)
    config = read_config(folder)
    manifest = read_manifest(folder / "checkpoint")
    if "segments" not in manifest["buffer"]:
        raise RunError(f"{folder} is a run of {config['algorithm']}, which keeps no replay; runs of sac and dqn do")
    env = make(config["task"], 1)
    env.close()
    log = replay_log(folder / "checkpoint", manifest["buffer"], env.spec, first)
    origin = {"run": config, "steps": manifest["info"]["steps"], "first": first}
    with EpisodeWriter(out, log.attributes["poise_spec"], environment(config["task"]), origin) as writer:
        for episode in log.episodes:
            whole = {"cut", "beginning_lost"}.isdisjoint(episode.attributes)
            writer.add(_arrays(episode), ("whole",) if whole else (), **episode.attributes)
    returns = [e.attributes["episode_return"] for e in log.episodes
               if {"cut", "beginning_lost"}.isdisjoint(e.attributes)]  # fmt: skip
    mean = float(np.mean(returns)) if returns else None
    return Written(Path(out), len(log.episodes), log.steps, mean, log.notes)


def _arrays(episode: Episode) -> Mapping[str, Any]:
    """The columns as the writer of our layout takes them."""
    found: dict[str, Any] = {"obs": {}, "next_obs": {}}
    for name, column in episode.columns.items():
        group, _, key = name.rpartition("/")
        (found[group] if group else found)[key] = column[:]
    return found
