"""Task: what a simulated world is about, apart from the engine that steps it.

A task is an MJCF model plus functions over N worlds at once. They are array-agnostic (numpy and torch,
unchanged), so the same task runs on every engine. On a device they are recorded as CUDA graphs: no shape and no
decision depends on data there, and constants come from `poise.arrays.constant`. This file imports neither torch nor
MuJoCo: the arm's side reads a task's goal rules too.

Legend: N worlds, n of them (those that start an episode), A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..keyed import Stream
from ..spec import Spec
from .randomization import Randomization
from .rows import some

if TYPE_CHECKING:
    import mujoco


@dataclass(frozen=True, slots=True)
class State:
    """N worlds at the end of a control period. Tasks return new arrays, never write into these, and keep copies."""

    time: Any  # (N,) [s] since the episode began
    qpos: Any  # (N, nq) positions: true for reward and success, as measured for `observe`
    qvel: Any  # (N, nv) velocities, likewise
    target: Mapping[str, Any]  # joint_pos action term -> (N, joints) [rad], the last joint target
    params: Mapping[str, Any]  # randomization term -> (N, k), what was drawn for the episode
    memory: Mapping[str, Any]  # the task's own: goal, timers, … each (N, …)
    extra: Mapping[str, Any] = field(default_factory=dict)  # MjData fields that the task `reads`, each (N, …)


@dataclass(frozen=True)
class Key:
    """Which episodes begin: the source of a task's random numbers, a function of nothing else.

    On a device worlds and episodes are tensors (N,) of all worlds, and so are the numbers.
    """

    seed: int
    worlds: Any  # (n,)
    episodes: Any  # (n,)

    def uniform(self, name: str, size: int) -> Any:
        """Uniform numbers in (0, 1) for one named purpose: (n, size)."""
        return Stream(self.seed, f"task/{name}").uniform(self.worlds, self.episodes, size)

    def some(self, rows: Any) -> Key:
        """Of some of these worlds, in the sense of sim/rows.py."""
        return Key(self.seed, some(self.worlds, rows), some(self.episodes, rows))

    def normal(self, name: str, size: int) -> Any:
        """Standard normal numbers for one named purpose: (n, size)."""
        return Stream(self.seed, f"task/{name}").normal(self.worlds, self.episodes, size)


class Task(Protocol):
    """The episode of a world is a pure function of (seed, world, episode, actions)."""

    name: str
    spec: Spec  # control_dt must be a whole multiple of physics_dt
    physics_dt: float  # [s]; also the period of the commands between two control steps
    max_episode_steps: int  # control steps
    randomization: Randomization  # what `randomize="default"` draws

    def model(self) -> mujoco.MjSpec:
        """A fresh, never compiled description of one world."""
        ...

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Start episodes: qpos (n, nq), qvel (n, nv) and the memory, each (n, …)."""
        ...

    def observe(self, state: State) -> dict[str, Any]:
        """Readings by name, each (N, …), from the measured state: what the Spec's terms are filled with."""
        ...

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """The memory after a control step; `state` is the true state after it, with the memory before it."""
        ...

    def reward(self, state: State, action: Any) -> Any:
        """(N,) from the true state with the memory already advanced."""
        ...

    def terminated(self, state: State) -> Any:
        """(N,) bool: the task itself ended here."""
        ...

    def success(self, state: State) -> Any:
        """(N,) bool: would the episode count as a success if it ended here? None: the task defines no success."""
        ...


class ReadingTask(Task, Protocol):
    """A task that needs more of a world than its state; sim/stepping.py steps it."""

    reads: tuple[str, ...]  # MjData fields such as "xpos" and "cfrc_ext", found in State.extra

    def start(self, state: State) -> dict[str, Any]:
        """The memory (n, …) of episodes that begin at `state`, whose `extra` is now known; may be left out."""
        ...
