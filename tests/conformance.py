"""Contracts as functions that any implementation can borrow.

    check_vec_env(make_env)    sim/vec_env.py: N worlds of a task, whatever simulates them

They use nothing but the contract, so a test of your own simulator is one line: check_vec_env(lambda n: MyEnv(n)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from poise.batch import Step
from poise.sim.vec_env import VecEnv
from poise.spec import Spec


@dataclass
class _Run:
    """What a stretch of an env gave, and the same tensors cloned the moment they were handed out."""

    first: Mapping[str, Tensor]
    steps: list[Step]
    kept: list[Any]  # clones, in the order of steps

    def world(self, w: int) -> list[Any]:
        """Everything that world w saw."""
        return [_rows(self.first, w)] + [_rows(_plain(s), w) for s in self.steps]


def check_vec_env(make_env: Callable[[int], VecEnv], longest: int = 300) -> None:
    """Check an implementation of VecEnv; `make_env(n)` gives a new env of n worlds.

    longest: control steps to play; an env whose episodes are longer is not checked at their ends.
    """
    env = make_env(3)
    limit = env.max_episode_steps
    steps = max(limit + 4, min(3 * limit + 4, longest)) if 0 < limit <= longest else min(longest, 100)
    actions = _actions(env.spec, 3, steps, 0)

    run = _play(env, 7, actions)
    _check_spec(env, run)
    _check_successors(env, run, limit)
    again = _play(env, 7, actions)
    assert _same(_all(run), _all(again)), "the same env under the same seed gave another trajectory"
    fresh = make_env(3)
    assert _same(_all(run), _all(_play(fresh, 7, actions))), "a fresh env under the same seed gave another trajectory"
    other = _play(fresh, 8, actions)  # its first observations alone may be the same: some games open like that
    assert not _same(_all(run), _all(other)), "another seed gave the same trajectory"
    assert _same([_plain(s) for s in run.steps], run.kept), "a tensor handed out was overwritten by a later step"
    fresh.close()

    _check_worlds_are_independent(make_env, run, actions)
    _check_state(make_env, env, actions)
    env.close()


def _check_spec(env: VecEnv, run: _Run) -> None:
    n = env.num_envs
    for obs in (run.first, *(o for s in run.steps for o in (s.obs, s.next_obs))):
        env.spec.check(obs=obs)
        for group, terms in env.spec.observations.items():
            x = obs[group]
            assert x.shape[0] == n, f"{group}: shape {tuple(x.shape)} for {n} worlds"
            assert x.dtype == getattr(torch, terms[0].dtype), f"{group}: {x.dtype}, the spec says {terms[0].dtype}"
            assert x.device.type == env.device.type
            assert torch.isfinite(x.float()).all(), f"{group} is not finite"
    for s in run.steps:
        assert s.reward.shape == (n,) and s.reward.dtype == torch.float32 and torch.isfinite(s.reward).all()
        for flag in (s.terminated, s.truncated, s.success, s.mask):
            assert flag is None or (flag.shape == (n,) and flag.dtype == torch.bool)


def _check_successors(env: VecEnv, run: _Run, limit: int) -> None:
    """next_obs is obs but where an episode ended; the time limit truncates and does not terminate."""
    lengths, at_limit = [0] * env.num_envs, []
    for s in run.steps:
        real = s.mask if s.mask is not None else torch.ones_like(s.terminated)
        for w in range(env.num_envs):
            lengths[w] += bool(real[w])
            same = _same(_rows(s.obs, w), _rows(s.next_obs, w))
            if not s.done[w]:
                assert same, f"world {w}: obs differs from next_obs in the middle of an episode"
                assert not limit or lengths[w] < limit, f"world {w}: no end after {lengths[w]} of {limit} steps"
                continue
            assert real[w], f"world {w}: an episode ended at a step that is no transition"
            if limit and lengths[w] == limit:
                at_limit.append(bool(s.truncated[w] and not s.terminated[w]))
            lengths[w] = 0
    # one such end alone may be a true end of the task that fell on the last step
    assert len(at_limit) < 2 or any(at_limit), "the time limit must give truncated, not terminated"


def _check_worlds_are_independent(make_env: Callable[[int], VecEnv], run: _Run, actions: list[Tensor]) -> None:
    alone = make_env(1)
    assert _same(run.world(0), _play(alone, 7, [a[:1] for a in actions]).world(0)), "world 0 alone played differently"
    alone.close()
    others = make_env(3)
    changed = _actions(others.spec, 3, len(actions), 1)
    for mine, theirs in zip(changed, actions, strict=True):
        mine[2] = theirs[2]
    disturbed = _play(others, 7, changed)
    assert _same(run.world(2), disturbed.world(2)), "world 2 depends on what other worlds do"
    for w in range(3):
        first, other = _second_episode(run, w), _second_episode(disturbed, w)
        assert first is None or other is None or _same(first, other), (
            f"world {w}: the first observation of an episode depends on the episode before it"
        )
    others.close()


def _second_episode(run: _Run, w: int) -> Any:
    """The observation that world w's second episode begins with, or None where it was not reached."""
    for i, s in enumerate(run.steps):
        if s.done[w] and not _same(_rows(s.obs, w), _rows(s.next_obs, w)):
            return _rows(s.obs, w)
        if i and s.mask is not None and not s.mask[w]:
            return _rows(s.obs, w)
    return None


