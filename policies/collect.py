"""Collecting demonstrations: episodes of an expert or a policy in simulation, written as they end.

    for each round:      every world plays one episode, whose number is its key
        each step:       act -> noise -> env.step -> keep
    in order of number:  write, unless only successes are wanted and it failed

The number decides an episode's start, dynamics and noise, so in Poise's own tasks a file depends on the seed alone and
not on how many worlds made it. Noise on what is executed, with the clean action beside it (`actions_asked`), shows a
learner how the expert comes back from where it would never go (DART, Laskey 2017, arXiv 1703.09327).

Legend: N worlds, T steps of an episode, A action.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Step
from ..datasets.episodes import Episode, EpisodeFile, EpisodeWriter, environment
from ..errors import DatasetError, UsageError
from ..keyed import Stream
from ..sim.make import make
from ..sim.task_env import TaskEnv
from ..sim.vec_env import VecEnv
from ..spec import Spec
from .evaluate import require_same_spec
from .expert_policy import ExpertPolicy, watch
from .policy import load_policy
from .run_folder import describe_machine

Arrays = dict[str, np.ndarray]

WORLDS = 64  # at most, of a round
MOST_TRIED = 20  # episodes tried for each success wanted, before giving up


@dataclass(frozen=True)
class Collected:
    """What a collection left."""

    out: Path
    episodes: int  # written
    tried: int
    steps: int  # written
    return_mean: float  # of what was written
    success_rate: float | None  # of what was tried


class RandomPolicy:
    """Actions drawn uniformly, for a data set to compare others with."""

    def __init__(self, spec: Spec, seed: int):
        if spec.discrete:
            raise UsageError("random actions are drawn for continuous actions; this task has discrete ones")
        self.spec, self._stream = spec, Stream(seed, "collect/random")
        self.provenance: dict[str, Any] = {}
        self.begin(np.zeros(0, int))

    def begin(self, numbers: np.ndarray) -> None:
        """The episodes of these numbers (N,) begin: an episode's actions follow from its number."""
        self._numbers, self._steps = numbers, 0

    def initial_state(self, n: int) -> Mapping[str, Tensor]:
        return {}

    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Actions (N, 1, A)."""
        drawn = self._stream.uniform(self._numbers, 0, self.spec.action_dim, self._steps)
        self._steps += 1
        return torch.from_numpy(2.0 * drawn - 1.0).float()[:, None], state


def collect(
    task: str,
    out: str | os.PathLike[str],
    policy: str = "expert",
    episodes: int = 50,
    *,
    noise: float = 0.0,
    randomize: Any = "none",
    only_success: bool = False,
    num_envs: int = 0,
    seed: int = 0,
    threads: int = 0,
    append: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Collected:
    """Write `episodes` episodes of `task` to the file `out`, a new one unless `append`.

    policy: expert, random, or a policy file.
    noise: standard deviation of what is added to every action before it is clipped to [-1, 1] and executed.
    only_success: write none but successful episodes, and go on until there are enough.
    append: where `out` is there, go on after its last episode, as if it had been collected in one go; it must be of the
        same task, seed and randomization.

    Raises:
        UsageError: the task has no expert or defines no success where that is needed, or too few episodes succeed.
        DatasetError: the file exists, or cannot be appended to, or the disk refuses it.
    """
    if episodes < 1 or noise < 0.0 or num_envs < 0:
        raise UsageError(f"episodes {episodes}, noise {noise:g}, worlds {num_envs}: expected at least one episode, and "
                         f"neither noise nor worlds below 0")  # fmt: skip
    env = make(task, num_envs or min(episodes, WORLDS), seed, randomize, threads)
    try:
        first = _first(out, seed, randomize) if append and os.path.exists(out) else 0
        acting = _policy(policy, task, env, seed)
        origin = {"task": task, "policy": policy, "trained": acting.provenance, "noise": noise, "seed": seed,
                  "randomize": randomize, "only_success": only_success, **describe_machine(threads)}  # fmt: skip
        returns, lengths, successes = [], [], []
        with EpisodeWriter(out, env.spec, environment(task), origin, append) as writer:
            for number, episode, success in _episodes(env, acting, noise, seed, first):
                if success is None and only_success:
                    raise UsageError(f"{task} does not say what success is: leave out --only-success")
                successes.append(success)
                if success or not only_success:
                    returns.append(float(np.sum(episode["rewards"], dtype=np.float64)))
                    lengths.append(len(episode["rewards"]))
                    known = {} if success is None else {"success": success}
                    filters = ("success",) if success else ()
                    writer.add(episode, filters, episode_seed=number, episode_return=returns[-1], **known)
                    if progress is not None:
                        progress(1)
                if len(returns) == episodes:
                    break
                if len(successes) >= MOST_TRIED * episodes:
                    raise UsageError(f"{len(returns)} of {len(successes)} episodes succeeded, {episodes} were asked "
                                     f"for: {out} keeps those; a better policy or less noise gives more")  # fmt: skip
    finally:
        env.close()
    rate = None if successes[0] is None else float(np.mean(successes))
    return Collected(Path(out), len(returns), len(successes), sum(lengths), float(np.mean(returns)), rate)


def _first(out: str | os.PathLike[str], seed: int, randomize: Any) -> int:
    """The number after the last of a file's episodes."""
    with EpisodeFile(out) as file:
        for name, given in (("seed", seed), ("randomize", randomize)):
            if (found := file.provenance.get(name)) != given:
                raise DatasetError(f"{out} was collected with {name} {found}, by which its episodes replay; append "
                                   f"with the same, not with {given}, or collect to a new file")  # fmt: skip
        return 1 + max((int(e.attributes.get("episode_seed", -1)) for e in file.log.episodes), default=-1)


