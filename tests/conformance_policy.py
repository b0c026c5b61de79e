"""Contracts of Learner and Policy as functions that any implementation can borrow.

    check_learner(make, folder)    policies/learner.py: `make(spec, num_envs, seed)` gives a new learner with small sizes
    check_policy(policy, folder)   policies/policy.py: torch, numpy and the file agree

A test of your own algorithm is one line: check_learner(lambda spec, n, seed: Mine(spec, MyConfig(), n, seed), tmp_path).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise.batch import Step
from poise.policies.checkpoint import load_checkpoint, save_checkpoint
from poise.policies.learner import Learner, restart
from poise.policies.policy import Policy
from poise.policies.runner import Runner
from poise.spec import ActionTerm, ObsTerm, Spec

WORLDS, ITERATIONS = 4, 6


class Drift:
    """A point that actions push about: episodes of seven steps that run out of time, or end early beyond a wall."""

    spec = Spec(
        {"state": (ObsTerm("position", (2,)), ObsTerm("velocity", (2,)))},
        (ActionTerm("push", "control", low=(-1.0, -1.0), high=(1.0, 1.0)),),
        control_dt=0.1,
    )
    num_envs, device, max_episode_steps = WORLDS, torch.device("cpu"), 7

    def reset(self, seed: int) -> dict[str, Tensor]:
        self._generator = torch.Generator().manual_seed(seed)
        self._x = torch.randn(WORLDS, 4, generator=self._generator)
        self._t = torch.arange(WORLDS)
        return {"state": self._x}

    def step(self, action: Tensor) -> Step:
        assert action.shape == (WORLDS, 2) and action.abs().max() <= 1.0
        velocity = 0.9 * self._x[:, 2:] + 0.3 * action
        after = torch.cat([self._x[:, :2] + 0.3 * velocity, velocity], 1)
        self._t = self._t + 1
        terminated = after[:, :2].abs().amax(1) > 2.5
        truncated = (self._t >= 7) & ~terminated
        done = terminated | truncated
        fresh = torch.randn(WORLDS, 4, generator=self._generator)
        self._x, self._t = torch.where(done[:, None], fresh, after), torch.where(done, 0, self._t)
        return Step({"state": self._x}, {"state": after}, -after[:, :2].square().sum(1), terminated, truncated)


class _Training:
    """The loop of policies/train.py, with nothing around it."""

    def __init__(self, make: Callable[[Spec, int, int], Learner], seed: int):
        self.learner = make(Drift.spec, WORLDS, seed)
        self.buffer = self.learner.make_buffer()
        self.rng = np.random.default_rng(seed)
        self.env = Drift()
        self.obs, self.state, self.steps = self.env.reset(seed), self.learner.initial_state(WORLDS), 0
        self.updates = 0

    def iterate(self, times: int) -> None:
        for _ in range(times):
            for _ in range(self.learner.collect_steps):
                action, extras, self.state = self.learner.act(self.obs, self.state)
                assert action.shape == (WORLDS, 2) and action.dtype == torch.float32 and not action.requires_grad
                assert all(len(x) == WORLDS and not x.requires_grad for x in extras.values())
                step = self.env.step(action)
                self.buffer.add(self.obs, action, extras, step)
                self.state = restart(self.state, step.done, self.learner.initial_state(WORLDS))
                self.obs, self.steps = step.obs, self.steps + WORLDS
            for _ in range(self.learner.updates_due(self.steps)):
                batch = self.buffer.sample(self.learner.request, self.rng)
                metrics = self.learner.update(batch)
                if "priorities" in metrics:
                    self.buffer.set_priorities(batch.rows, metrics.pop("priorities"))
                self.updates += 1
                assert metrics and all(v.ndim == 0 and torch.isfinite(v) for v in metrics.values()), metrics


def check_learner(make: Callable[[Spec, int, int], Learner], folder: Path) -> None:
    """Check an implementation of Learner; `make` should use sizes so small that six iterations learn something."""
    torch.manual_seed(1)
    one = _Training(make, 3)
    start = _weights(one.learner)
    one.iterate(ITERATIONS)
    assert one.updates > 0, "six iterations made no update; make the learner with smaller sizes"
    assert not _same(start, _weights(one.learner)), "updates changed nothing of the policy"

    torch.manual_seed(2)
    two = _Training(make, 3)
    two.iterate(ITERATIONS)
    assert _same(_weights(one.learner), _weights(two.learner)), "the same seed gave other weights: a global generator?"
    other = _Training(make, 4)
    assert not _same(start, _weights(other.learner)), "another seed gave the same first weights"

    kept = one.learner.policy()
    before = {k: t.clone() for k, t in kept.tensors.items()}
    save_checkpoint(folder / "checkpoint", {"learner": one.learner.state_dict()}, one.buffer, {})
    three = _Training(make, 5)  # another seed: everything must come from the checkpoint
    state, _ = load_checkpoint(folder / "checkpoint", three.buffer)
    three.learner.load_state_dict(state["learner"])
    three.env, three.obs, three.state, three.rng = two.env, two.obs, two.state, two.rng
    three.steps = two.steps
    assert _same(_weights(one.learner), _weights(three.learner)), "load_state_dict did not restore the policy"
    one.iterate(ITERATIONS)
    three.iterate(ITERATIONS)
    assert _same(_weights(one.learner), _weights(three.learner)), "a restored learner went another way"
    assert _same(before, kept.tensors), "policy() is no copy: later updates changed it"

    check_policy(one.learner.policy(), folder)


def check_policy(policy: Policy, folder: Path) -> None:
    """Check a Policy: shapes, bounds, determinism, and that file and numpy runner act as it does."""
    generator = torch.Generator().manual_seed(0)
    obs = {g: torch.randn(5, policy.spec.obs_dim(g), generator=generator) for g in policy.spec.observations}
    copies = {g: x.clone() for g, x in obs.items()}
    chunk, state = policy.act(obs, policy.initial_state(5))
    assert chunk.shape == (5, policy.spec.action_horizon, policy.spec.action_dim) and chunk.dtype == torch.float32
    assert torch.isfinite(chunk).all() and chunk.abs().max() <= 1.0
    assert set(state) == set(policy.initial_state(5)) and all(len(x) == 5 for x in state.values())
    assert _same(obs, copies), "act wrote into its observations"
    assert torch.equal(chunk, policy.act(obs, policy.initial_state(5))[0]), "the policy is not deterministic"
    single = torch.cat([policy.act({g: x[i : i + 1] for g, x in obs.items()}, policy.initial_state(1))[0]
                        for i in range(5)])  # fmt: skip
    torch.testing.assert_close(single, chunk, atol=1e-6, rtol=0, msg="a row depends on the others")
    far, _ = policy.act({g: 1e6 * x for g, x in obs.items()}, policy.initial_state(5))
    assert torch.isfinite(far).all() and far.abs().max() <= 1.0, "far observations give actions out of range"

    path = folder / "conformance.safetensors"
    policy.save(path)
    assert torch.equal(Policy.load(path).act(obs, policy.initial_state(5))[0], chunk), "the file acts otherwise"
    runner = Runner.load(path)
    ours, _ = runner.act({g: x.numpy() for g, x in obs.items()}, runner.initial_state(5))
    np.testing.assert_allclose(ours, chunk.numpy(), atol=1e-6, err_msg="the numpy runner acts otherwise")
    assert runner.spec == policy.spec


def _weights(learner: Learner) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in learner.policy().tensors.items()}


def _same(a: Any, b: Any) -> bool:
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)