def _check_state(make_env: Callable[[int], VecEnv], env: VecEnv, actions: list[Tensor]) -> None:
    """A saved env goes on to the bit in a fresh one, from the middle of an episode and from behind its end."""
    for cut in sorted({len(actions) // 3, len(actions) - 2}):
        _play(env, 5, actions[:cut])
        saved = env.state_dict()
        _check_leaves(saved)
        frozen = _frozen(saved)
        expected = [_plain(env.step(a)) for a in actions[cut:]]
        assert _same(frozen, _frozen(saved)), "a state_dict changed when the env went on"
        fresh = make_env(env.num_envs)
        obs = fresh.load_state_dict(saved)
        env.spec.check(obs=obs)
        went_on = [_plain(fresh.step(a)) for a in actions[cut:]]
        assert _same(expected, went_on), f"restored at step {cut}, a fresh env went on differently"
        fresh.close()


# ---- helpers -----------------------------------------------------------------------------------


def _actions(spec: Spec, n: int, steps: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if spec.discrete:
        return [torch.randint(spec.actions[0].n, (n, 1), generator=generator) for _ in range(steps)]
    return [torch.rand(n, spec.action_dim, generator=generator) * 2 - 1 for _ in range(steps)]


def _play(env: VecEnv, seed: int, actions: list[Tensor]) -> _Run:
    first = env.reset(seed)
    run = _Run({k: v.clone() for k, v in first.items()}, [], [])
    for action in actions:
        run.steps.append(env.step(action))
        run.kept.append(_clone(_plain(run.steps[-1])))
    assert _same(first, run.first), "the first observations were overwritten by a later step"
    return run


def _all(run: _Run) -> list[Any]:
    return [run.first, run.kept]


def _plain(step: Step) -> dict[str, Any]:
    return {f.name: getattr(step, f.name) for f in fields(step) if getattr(step, f.name) is not None}


def _clone(x: Any) -> Any:
    return {k: _clone(v) for k, v in x.items()} if isinstance(x, Mapping) else x.clone()


def _rows(x: Any, w: int) -> Any:
    return {k: _rows(v, w) for k, v in x.items()} if isinstance(x, Mapping) else x[w].clone()


def _same(a: Any, b: Any) -> bool:
    """Equality to the bit, all the way down."""
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if hasattr(a, "tobytes"):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def _frozen(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {k: _frozen(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_frozen(v) for v in x]
    return x.clone() if isinstance(x, Tensor) else x.copy() if hasattr(x, "tobytes") and hasattr(x, "copy") else x


def _check_leaves(x: Any, where: str = "state_dict") -> None:
    """Arrays, tensors and JSON data only: nothing that would need pickle."""
    if isinstance(x, Mapping):
        for key, value in x.items():
            assert isinstance(key, str), f"{where} has a key that is no string: {key!r}"
            _check_leaves(value, f"{where}[{key!r}]")
    elif isinstance(x, list):
        for i, value in enumerate(x):
            _check_leaves(value, f"{where}[{i}]")
    else:
        array = isinstance(x, Tensor) or (hasattr(x, "tobytes") and x.dtype != object)
        assert array or x is None or isinstance(x, bool | int | float | str), f"{where} is a {type(x).__name__}"
