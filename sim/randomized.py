"""Randomized: a Gymnasium environment on MuJoCo whose physics is drawn anew by every reset(seed).

Values are computed from the defaults of the environment's own model and written into it before the environment resets
itself, so an episode stays a function of its seed and its actions. What is not a number of a compiled model (a
payload, noise, delays: sim/whats.py) cannot be written into somebody else's simulator, and is refused by name.

No torch is loaded here: worker processes use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import mujoco

from ..errors import UsageError
from .dynamics import Dynamics, writable
from .models import Models
from .randomization import Randomization
from .whats import WHATS


class Randomized(gymnasium.Wrapper):
    """An environment whose `unwrapped.model` is a MuJoCo model."""

    def __init__(self, env: gymnasium.Env, randomization: Randomization, name: str):
        """name: of the environment, for errors.

        Raises:
            UsageError: it has no MuJoCo model, a term cannot be written into one, or names what this one does not have.
        """
        super().__init__(env)
        model = getattr(env.unwrapped, "model", None)
        if not isinstance(model, mujoco.MjModel):
            raise UsageError(f"{name} cannot be randomized: it is no MuJoCo environment; use randomize='none'")
        require_writable(randomization, name)
        self._models, self._dynamics = Models([model]), Dynamics(model, randomization)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        key = int(self.np_random.integers(2**31)) if seed is None else seed
        self._models.give(self._dynamics.fields(self._dynamics.draw(key, 0, 0)))
        return self.env.reset(seed=seed, options=options)


def randomized(env: gymnasium.Env, randomization: Mapping[str, Any] | None, name: str) -> gymnasium.Env:
    """The environment with a randomization's data, or as it is where there is none."""
    if not randomization or not randomization["terms"]:
        return env
    try:
        return Randomized(env, Randomization.from_json(randomization), name)
    except UsageError:
        env.close()
        raise


def require_writable(randomization: Randomization, name: str) -> None:
    """Refuse the terms that somebody else's simulator cannot take, by their names."""
    whats = {term.name: term.what for term in randomization.terms}
    if never := writable(randomization)[1]:
        can = ", ".join(what for what in WHATS if WHATS[what].family == "physics" and WHATS[what].compiled)
        raise UsageError(f"{name} cannot be given the randomization terms "
                         f"{', '.join(f'{term!r} ({whats[term]})' for term in never)}: its model is compiled and its "
                         f"readings and commands are its own; what can vary there: {can}")  # fmt: skip
