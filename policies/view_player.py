"""One world being played: a policy, random actions or a user's own, a step at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from ..address import without_workers
from ..errors import UsageError
from ..keyed import Stream
from ..sim.looks import Looks
from ..sim.make import make, randomization_of
from ..sim.render import choose_backend
from ..sim.task_env import TaskEnv
from .evaluate import Acts, require_same_spec
from .expert_policy import watch


class Player:
    """The episodes that `film` would show under this seed, one step at a time.

    Attributes: `episode` (counted from 0), `steps`, `rewards` of the open episode, `total` its return, and
    `results`, one (return, length, success or None) for every episode that ended.
    """

    def __init__(self, task: str, policy: Acts | None = None, seed: int = 0, randomize: Any = "none"):
        self.task, self.policy, self.seed = task, policy, seed
        self.env, self._pictures = _one_world(task, randomize)
        self.spec = self.env.spec
        if policy is not None:
            try:
                require_same_spec(policy.spec, self.spec, task)
            except Exception:
                self.env.close()
                raise
            watch(policy, self.env)
        self._looks = Looks(self.env) if isinstance(self.env, TaskEnv) else None
        self.model = self._model()  # None where the simulator draws itself
        self._data = None if self.model is None else mujoco.MjData(self.model)
        self._random = Stream(seed, "view/action")
        self.results: list[tuple[float, int, bool | None]] = []
        self.episode = 0
        self.begin(0)

    # ---- playing -----------------------------------------------------------------------------

    def begin(self, episode: int) -> None:
        """Start an episode; the same number gives the same start."""
        self.episode = episode
        self._obs = self.env.reset(int(Stream(self.seed, "evaluate").integer(episode, 0)[0]))
        self._state: Mapping[str, Tensor] = {} if self.policy is None else self.policy.initial_state(1)
        self.rewards: list[float] = []
        self.ended = False

    def step(self, action: Tensor) -> None:
        """Apply an action (1, A), or of a discrete task (1, 1) int64, for one control period."""
        if self.ended:
            self.begin(self.episode + 1)
        step = self.env.step(action)
        self._obs = step.obs
        self.rewards.append(float(step.reward[0]))
        if bool(step.done[0]):
            self.ended = True
            success = None if step.success is None else bool(step.success[0])
            self.results.append((self.total, self.steps, success))

    def policy_action(self) -> Tensor:
        """What the policy does next, (1, A)."""
        if self.policy is None:
            raise UsageError("there is no policy to act; give one to poise view with --policy")
        if self.ended:
            self.begin(self.episode + 1)
        chunk, self._state = self.policy.act(self._obs, self._state)
        return chunk[:, 0]

    def random_action(self) -> Tensor:
        """Uniform over the actions, a function of (seed, episode, step)."""
        size = 1 if self.spec.discrete else self.spec.action_dim
        uniform = torch.from_numpy(self._random.uniform(0, self.episode, size, step=self.steps))
        if self.spec.discrete:
            return (uniform * self.spec.choices).long()
        return (2.0 * uniform - 1.0).float()

    @property
    def steps(self) -> int:
        return len(self.rewards)

    @property
    def total(self) -> float:
        return float(np.sum(self.rewards))

    # ---- being looked at ---------------------------------------------------------------------

    @property
    def data(self) -> mujoco.MjData:
        """The world as MuJoCo has it; only where `model` is not None."""
        assert self._data is not None
        if isinstance(self.env, TaskEnv):
            self._data.qpos[:] = np.asarray(self.env.state.qpos[0])
            mujoco.mj_kinematics(self.model, self._data)
            return self._data
        return self.env.first.data

    @property
    def target_pos(self) -> np.ndarray | None:
        """Where the task's goal is (3,) [m], if it says so."""
        if not isinstance(self.env, TaskEnv) or "target_pos" not in self.env.state.memory:
            return None
        return np.asarray(self.env.state.memory["target_pos"][0])

    @property
    def frames(self) -> dict[str, np.ndarray]:
        """What the cameras of a native task showed last, to a policy: group -> (height, width, 3) uint8."""
        images = [g for g in self.spec.observations if self.spec.is_image(g)] if self._looks is not None else []
        return {group: self._obs[group][0].numpy() for group in images}

    def look(self) -> bool:
        """Give `model` the colours and sizes of the present episode; whether they changed."""
        return self._looks is not None and self._looks.put(self.model)

    def picture(self) -> np.ndarray:
        """A frame (height, width, 3) that the simulator draws itself; only where `model` is None."""
        return self.env.render()

    def close(self) -> None:
        self.env.close()

    def _model(self) -> mujoco.MjModel | None:
        if isinstance(self.env, TaskEnv):
            assert self._looks is not None
            spec = self.env.task.model()
            self._looks.decorate(spec)
            return spec.compile()
        return None if self._pictures else self.env.first.model


def _one_world(task: str, randomize: Any) -> tuple[Any, bool]:
    """A world of the task, and whether it can only be shown in pictures of its own."""
    if not task.startswith("gym:"):
        env = make(without_workers(task)[0], 1, randomize=randomize, threads=1)
        return env, task.startswith("robosuite:")  # whose models would be hidden by their collision meshes
    from ..sim.gymnasium_adapter import GymVecEnv, make_gym

    name, _ = without_workers(task.removeprefix("gym:"))
    randomization = randomization_of(randomize)
    env = make_gym(name, 1, randomization=randomization)
    if isinstance(env, GymVecEnv) and isinstance(getattr(env.first, "model", None), mujoco.MjModel):
        return env, False
    env.close()
    choose_backend()
    return make_gym(name, 1, render_mode="rgb_array", randomization=randomization), True
