"""Actuation: actions that go wrong on their way: noise, control steps that are skipped, and slack in the gears.

    action = clip(policy's action + noise, -1, 1), or the one before where the step is skipped
    slack of b: applied = clip(applied before, command - b / 2, command + b / 2)   (the play operator of hysteresis)

The task's reward and the policy's own record know the action that was asked for. The slack acts on what arrives, after
the latency. Legend: N worlds, n of them, A action, S substeps of a control period, U actuators, k of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np

from ..errors import UsageError
from .physics_terms import names_of
from .randomization import Randomization, Term, match
from .white import White

Params = Mapping[str, np.ndarray]


class ActionFaults:
    """What becomes of the actions of N worlds before they are commands."""

    def __init__(self, randomization: Randomization, num_envs: int, action_dim: int, white: White):
        terms = {what: [t for t in randomization.terms if t.what == what] for what in ("action_noise", "action_hold")}
        self._noise = [
            (t.name, white.normal(f"randomization/{t.name}/white", action_dim)) for t in terms["action_noise"]
        ]
        self._hold = [(t.name, white.uniform(f"randomization/{t.name}/white", 1)) for t in terms["action_hold"]]
        self._last = np.zeros((num_envs, action_dim))
        self.none = not (self._noise or self._hold)

    def apply(self, action: np.ndarray, steps: np.ndarray, params: Params) -> np.ndarray:
        """The action (N, A) that is executed at control step `steps` (N,)."""
        for name, white in self._noise:
            action = np.clip(action + params[name] * white.at(steps), -1.0, 1.0)
        for name, chance in self._hold:
            held = (chance.at(steps) < params[name]) & (steps > 0)[:, None]  # an episode's first action has none before
            action = np.where(held, self._last, action)
        self._last = action
        return action

    def state_dict(self) -> dict[str, Any]:
        return {"last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._last = np.array(state["last"])


class Backlash:
    """Position servos of N worlds whose gears have slack."""

    def __init__(self, model: mujoco.MjModel, randomization: Randomization, num_envs: int):
        terms = [(t, servos(model, t)) for t in randomization.terms if t.what == "backlash"]
        self._slack = [(t.name, rows, np.zeros((num_envs, len(rows)))) for t, rows in terms]
        self.none = not terms

    def begin(self, worlds: np.ndarray, command: np.ndarray) -> None:
        """Start in the middle of the slack, at command (n, U)."""
        for _, rows, applied in self._slack:
            applied[worlds] = command[:, rows]

    def apply(self, commands: np.ndarray, params: Params) -> np.ndarray:
        """What acts of commands (N, S, U), as a new array."""
        commands = commands.copy()
        for name, rows, applied in self._slack:
            half = params[name] / 2.0
            for substep in range(commands.shape[1]):
                wanted = commands[:, substep, rows]
                np.clip(applied, wanted - half, wanted + half, out=applied)
                commands[:, substep, rows] = applied
        return commands

    def state_dict(self) -> dict[str, Any]:
        return {name: applied.copy() for name, _, applied in self._slack}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, _, applied in self._slack:
            applied[:] = np.asarray(state[name])


def servos(model: mujoco.MjModel, term: Term) -> np.ndarray:
    """Indices of the named actuators.

    Raises:
        UsageError: one of them is commanded by force, where an angle of slack means nothing.
    """
    rows = np.array(match(term, names_of(model, "actuator")))
    for row in rows[model.actuator_biasprm[rows, 1] == 0]:
        raise UsageError(f"randomization term {term.name!r}: actuator {model.actuator(row).name!r} takes no position; "
                         "slack is between a commanded position and the applied one")  # fmt: skip
    return rows
