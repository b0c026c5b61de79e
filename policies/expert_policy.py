"""ExpertPolicy: a task's scripted expert where a policy is expected, as in `poise eval expert --task lift/fr3`.

An expert reads the true state of the worlds, not the observations: whoever plays episodes lets it `watch` them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..sim.experts.expert import Expert, expert
from ..sim.make import load_task
from ..sim.task_env import TaskEnv


class ExpertPolicy:
    """The expert of the task of that name."""

    def __init__(self, task: str):
        self.spec, self.provenance = load_task(task).spec.for_policy_file(), {"task": task, "randomize": "none"}
        self._expert: Expert | None = None
        self._env: TaskEnv | None = None

    def watch(self, env: TaskEnv) -> None:
        """Act from now on for the worlds of `env`, by what its task says of the arm.

        Raises:
            UsageError: the task has no expert.
        """
        self._env, self._expert = env, expert(env.task)

    def initial_state(self, n: int) -> Mapping[str, Tensor]:
        return {}

    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Actions (N, 1, A) of the worlds that it watches."""
        assert self._env is not None and self._expert is not None, "watch(env) comes first"
        return torch.from_numpy(self._expert.act(self._env.state))[:, None], state


def watch(policy: Any, env: Any) -> None:
    """Show the worlds to a policy that looks at more than observations."""
    if isinstance(policy, ExpertPolicy):
        policy.watch(env)
