"""One task, two engines: what a world of the device's engine does, the CPU's does too.

    check_engines("reach/fr3", steps=20)

The same keys and actions on both; what is drawn is equal to float32's rounding, and states, observations and rewards
stay within the tolerances for a stated number of control steps. After a contact two simulations in different
precision part for good, so the tolerance is of the median world, and the worst may be further off where told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from poise.sim.make import Randomize, make

DRAWN = 2e-6  # relative: float32


@dataclass(frozen=True)
class Tolerance:
    """Largest differences after the given control steps, of the median and of the worst world."""

    median: float = 1e-3
    worst: float = 1e-2


def check_engines(task: Any, steps: int = 20, num_envs: int = 4, randomize: Randomize = "default",
                  tolerance: Tolerance | None = None, seed: int = 3, size: float = 0.5) -> None:  # fmt: skip
    """Play the same episodes on both engines; `size`: how large the random actions are."""
    tolerance = tolerance or Tolerance()
    ours = make(task, num_envs, seed, randomize, threads=1)
    theirs = make(task, num_envs, seed, randomize, engine="warp", device="cpu")
    try:
        close(ours.reset(seed), theirs.reset(seed), Tolerance(2e-5, 2e-5), "the first observation")
        equal_draws(ours.params, theirs.params)
        actions = torch.rand(steps, num_envs, ours.spec.action_dim, generator=torch.Generator().manual_seed(seed))
        for i, action in enumerate(size * (2.0 * actions - 1.0)):
            a, b = ours.step(action), theirs.step(action)
            close(a.next_obs, b.next_obs, tolerance, f"the observation after step {i + 1}")
            close({"": a.reward[:, None]}, {"": b.reward[:, None]}, tolerance, f"the reward of step {i + 1}")
            for name in ("terminated", "truncated", "success"):
                same = getattr(a, name), getattr(b, name)
                assert (same[0] is None) == (same[1] is None), name
                assert same[0] is None or torch.equal(*same), f"{name} at step {i + 1}: {same[0]} and {same[1]}"
        close_states(ours.engine, theirs.engine, tolerance)
    finally:
        ours.close()
        theirs.close()


def equal_draws(ours: Mapping[str, np.ndarray], theirs: Mapping[str, torch.Tensor]) -> None:
    """What differs in an episode is the same on both."""
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_allclose(theirs[name].numpy(), values, rtol=DRAWN, atol=1e-7, err_msg=name)


def close(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], tolerance: Tolerance,
          what: str) -> None:  # fmt: skip
    """Observations (N, dim) of N worlds, in their own units."""
    assert ours.keys() == theirs.keys()
    for group in ours:
        away = (ours[group] - theirs[group]).abs().amax(1)  # (N,)
        assert away.median() <= tolerance.median, f"{what}, {group}: the median world is {away.median():.2g} off"
        assert away.max() <= tolerance.worst, f"{what}, {group}: world {int(away.argmax())} is {away.max():.2g} off"


def close_states(ours: Any, theirs: Any, tolerance: Tolerance) -> None:
    """Positions and velocities."""
    for name in ("qpos", "qvel"):
        a = {name: torch.from_numpy(np.ascontiguousarray(getattr(ours, name), np.float32))}
        close(a, {name: getattr(theirs, name)}, tolerance, "the state")
