"""Contracts of Learner and Policy as functions that any implementation can borrow.

    check_learner(make, folder)    policies/learner.py: `make(spec, num_envs, seed)` gives a new learner with small sizes
    check_policy(policy, folder)   policies/policy.py: torch, numpy and the file agree

A test of your own algorithm is one line: check_learner(lambda spec, n, seed: Mine(spec, MyConfig(), n, seed), tmp_path).
The worlds it can learn in: Drift (a vector, continuous actions), DiscreteDrift, ImageDrift (a camera with a history
beside the velocity), DiscreteImageDrift (the camera alone), chosen with `world=`.
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
from poise.policies.network_document import groups_read
from poise.policies.onnx_export import OnnxPolicy
from poise.policies.onnx_graph import onnx_model
from poise.policies.policy import Policy
from poise.policies.runner import Runner
from poise.spec import ActionTerm, ObsTerm, Spec

WORLDS, ITERATIONS = 4, 6  # of check_learner
ROWS, STEPS = 5, 4  # of check_policy


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
        return self.observe(self._x)

    def step(self, action: Tensor) -> Step:
        velocity = 0.9 * self._x[:, 2:] + 0.3 * self.push(action)
        after = torch.cat([self._x[:, :2] + 0.3 * velocity, velocity], 1)
        self._t = self._t + 1
        terminated = after[:, :2].abs().amax(1) > 2.5
        truncated = (self._t >= 7) & ~terminated
        done = terminated | truncated
        fresh = torch.randn(WORLDS, 4, generator=self._generator)
        self._x, self._t = torch.where(done[:, None], fresh, after), torch.where(done, 0, self._t)
        reward = -after[:, :2].square().sum(1)
        return Step(self.observe(self._x), self.observe(after), reward, terminated, truncated)

    def push(self, action: Tensor) -> Tensor:
        """The push (N, 2) that an action means."""
        assert action.shape == (WORLDS, 2) and action.dtype == torch.float32 and action.abs().max() <= 1.0
        return action

    def observe(self, x: Tensor) -> dict[str, Tensor]:
        """What is seen of positions and velocities (N, 4)."""
        return {"state": x}


class DiscreteDrift(Drift):
    """Drift with five pushes to choose from: none, and one in each direction."""

    spec = Spec(Drift.spec.observations, (ActionTerm("push", "discrete", n=5),), control_dt=0.1)

    def push(self, action: Tensor) -> Tensor:
        assert action.shape == (WORLDS, 1) and action.dtype == torch.int64
        return torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])[action[:, 0]]


CAMERA = (ObsTerm("picture", (12, 12, 1), "camera", dtype="uint8", history=2),)


class ImageDrift(Drift):
    """Drift whose position is seen by a camera only, in two frames: a bright spot of 3 x 3 pixels."""

    spec = Spec({"state": (ObsTerm("velocity", (2,)),), "camera": CAMERA}, Drift.spec.actions, control_dt=0.1)

    def observe(self, x: Tensor) -> dict[str, Tensor]:
        centre = ((x[:, :2].clamp(-2.5, 2.5) + 2.5) * 2.2).round()[:, :, None]  # (N, 2, 1) pixels from 0 to 11
        near = (torch.arange(12) - centre).abs() <= 1  # (N, 2, 12)
        picture = (near[:, 0, :, None] & near[:, 1, None, :]).to(torch.uint8) * 255
        return {"state": x[:, 2:], "camera": picture[..., None]}


class DiscreteImageDrift(DiscreteDrift):
    """DiscreteDrift of which there is the camera alone, as on an arcade screen."""

    spec = Spec({"camera": CAMERA}, DiscreteDrift.spec.actions, control_dt=0.1)

    def observe(self, x: Tensor) -> dict[str, Tensor]:
        return {"camera": ImageDrift.observe(self, x)["camera"]}  # type: ignore[arg-type]


class _Training:
    """The loop of policies/train.py, with nothing around it."""

    def __init__(self, make: Callable[[Spec, int, int], Learner], seed: int, world: type[Drift]):
        self.learner = make(world.spec, WORLDS, seed)
        self.buffer = self.learner.make_buffer()
        self.rng = np.random.default_rng(seed)
        self.env = world()
        self.obs, self.state, self.steps = self.env.reset(seed), self.learner.initial_state(WORLDS), 0
        self.updates = 0

    def iterate(self, times: int) -> None:
        for _ in range(times):
            for _ in range(self.learner.collect_steps):
                action, extras, self.state = self.learner.act(self.obs, self.state)
                assert not action.requires_grad
                assert all(len(x) == WORLDS and not x.requires_grad for x in extras.values())
                step = self.env.step(action)
                self.buffer.add(self.obs, action, extras, step)
                self.state = restart(self.state, step.ended, self.learner.initial_state(WORLDS))
                self.obs, self.steps = step.obs, self.steps + WORLDS
            for _ in range(self.learner.updates_due(self.steps)):
                batch = self.buffer.sample(self.learner.request, self.rng)
                metrics = self.learner.update(batch)
                if "priorities" in metrics:
                    self.buffer.set_priorities(batch.rows, metrics.pop("priorities"))
                self.updates += 1
                assert metrics and all(v.ndim == 0 and torch.isfinite(v) for v in metrics.values()), metrics


def check_learner(make: Callable[[Spec, int, int], Learner], folder: Path, world: type[Drift] = Drift,
                  iterations: int = ITERATIONS) -> None:  # fmt: skip
    """Check an implementation of Learner; `make` should use sizes so small that so many iterations learn something."""
    torch.manual_seed(1)
    one = _Training(make, 3, world)
    start = _weights(one.learner)
    one.iterate(iterations)
    assert one.updates > 0, f"{iterations} iterations made no update; make the learner with smaller sizes"
    assert not _same(start, _weights(one.learner)), "updates changed nothing of the policy"

    torch.manual_seed(2)
    two = _Training(make, 3, world)
    two.iterate(iterations)
    assert _same(_weights(one.learner), _weights(two.learner)), "the same seed gave other weights: a global generator?"
    other = _Training(make, 4, world)
    assert not _same(start, _weights(other.learner)), "another seed gave the same first weights"

    kept = one.learner.policy()
    before = {k: t.clone() for k, t in kept.tensors.items()}
    save_checkpoint(folder / "checkpoint", {"learner": one.learner.state_dict()}, one.buffer, {})
    three = _Training(make, 5, world)  # another seed: everything must come from the checkpoint
    state, _ = load_checkpoint(folder / "checkpoint", three.buffer)
    three.learner.load_state_dict(state["learner"])
    three.env, three.obs, three.state, three.rng = two.env, two.obs, two.state, two.rng
    three.steps = two.steps
    assert _same(_weights(one.learner), _weights(three.learner)), "load_state_dict did not restore the policy"
    one.iterate(iterations)
    three.iterate(iterations)
    assert _same(_weights(one.learner), _weights(three.learner)), "a restored learner went another way"
    assert _same(before, kept.tensors), "policy() is no copy: later updates changed it"

    check_policy(one.learner.policy(), folder)


def check_policy(policy: Policy, folder: Path) -> None:
    """Check a Policy over several steps: shapes, bounds, determinism, rows on their own, starting anew; and that the
    file, the numpy runner and the exported ONNX model act as it does."""
    generator = torch.Generator().manual_seed(0)
    spec, initial = policy.spec, policy.initial_state(ROWS)
    frames = [_random_obs(spec, generator) for _ in range(STEPS)]
    copies = [{g: x.clone() for g, x in obs.items()} for obs in frames]
    chunks, state = _play(policy, frames, initial)
    for chunk in chunks:
        assert chunk.shape == (ROWS, spec.action_horizon, spec.action_dim)
        if spec.discrete:
            assert chunk.dtype == torch.int64 and chunk.min() >= 0 and chunk.max() < spec.choices
        else:
            assert chunk.dtype == torch.float32 and torch.isfinite(chunk).all() and chunk.abs().max() <= 1.0
    assert set(state) == set(initial) and all(len(x) == ROWS for x in state.values())
    assert all(x.dtype == state[k].dtype and x.shape == state[k].shape for k, x in initial.items())
    assert all(_same(a, b) for a, b in zip(frames, copies, strict=True)), "act wrote into its observations"
    assert _same(initial, policy.initial_state(ROWS)), "act wrote into its state"
    assert torch.equal(chunks, _play(policy, frames, initial)[0]), "the policy is not deterministic"
    for i in range(ROWS):
        single, _ = _play(
            policy, [{g: x[i : i + 1] for g, x in obs.items()} for obs in frames], policy.initial_state(1)
        )
        _close(single, chunks[:, i : i + 1], 1e-6, "a row depends on the others")
    far, _ = policy.act({g: x if x.dtype == torch.uint8 else 1e6 * x for g, x in frames[0].items()}, initial)
    assert torch.isfinite(far).all() and (spec.discrete or far.abs().max() <= 1.0), "far observations: out of range"

    done = torch.arange(ROWS) < 2
    anew, _ = _play(policy, frames, restart(state, done, initial))
    _close(anew[:, :2], chunks[:, :2], 1e-6, "a restarted row remembers what came before")

    path = folder / "conformance.safetensors"
    policy.save(path)
    assert torch.equal(_play(Policy.load(path), frames, initial)[0], chunks), "the file acts otherwise"
    runner = Runner.load(path)
    arrays = [{g: x.numpy() for g, x in obs.items()} for obs in frames]
    ours, after = _play(runner, arrays, runner.initial_state(ROWS))
    _close(torch.from_numpy(np.stack(ours)), chunks, 1e-6, "the numpy runner acts otherwise")
    assert {k: (x.shape, str(x.dtype)) for k, x in after.items()} == {
        k: (tuple(x.shape), str(x.dtype).removeprefix("torch.")) for k, x in state.items()
    }, "the numpy runner carries another state"
    assert runner.spec == spec

    model = OnnxPolicy(onnx_model(policy.file()).SerializeToString())
    seen = [{g: obs[g] for g in groups_read(policy.network)} for obs in arrays]
    exported, after = _play(model, seen, model.initial_state(ROWS))
    _close(torch.from_numpy(np.stack(exported)), chunks, 1e-5, "the ONNX model acts otherwise")
    for name, x in state.items():
        _close(torch.from_numpy(after[name]), x, 1e-5, f"the ONNX model carries another {name}")


def _random_obs(spec: Spec, generator: torch.Generator) -> dict[str, Tensor]:
    """One frame of everything a policy may see: normal numbers, pictures of noise."""
    vectors = {g: torch.randn(ROWS, spec.obs_dim(g), generator=generator) for g in spec.vectors}
    pictures = {g: torch.randint(0, 256, (ROWS, *spec.obs_shape(g)), generator=generator, dtype=torch.uint8)
                for g in spec.images}  # fmt: skip
    return {**vectors, **pictures}


def _play(policy: Any, frames: list[Any], state: Any) -> tuple[Any, Any]:
    """The chunks (T, B, H, A) of a policy, or a list of a runner's, and its last state."""
    chunks = []
    for obs in frames:
        chunk, state = policy.act(obs, state)
        chunks.append(chunk)
    return torch.stack(chunks) if isinstance(policy, Policy) else chunks, state


def _close(ours: Tensor, theirs: Tensor, tolerance: float, message: str) -> None:
    """Equal choices, or numbers up to `tolerance`."""
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0, msg=lambda text: f"{message}: {text}")


def _weights(learner: Learner) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in learner.policy().tensors.items()}


def _same(a: Any, b: Any) -> bool:
    return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)