def _policy(name: str, task: str, env: VecEnv, seed: int) -> Any:
    if name == "random":
        return RandomPolicy(env.spec, seed)
    chosen = ExpertPolicy(task) if name == "expert" else load_policy(name)
    if name != "expert":
        require_same_spec(chosen.spec, env.spec, task)
    watch(chosen, env)
    return chosen


def _episodes(env: VecEnv, policy: Any, noise: float, seed: int,
              first: int) -> Iterator[tuple[int, Episode, bool | None]]:  # fmt: skip
    """(number, episode, success) without end, in order of their numbers from the first on."""
    played = first
    while True:
        numbers = played + np.arange(env.num_envs)
        played += env.num_envs
        if isinstance(env, TaskEnv):
            obs = env.reset(seed, numbers)
        else:
            obs = env.reset(int(Stream(seed, "collect").integer(int(numbers[0]), 0)[0]))
        columns, counts = _round(env, policy, noise, seed, numbers, obs)
        for world, number in enumerate(numbers):
            episode: Episode = {"obs": {}, "next_obs": {}}
            for name, values in columns.items():
                group, _, key = name.rpartition("/")
                (episode[group] if group else episode)[key] = values[counts[:, world], world]
            success = episode.pop("success", None)
            yield int(number), episode, None if success is None else bool(success[-1])


def _round(env: VecEnv, policy: Any, noise: float, seed: int, numbers: np.ndarray, obs: Any) -> tuple[Arrays, Any]:
    """Columns (T, N, …) until the first episode of every world has ended, and which steps belong to it, (T, N)."""
    stream, state = Stream(seed, "collect/noise"), policy.initial_state(env.num_envs)
    if isinstance(policy, RandomPolicy):
        policy.begin(numbers)
    running = np.ones(env.num_envs, bool)
    rows: list[dict[str, Any]] = []
    counted: list[np.ndarray] = []
    while running.any():
        chunk, state = policy.act({g: x.cpu() for g, x in obs.items()}, state)
        asked = chunk[:, 0].numpy(force=True)
        asked = action = asked if env.spec.discrete else asked.astype(np.float32)  # as the file will have it
        if noise:
            drawn = stream.normal(numbers, 0, asked.shape[1], len(rows))
            action = np.clip(asked + noise * drawn, -1.0, 1.0).astype(np.float32)
        states = _states(env)
        step = env.step(torch.from_numpy(action).to(env.device))
        counted.append(running if step.mask is None else running & step.mask.numpy(force=True))
        rows.append(_row(obs, step, asked, action, states))
        running = running & ~(counted[-1] & step.done.numpy(force=True))
        obs = step.obs
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}, np.stack(counted)


def _row(obs: Any, step: Step, asked: np.ndarray, action: np.ndarray, states: np.ndarray | None) -> Arrays:
    """Every column (N, …) of one step."""
    row = {f"obs/{group}": x for group, x in obs.items()} | {
        f"next_obs/{group}": x for group, x in step.next_obs.items()
    }
    row |= {"rewards": step.reward, "terminations": step.terminated, "truncations": step.truncated}
    if step.success is not None:
        row["success"] = step.success
    arrays = {name: x.numpy(force=True) for name, x in row.items()} | {"actions": action, "actions_asked": asked}
    return arrays if states is None else arrays | {"states": states}


def _states(env: VecEnv) -> np.ndarray | None:
    """time, qpos and qvel of every world side by side (N, 1 + nq + nv), as robosuite's logs have them."""
    if not isinstance(env, TaskEnv):
        return None
    now = env.steps[:, None] * env.spec.control_dt
    return np.concatenate([now, env.engine.qpos, env.engine.qvel], axis=1)
