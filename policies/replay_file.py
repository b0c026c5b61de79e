"""Replaying a demonstration: a recorded episode back in its simulator, and how far the two part.

    states    the world is put into every recorded state, and its task says reward and success there
    actions   the recorded actions alone, open loop, from where the episode began

Divergence of a step is the largest difference between what the file has of its successor (`next_obs`, or the next
step's `obs`) and what the simulator shows. Open loop it grows where another version, another model or another machine
made the file; in Poise's own tasks, whose episodes follow from seed and number, it is zero.

Legend: T steps, A action.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.log import Episode, Log
from ..datasets.log_spec import action_bounds
from ..datasets.open_log import open_log
from ..errors import DatasetError, UsageError
from ..sim.make import make
from ..sim.recorded import Moment, Recorded, Start, recorded
from ..sim.render import choose_backend, write_video
from ..spec import Spec

MODES = ("states", "actions")
STARTS = ("initial_state/", "init_state_dict/")  # attributes of an episode: the state that it began in, by names


@dataclass(frozen=True)
class Replayed:
    """One episode, recorded and replayed. Rewards that are not known are NaN."""

    episode: str
    mode: str
    rewards: np.ndarray  # (T,) replayed
    recorded_rewards: np.ndarray | None  # (T,)
    success: np.ndarray | None  # (T,) bool, replayed
    divergence: Mapping[str, np.ndarray]  # key or "states" -> (T + 1,) from the start on; NaN where one side is unknown
    beyond: int | None  # the first step, of 1 to T, or 0 for the start, that diverges by more than the tolerance
    notes: tuple[str, ...] = field(default=())

    @property
    def first_success(self) -> int | None:
        """The first step, of 1 to T, after which the task was solved."""
        return None if self.success is None or not self.success.any() else int(np.argmax(self.success)) + 1

    @property
    def largest(self) -> dict[str, float]:
        """The largest divergence of everything that both sides know."""
        return {key: float(np.nanmax(d)) for key, d in self.divergence.items() if not np.isnan(d).all()}

    @property
    def returns(self) -> tuple[float | None, float | None]:
        """Sum of the rewards recorded and replayed, over the steps that both know."""
        known, told = np.isfinite(self.rewards), self.recorded_rewards
        if not known.any():
            return None, None
        return None if told is None else float(told[known].sum()), float(self.rewards[known].sum())


def replay(
    file: str | os.PathLike[str],
    task: str | None = None,
    episodes: list[str] | None = None,
    mode: str | None = None,
    *,
    layout: str | None = None,
    tolerance: float = 1e-5,
    video: str | os.PathLike[str] | None = None,
) -> list[Replayed]:
    """Replay episodes of a demonstration file in `task`, by default the one that the file names.

    mode: states or actions; by default states where the file holds them.
    tolerance: from where on a difference counts.
    video: an mp4 of all of it.

    Raises:
        DatasetError: the file does not say where its episodes began, or its states are another simulator's.
        UsageError: no task is named, or there is no such mode.
    """
    if mode not in (None, *MODES):
        raise UsageError(f"mode {mode!r}: expected states or actions")
    with open_log(file, layout) as log:
        origin = _origin(log)
        name = task or task_of(log)
        env = _world(name, origin, video is not None)
        try:
            chosen = [log[e] for e in episodes] if episodes else list(log.episodes)
            if not chosen:
                raise DatasetError(f"{log.path} holds no episode")
            done: list[Replayed] = []
            pictures = _played((_Play(log, e, env, origin, mode, tolerance) for e in chosen), done, video is not None)
            if video is None:
                for _ in pictures:
                    pass
            else:
                write_video(Path(video), pictures, fps=1.0 / env.spec.control_dt)
            return done
        finally:
            env.close()


def task_of(log: Log) -> str:
    """The task that a file was made in, as Poise names it.

    Raises:
        UsageError: the file names none.
    """
    if task := _origin(log).get("task"):
        return str(task)
    told = _json(log, "env_args") or _json(log, "env_info")
    name, arguments = told.get("env_name"), told.get("env_kwargs", told)
    robots = arguments.get("robots") if isinstance(arguments, dict) else None
    robot = robots[0] if isinstance(robots, list) and len(robots) == 1 else robots
    if name and isinstance(robot, str):
        shaped = f"robosuite:{name}/{robot}?reward_shaping={str(bool(arguments.get('reward_shaping'))).lower()}"
        frequency = arguments.get("control_freq")
        return f"{shaped}&control_freq={frequency}" if frequency else shaped
    raise UsageError(f"{log.path} does not say which task it is of; tell it by --task")


class _Play:
    def __init__(self, log: Log, episode: Episode, env: Any, origin: Mapping[str, Any], mode: str | None,
                 tolerance: float):  # fmt: skip
        self.log, self.episode, self.env, self.tolerance = log, episode, env, tolerance
        if "actions" not in episode.columns:
            raise DatasetError(f"{log.path}: {episode.name} has no actions to replay")
        self.states = _states(episode)
        self.mode = mode or ("actions" if self.states is None else "states")
        if self.mode == "states" and self.states is None:
            raise DatasetError(f"{log.path}: {episode.name} has no states; --mode actions needs only the first")
        self.actions, self.notes = _actions(log, episode)
        seed, number = origin.get("seed"), episode.attributes.get("episode_seed")
        key = None if seed is None or number is None else (int(seed), int(number))
        self.world: Recorded = recorded(env, key)
        self._moments: list[Moment | None] = []
        self.compared = _compared(episode, env.spec)
        if rest := [k for k in episode.keys("obs") if k not in self.compared]:
            self.notes.append(
                f"{', '.join(rest)}: the task shows nothing of that name and size, and it is not compared"
            )

    def run(self) -> Iterator[None]:
        """Play it, with a stop at the start and after every step; then `result` tells of it."""
        self._moments = [self.world.begin(_start(self.episode, self.states))]
        yield
        for t, action in enumerate(self.actions):
            self._moments.append(last := self._moment(t, action))
            yield
            if self.mode == "actions" and last is not None and last.ended and t + 1 < len(self.actions):
                self.notes.append(f"{self.episode.name}: the task ended after {t + 1} of {len(self.actions)} steps")
                break

    def _moment(self, t: int, action: np.ndarray) -> Moment | None:
        if self.mode == "actions" or self.states is None:
            return self.world.step(action)
        return self.world.follow(self.states[t], action, self.states[t + 1] if t + 1 < len(self.states) else None)

    def result(self) -> Replayed:
        moments, steps = self._moments, len(self.actions)
        rewards = np.full(steps, np.nan)
        success = np.zeros(steps, bool)
        told = False
        for t, moment in enumerate(moments[1:]):
            if moment is not None:
                rewards[t] = moment.reward
                success[t], told = bool(moment.success), told or moment.success is not None
        divergence = self._divergence(moments)
        worst = np.fmax.reduce([np.nan_to_num(d, nan=0.0) for d in divergence.values()] or [np.zeros(steps + 1)])
        far = np.flatnonzero(worst > self.tolerance)
        column = self.episode.columns.get("rewards")
        recorded_rewards = None if column is None else np.asarray(column[:], np.float64).reshape(steps)
        return Replayed(self.episode.name, self.mode, rewards, recorded_rewards, success if told else None, divergence,
                        int(far[0]) if len(far) else None, tuple(self.notes))  # fmt: skip

    def _divergence(self, moments: list[Moment | None]) -> dict[str, np.ndarray]:
        steps, found = len(self.actions), {}
        for key, (group, part) in self.compared.items():
            theirs = _successors(self.episode, key, steps)
            d = np.full(steps + 1, np.nan)
            for t, moment in enumerate(moments):
                if moment is not None:
                    d[t] = np.abs(theirs[t] - moment.obs[group].reshape(-1)[part]).max(initial=0.0)
            found[key] = d
        if self.states is not None and self.mode == "actions":
            d = np.full(steps + 1, np.nan)
            for t, moment in enumerate(moments[:steps]):
                if moment is not None and moment.state is not None and moment.state.shape == self.states[t].shape:
                    d[t] = np.abs(self.states[t] - moment.state)[1:].max()
            found["states"] = d
        return found


def _played(plays: Iterator[_Play], done: list[Replayed], drawn: bool) -> Iterator[np.ndarray]:
    """Pictures of all plays where they are wanted, one at a time; the results are added to `done`."""
    for play in plays:
        for _ in play.run():
            if drawn:
                yield play.world.frame()
        done.append(play.result())


def _world(name: str, origin: Mapping[str, Any], drawn: bool) -> Any:
    if drawn:
        choose_backend()
    randomize = origin.get("randomize", "none")
    if drawn and name.startswith("gym:"):
        from ..sim.gymnasium_adapter import make_gym

        return make_gym(name.removeprefix("gym:"), 1, render_mode="rgb_array")
    return make(name, 1, int(origin.get("seed", 0)), randomize, threads=1)


def _origin(log: Log) -> dict[str, Any]:
    return _json(log, "poise_provenance")


def _json(log: Log, attribute: str) -> dict[str, Any]:
    try:
        found = json.loads(str(log.attributes.get(attribute, "{}")))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _states(episode: Episode) -> np.ndarray | None:
    """(T, 1 + nq + nv)"""
    columns = episode.columns
    if "states" in columns:
        return np.asarray(columns["states"][:], np.float64)
    if "infos/qpos" in columns and "infos/qvel" in columns:
        qpos, qvel = (np.asarray(columns[f"infos/{name}"][:], np.float64) for name in ("qpos", "qvel"))
        return np.concatenate([np.zeros((len(qpos), 1)), qpos, qvel], axis=1)
    return None


def _start(episode: Episode, states: np.ndarray | None) -> Start | None:
    """Where the episode began; a state by names says more than one of joints alone."""
    for prefix in STARTS:
        named = {k.removeprefix(prefix): np.asarray(v) for k, v in episode.attributes.items() if k.startswith(prefix)}
        if {"qpos", "qvel"} <= named.keys():
            return named
    return None if states is None or len(states) == 0 else states[0]


def _actions(log: Log, episode: Episode) -> tuple[np.ndarray, list[str]]:
    """(T, A) float32 in [-1, 1]."""
    given = np.asarray(episode.columns["actions"][:])
    if np.issubdtype(given.dtype, np.integer):
        return given.reshape(len(given), -1).astype(np.int64), []
    given = given.reshape(len(given), -1).astype(np.float32)
    if (bounds := action_bounds(log)) is not None:
        low, high = bounds
        given = (2.0 * (given - low) / (high - low) - 1.0).astype(np.float32)
    if not np.isfinite(given).all():
        raise DatasetError(f"{log.path}: {episode.name} has actions that are not finite")
    beyond = int((np.abs(given) > 1.0).any(axis=1).sum())
    notes = [f"{episode.name}: {beyond} of {len(given)} actions lie beyond ±1 and are clipped"] if beyond else []
    return np.clip(given, -1.0, 1.0), notes


def _compared(episode: Episode, spec: Spec) -> dict[str, tuple[str, slice]]:
    """Key of the file -> group and slice of what the task shows: groups of its name, else terms, else the only one."""
    sizes = {key: int(np.prod(episode.columns[f"obs/{key}"].shape[1:])) for key in episode.keys("obs")}
    parts = {g: (g, slice(0, int(np.prod(spec.obs_shape(g))))) for g in spec.observations}
    for group in spec.observations:
        at = 0
        for term in spec.observations[group]:
            parts.setdefault(term.name, (group, slice(at, at + term.size)))
            at += term.size
    found = {k: parts[k] for k, n in sizes.items() if k in parts and parts[k][1].stop - parts[k][1].start == n}
    if not found and len(sizes) == 1 and len(spec.observations) == 1:
        (key, size), (group,) = next(iter(sizes.items())), spec.observations
        whole = parts[group]
        return {key: whole} if whole[1].stop == size else {}
    return found


def _successors(episode: Episode, key: str, steps: int) -> np.ndarray:
    """(T + 1, dim): what the file shows at the start and after every step, NaN where it does not."""
    obs = np.asarray(episode.columns[f"obs/{key}"][:], np.float64).reshape(steps, -1)
    after = np.full_like(obs, np.nan)
    after[:-1] = obs[1:]
    if f"next_obs/{key}" in episode.columns:
        after = np.asarray(episode.columns[f"next_obs/{key}"][:], np.float64).reshape(steps, -1)
    return np.concatenate([obs[:1], after])
