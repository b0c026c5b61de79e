"""Scoring a policy: fresh episodes, separate worlds, deterministic actions, never the training return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import SpecError, UsageError
from ..keyed import Stream
from ..sim.make import make
from ..sim.vec_env import VecEnv
from ..spec import Spec
from .expert_policy import watch
from .learner import restart
from .statistics import bootstrap_interval, iqm, mean, wilson_interval

MOST_WORLDS = 256


class Acts(Protocol):
    """A policy, as far as scoring it goes."""

    spec: Spec

    def initial_state(self, n: int) -> Mapping[str, Tensor]: ...

    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]: ...


@dataclass(frozen=True)
class Evaluation:
    """What a number of episodes gave; the success fields are None for a task that defines no success.

    `low` and `high` are the ends of 95 % intervals, over episodes: of the mean and the interquartile mean (iqm) by
    bootstrap, of the rate by Wilson. They say nothing about other seeds of training: `statistics.aggregate` does.
    """

    episodes: int
    return_mean: float
    return_low: float
    return_high: float
    return_iqm: float
    iqm_low: float
    iqm_high: float
    return_std: float
    return_min: float
    return_max: float
    length_mean: float
    success_rate: float | None
    success_low: float | None
    success_high: float | None
    seed: int
    returns: tuple[float, ...] = ()  # of every episode

    def to_json(self, returns: bool = False) -> dict[str, Any]:
        """As plain data, with every episode's return where that is asked for."""
        values = asdict(self)
        every = values.pop("returns")
        return {**values, "returns": list(every)} if returns else values


def evaluate(
    policy: Acts,
    task: str,
    episodes: int = 100,
    seed: int = 0,
    randomize: Any = "none",
    progress: Callable[[int], None] | None = None,
    threads: int = 0,
) -> Evaluation:
    """Score `policy` on `episodes` episodes of `task`, whose starts and dynamics follow from `seed` alone.

    Every world contributes its first episode of a round only, so that short episodes are not counted more often.

    Raises:
        SpecError: the policy's Spec is not the task's, with every difference.
    """
    if episodes < 1:
        raise UsageError(f"episodes = {episodes}: expected at least 1")
    env = make(task, num_envs=min(episodes, MOST_WORLDS), seed=seed, randomize=randomize, threads=threads)
    try:
        require_same_spec(policy.spec, env.spec, task)
        watch(policy, env)
        returns, lengths, successes = [], [], []
        rounds = -(-episodes // env.num_envs)
        for i in range(rounds):
            round_seed = int(Stream(seed, "evaluate").integer(i, 0)[0])
            r, n, s = run_round(policy, env, round_seed, progress)
            wanted = min(env.num_envs, episodes - i * env.num_envs)
            returns.append(r[:wanted])
            lengths.append(n[:wanted])
            if s is not None:
                successes.append(s[:wanted])
    finally:
        env.close()
    success = torch.cat(successes).numpy(force=True) if successes else None
    return _evaluation(torch.cat(returns).numpy(force=True), torch.cat(lengths).mean().item(), success, seed)


def _evaluation(returns: np.ndarray, length_mean: float, success: np.ndarray | None, seed: int) -> Evaluation:
    low, high = bootstrap_interval([returns], mean, seed)
    iqm_low, iqm_high = bootstrap_interval([returns], iqm, seed)
    rate = rate_low = rate_high = None
    if success is not None:
        rate = float(success.mean())
        rate_low, rate_high = wilson_interval(int(success.sum()), len(success))
    return Evaluation(
        episodes=len(returns),
        return_mean=float(returns.mean()),
        return_low=low,
        return_high=high,
        return_iqm=float(iqm(returns)),
        iqm_low=iqm_low,
        iqm_high=iqm_high,
        return_std=float(returns.std()),
        return_min=float(returns.min()),
        return_max=float(returns.max()),
        length_mean=length_mean,
        success_rate=rate,
        success_low=rate_low,
        success_high=rate_high,
        seed=seed,
        returns=tuple(returns.tolist()),
    )


def run_round(
    policy: Acts, env: VecEnv, seed: int, progress: Callable[[int], None] | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns (N,), lengths (N,) and successes (N,) or None of the first episode of every world."""
    obs, initial = env.reset(seed), policy.initial_state(env.num_envs)
    state = initial
    running = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    returns = torch.zeros(env.num_envs, dtype=torch.float64, device=env.device)
    lengths = torch.zeros(env.num_envs, dtype=torch.float64, device=env.device)
    success: Tensor | None = None
    while running.any():
        chunk, state = policy.act(_on_cpu(obs), state)
        step = env.step(chunk[:, 0].to(env.device))
        counts = running if step.mask is None else running & step.mask
        returns += torch.where(counts, step.reward.double(), 0.0)
        lengths += counts
        ended = counts & step.done
        if step.success is not None:
            success = torch.zeros_like(running) if success is None else success
            success |= ended & step.success
        running = running & ~ended
        obs, state = step.obs, restart(state, step.ended.cpu(), initial)
        if progress is not None and ended.any():
            progress(int(ended.sum()))
    return returns, lengths, success


def _on_cpu(obs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Where policies are, whatever device simulates."""
    return {group: values.cpu() for group, values in obs.items()}


def require_same_spec(policy: Spec, task: Spec, name: str) -> None:
    """Raise SpecError with every difference between what a policy expects and what a task offers.

    How many actions at a time it plans is the policy's own affair: here the first of each plan is carried out.
    """
    if lines := policy.diff(replace(task.for_policy_file(), action_horizon=policy.action_horizon)):
        raise SpecError(f"this policy does not fit {name}:\n  " + "\n  ".join(lines))
