"""External: what no sensor of the arm tells, such as where an object lies, told by a scene that is simulated.

A twin or an emulated arm with the scene of a task in it (`twin:fr3?task=lift/fr3`) knows all of that scene. The task's
own `observe` makes its readings from it, as in training, with the joints as the arm measures them; only the terms whose
source is `external` are taken. A real arm has no such scene: there these terms need a camera, or are refused.

Legend: n joints, nq numbers of the scene's state, the arm's joints first.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import SpecError
from ..sim.task import Key, State, Task
from ..spec import ObsTerm, Spec
from .driver import Reading


def external_terms(spec: Spec) -> dict[str, ObsTerm]:
    """What a task's worlds tell of what is outside the arm, by name."""
    return {t.name: t for terms in spec.observations.values() for t in terms if t.source == "external"}


def scene_of(name: str) -> str:
    """The task whose scene belongs to a task's name: the same without its options, which change what is seen of it."""
    return name.partition("?")[0]


class External:
    """Reads external terms off a scene."""

    def __init__(self, task: Task, truth: Mapping[str, np.ndarray], goal: Mapping[str, np.ndarray]):
        """
        Args:
            truth: what the device knows at present.
            goal: what the task provides, by the observation term's name.

        Raises:
            SpecError: there is no scene, or another task's.
        """
        self._task, self._n = task, len(truth["joint_pos"]) if "joint_pos" in truth else 0
        self.terms = external_terms(task.spec)
        self._memory = {name: np.asarray(value)[None] for name, value in goal.items()}
        (size,) = task.reset(Key(0, np.zeros(1, int), np.zeros(1, int)), {})[0].shape[1:]
        if "qpos" not in truth:
            raise SpecError(f"{task.name} observes {', '.join(self.terms)}, which nobody tells here; a twin with its "
                            f"scene does: twin:{task.spec.robot}?task={scene_of(task.name)}")  # fmt: skip
        if len(truth["qpos"]) != size:
            raise SpecError(f"the scene of this arm has a state of {len(truth['qpos'])} numbers, expected the {size} "
                            f"of {task.name}: start it with task={scene_of(task.name)}")  # fmt: skip

    def readings(self, truth: Mapping[str, np.ndarray], reading: Reading, target: np.ndarray) -> dict[str, np.ndarray]:
        """The external terms now, by name."""
        qpos, qvel = truth["qpos"].copy(), truth["qvel"].copy()
        qpos[: self._n], qvel[: self._n] = reading.joint_pos, reading.joint_vel
        targets = {term.name: target[None] for term in self._task.spec.actions if term.kind == "joint_pos"}
        state = State(np.zeros(1), qpos[None], qvel[None], targets, {}, self._memory)
        told = self._task.observe(state)
        return {name: np.asarray(told[name])[0] for name in self.terms}
