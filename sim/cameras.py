"""Cameras: what the image groups of a task's Spec see, drawn by MuJoCo without a screen.

An image group is one uint8 term (height, width, 3) whose name is that of a camera in the task's model. A task says
nothing else about pictures: its TaskEnv draws them, of the true state, only where the Spec asks for them.

Pictures of primitive shapes without shadows (`<quality shadowsize="0" offsamples="0"/>`) cost a fifth of a
millisecond on a CPU; meshes and shadows cost up to a hundred times that. Legend: N worlds, n of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import SpecError
from .appearance import Appearance, decorate, is_seen
from .randomization import Randomization
from .render import Renderer
from .task import Key, State, Task


class Cameras:
    """One renderer for each image group; all worlds share it, each with its own appearance."""

    def __init__(self, task: Task, groups: list[str], randomization: Randomization | None = None, num_envs: int = 0):
        randomization = randomization or Randomization()
        self._renderers: dict[str, Renderer] = {}
        for group in groups:
            term = task.spec.observations[group][0]
            height, width, channels = term.shape
            if channels != 3:
                raise SpecError(f"observation {group}/{term.name}: cameras give 3 channels of colour, not {channels}")
            self._renderers[group] = Renderer(task, width, height, term.name, lambda s: decorate(s, randomization))
        self._appearance = None
        if any(is_seen(t) for t in randomization.terms):
            self._appearance = Appearance(next(iter(self._renderers.values())).model, randomization, num_envs)

    def begin(self, rows: np.ndarray, key: Key, params: Mapping[str, np.ndarray]) -> None:
        """Episodes `key` begin in rows (n,), with what was drawn for them."""
        if self._appearance is not None:
            self._appearance.begin(rows, key, params)

    def frames(self, state: State, worlds: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Of every world of a state of n: group -> (n, height, width, 3) uint8; worlds (n,): which they are of all."""
        rows = range(len(state.qpos)) if worlds is None else worlds.tolist()
        frames: dict[str, np.ndarray] = {}
        for group, renderer in self._renderers.items():
            pictures = []
            for i, world in enumerate(rows):
                if self._appearance is not None:
                    self._appearance.put(renderer.model, world)
                pictures.append(renderer.world(state, i))
            frames[group] = np.stack(pictures)
        return frames

    def close(self) -> None:
        """Give the graphics contexts back."""
        for renderer in self._renderers.values():
            renderer.close()
