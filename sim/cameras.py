"""Cameras: what the image groups of a task's Spec see, drawn by MuJoCo without a screen.

An image group is one uint8 term (height, width, 3) whose name is that of a camera in the task's model. A task says
nothing else about pictures: its TaskEnv draws them, of the true state, only where the Spec asks for them.

Pictures of primitive shapes without shadows (`<quality shadowsize="0" offsamples="0"/>`) cost a fifth of a
millisecond on a CPU; meshes and shadows cost up to a hundred times that. Legend: N worlds, n of them.
"""

from __future__ import annotations

import numpy as np

from ..errors import SpecError
from .render import Renderer
from .task import State, Task


class Cameras:
    """One renderer for each image group; all worlds share it."""

    def __init__(self, task: Task, groups: list[str]):
        self._renderers: dict[str, Renderer] = {}
        for group in groups:
            term = task.spec.observations[group][0]
            height, width, channels = term.shape
            if channels != 3:
                raise SpecError(f"observation {group}/{term.name}: cameras give 3 channels of colour, not {channels}")
            self._renderers[group] = Renderer(task, width, height, term.name)

    def frames(self, state: State) -> dict[str, np.ndarray]:
        """Of every world of a state of n: group -> (n, height, width, 3) uint8."""
        n = len(state.qpos)
        return {group: np.stack([renderer.world(state, i) for i in range(n)])
                for group, renderer in self._renderers.items()}  # fmt: skip

    def close(self) -> None:
        """Give the graphics contexts back."""
        for renderer in self._renderers.values():
            renderer.close()
