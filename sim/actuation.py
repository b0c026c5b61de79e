"""Actuation: actions that go wrong on their way: noise, control steps that are skipped, and slack in the gears.

    action = clip(policy's action + noise, -1, 1), or the one before where the step is skipped
    slack of b: applied = clip(applied before, command - b / 2, command + b / 2)   (the play operator of hysteresis)

The task's reward and the policy's own record know the action that was asked for. The slack acts on what arrives, after
the latency. Legend: N worlds, n of them, A action, S substeps of a control period, U actuators, k of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from ..errors import UsageError
from .physics_terms import names_of
from .randomization import Randomization, Term, match
from .rows import columns, copied, fresh, restored, space, written, zeros
from .white import White

if TYPE_CHECKING:
    import torch

Params = Mapping[str, Any]


class ActionFaults:
    """What becomes of the actions of N worlds before they are commands."""

    def __init__(self, randomization: Randomization, num_envs: int, action_dim: int, white: White,
                 device: torch.device | None = None):  # fmt: skip
        terms = {what: [t for t in randomization.terms if t.what == what] for what in ("action_noise", "action_hold")}
        self._noise = [
            (t.name, white.normal(f"randomization/{t.name}/white", action_dim)) for t in terms["action_noise"]
        ]
        self._hold = [(t.name, white.uniform(f"randomization/{t.name}/white", 1)) for t in terms["action_hold"]]
        self._last = zeros((num_envs, action_dim), device)
        self.none = not (self._noise or self._hold)

    def apply(self, action: Any, steps: Any, params: Params) -> Any:
        """The action (N, A) that is executed at control step `steps` (N,)."""
        for name, white in self._noise:
            action = (action + params[name] * white.at(steps)).clip(-1.0, 1.0)
        for name, chance in self._hold:
            held = (chance.at(steps) < params[name]) & (steps > 0)[:, None]  # an episode's first action has none before
            action = space(action).where(held, self._last, action)
        self._last = action
        return action

    def state_dict(self) -> dict[str, Any]:
        return {"last": self._last}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._last = restored(state["last"], self._last)


class Backlash:
    """Position servos of N worlds whose gears have slack."""

    def __init__(self, model: mujoco.MjModel, randomization: Randomization, num_envs: int,
                 device: torch.device | None = None):  # fmt: skip
        terms = [(t, servos(model, t)) for t in randomization.terms if t.what == "backlash"]
        self._driven = {t.name: columns(rows, device) for t, rows in terms}
        self._applied = {t.name: zeros((num_envs, len(rows)), device) for t, rows in terms}
        self.none = not terms

    def begin(self, worlds: Any, command: Any) -> None:
        """Start in the middle of the slack, at command (n, U)."""
        for name, rows in self._driven.items():
            self._applied[name] = written(self._applied[name], worlds, command[:, rows])

    def apply(self, commands: Any, params: Params) -> Any:
        """What acts of commands (N, S, U), as a new array."""
        commands = fresh(commands)
        for name, rows in self._driven.items():
            half, applied = params[name] / 2.0, self._applied[name]
            for substep in range(commands.shape[1]):
                wanted = commands[:, substep, rows]
                applied = applied.clip(wanted - half, wanted + half)
                commands[:, substep, rows] = applied
            self._applied[name] = applied
        return commands

    def state_dict(self) -> dict[str, Any]:
        return {name: copied(applied) for name, applied in self._applied.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._applied = {name: restored(state[name], applied) for name, applied in self._applied.items()}


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
