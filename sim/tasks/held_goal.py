"""HeldGoal: tasks whose goal has to be met at each of the last control steps, since to hold it is part of the task.

They remember under `held` for how many steps in a row it has been met. Legend: N worlds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from array_api_compat import array_namespace

from ..task import State


class HeldGoal:
    """An episode ends by time alone, and is a success where the goal was met at its last `success_steps` steps."""

    success_steps: ClassVar[int]

    def terminated(self, state: State) -> Any:
        """Never: to hold the goal is part of the task."""
        return state.memory["held"] < 0

    def success(self, state: State) -> Any:
        """The goal has been met at each of the last `success_steps` control steps."""
        return state.memory["held"] >= self.success_steps


def none_held(like: Any) -> Any:
    """`held` where episodes begin: (n,) zeros, beside an array (n, ...) of theirs."""
    xp = array_namespace(like)
    return xp.zeros(len(like), dtype=xp.int64, device=like.device)


def met(memory: Mapping[str, Any], now: Any) -> Any:
    """For how many control steps in a row the goal has been met, this one included where `now` (N,) says so."""
    return (memory["held"] + 1) * now
