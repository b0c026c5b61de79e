"""A replay as a log of episodes: what an online run did, as demonstrations that any layout's writer takes.

    log = replay_log(folder, manifest, spec)        the checkpoint's folder, what its manifest says of the replay
    log = replay_log(folder, manifest, spec, first=100_000)

Worlds run side by side in a replay (replay.py); here each world's stream is cut where an episode ended, and episodes
follow each other by the step they began at. Every number is the replay's, successors included. What the replay has of
an episode may be a part of it, and the episode's attributes say so:

    beginning_lost   steps before its first were overwritten by newer ones
    cut              it was still going on when the replay was saved, or at step `first`; its last step is marked
                     truncated, which it was not: no more is known of it, and the value goes on

The filter `whole` holds the others.

Legend: N worlds, K transitions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..batch import Batch, Sample
from ..errors import DatasetError, RunError, UsageError
from ..spec import Spec
from .episodes import FORMAT
from .log import Episode, Log
from .replay import Replay
from .segments import manifest_contents

PARTS = {"cut", "beginning_lost"}  # attributes of episodes that are not whole


def replay_log(folder: Path, manifest: Mapping[str, Any], spec: Spec, first: int | None = None) -> Log:
    """The transitions of a saved replay as episodes, of the run's first `first` steps over all worlds where told.

    spec: the task's; the log has those of its observation groups that the replay keeps.

    Raises:
        RunError: a file of the replay is missing or damaged, or is not of such a Spec.
        DatasetError: the replay keeps none of the steps asked for.
    """
    if first is not None and first < 1:
        raise UsageError(f"first = {first}: expected at least 1 step")
    kept = _kept_spec(folder, manifest, spec)
    replay = _restored(folder, manifest, kept)
    if replay.num_rows == 0:
        raise DatasetError(f"the replay in {folder} holds no transition yet")
    batch = replay.sample(Sample(0), np.random.default_rng(0))  # all, in order of (step, world)
    assert batch.rows is not None
    keys = batch.rows.numpy()
    if first is not None:
        keys = keys[keys < first]
    if len(keys) == 0:
        raise DatasetError(f"the replay in {folder} holds steps {int(batch.rows[0])} to {int(batch.rows[-1])} of the "
                           f"run, none of its first {first}: newer ones took their place (capacity)")  # fmt: skip
    columns, worlds, ended = _columns(batch, len(keys)), keys % replay.num_envs, batch.done[: len(keys)].numpy()
    pieces = sorted((piece for world in range(replay.num_envs)
                     for piece in _pieces(np.flatnonzero(worlds == world), keys, ended, replay.num_envs)),
                    key=lambda rows: int(keys[rows[0]]))  # fmt: skip
    oldest = int(batch.rows[0]) // replay.num_envs
    episodes = [_episode(i, rows, columns, keys, ended, replay.num_envs, oldest) for i, rows in enumerate(pieces)]
    filters = {"all": episodes, "whole": [e for e in episodes if PARTS.isdisjoint(e.attributes)]}
    named = {name: tuple(e.name for e in members) for name, members in filters.items() if members}
    attributes = {"poise_format": FORMAT, "poise_spec": json.dumps(kept.to_json())}
    return Log(folder, "replay", episodes, attributes, named, notes=_notes(episodes))


def _kept_spec(folder: Path, manifest: Mapping[str, Any], spec: Spec) -> Spec:
    """The Spec of single frames of what the replay's files hold."""
    _, segments = manifest_contents(folder, manifest)
    if not segments:
        raise DatasetError(f"the replay in {folder} holds no transition yet")
    try:
        with safe_open(folder / segments[-1]["file"], framework="numpy") as file:
            names = [name.removeprefix("obs.") for name in file.keys() if name.startswith("obs.")]  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot read {folder / segments[-1]['file']}, which the checkpoint names: {error}") from None
    if unknown := [name for name in names if name not in spec.observations]:
        raise RunError(f"the replay in {folder} holds the observation group {unknown[0]!r}, which the task has not; it "
                       f"has {', '.join(spec.observations)}")  # fmt: skip
    frames = {group: tuple(replace(term, history=1) for term in terms)
              for group, terms in spec.observations.items() if group in names}  # fmt: skip
    return Spec(frames, spec.actions, spec.control_dt, spec.action_horizon, spec.robot, spec.notes)


def _restored(folder: Path, manifest: Mapping[str, Any], spec: Spec) -> Replay:
    try:
        num_envs, rows = int(manifest["num_envs"]), int(manifest["rows"])
    except (KeyError, TypeError, ValueError):
        raise RunError(f"the checkpoint in {folder} holds no replay: its learner learns from its newest steps "
                       f"alone") from None  # fmt: skip
    replay = Replay(spec, num_envs, num_envs * rows)
    replay.load(folder, {**manifest, "priorities": None})
    return replay


def _columns(batch: Batch, count: int) -> dict[str, np.ndarray]:
    """(K, …) of the first `count` transitions, by our layout's names."""
    tensors = {f"obs/{group}": x for group, x in batch.obs.items()}
    tensors |= {f"next_obs/{group}": x for group, x in batch.next_obs.items()}
    tensors |= {"actions": batch.action, "rewards": batch.reward, "terminations": batch.terminated.byte(),
                "truncations": batch.truncated.byte()}  # fmt: skip
    return {name: x[:count].numpy() for name, x in tensors.items()}


def _pieces(rows: np.ndarray, keys: np.ndarray, ended: np.ndarray, num_envs: int) -> list[np.ndarray]:
    """The rows of one world, in order, cut behind every end and wherever a step is missing."""
    if len(rows) == 0:
        return []
    apart = ended[rows[:-1]] | (np.diff(keys[rows]) != num_envs)
    return np.split(rows, np.flatnonzero(apart) + 1)


def _episode(index: int, rows: np.ndarray, columns: Mapping[str, np.ndarray], keys: np.ndarray, ended: np.ndarray,
             num_envs: int, oldest: int) -> Episode:  # fmt: skip
    found = {name: column[rows] for name, column in columns.items()}
    start = int(keys[rows[0]])
    attributes: dict[str, Any] = {"world": start % num_envs, "first_step": start}
    if start // num_envs == oldest and oldest > 0:
        attributes["beginning_lost"] = True
    if not ended[rows[-1]]:
        found["truncations"][-1] = 1
        attributes["cut"] = True
    attributes["episode_return"] = float(found["rewards"].sum(dtype=np.float64))
    found["dones"] = found["terminations"] | found["truncations"]
    return Episode(f"demo_{index}", found, attributes)


def _notes(episodes: list[Episode]) -> tuple[str, ...]:
    notes = []
    for name, what in (("cut", "were still going on: their last step is marked truncated"),
                       ("beginning_lost", "may lack their beginning, which newer steps have overwritten")):  # fmt: skip
        if marked := [e.name for e in episodes if name in e.attributes]:
            notes.append(f"{len(marked)} of {len(episodes)} episodes {what}: {', '.join(marked[:4])}"
                         f"{' …' if len(marked) > 4 else ''}")  # fmt: skip
    return tuple(notes)
