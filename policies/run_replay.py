"""`poise data from-run`: what an online run did, as a file of demonstrations.

The newest checkpoint of a run folder holds the replay; datasets/replay_log.py makes episodes of it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..datasets.convert import new_path
from ..datasets.episodes import environment
from ..datasets.layouts import robomimic
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
    with new_path(Path(out)) as hidden:
        log = replay_log(folder / "checkpoint", manifest["buffer"], env.spec, first)
        origin = {"run": config, "steps": manifest["info"]["steps"], "first": first}
        told = {"env_args": json.dumps(environment(config["task"])), "poise_provenance": json.dumps(origin)}
        robomimic.write(hidden, replace(log, attributes={**log.attributes, **told}))
    whole = [e.attributes["episode_return"] for e in log.filtered("whole")] if "whole" in log.filters else []
    return Written(Path(out), len(log.episodes), log.steps, float(np.mean(whole)) if whole else None, log.notes)
