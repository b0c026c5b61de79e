"""GymnasiumTask: what Gymnasium's MuJoCo tasks, version 5, have in common as tasks of our own engines.

    runners.py     HalfCheetah, Hopper, Walker2d, Swimmer: run forward in a plane
    legged.py      Ant, Humanoid: run forward in space, feeling contacts
    pointing.py    Reacher, Pusher: bring a tip to a target
    pendulums.py   InvertedPendulum, InvertedDoublePendulum: stay upright

Models are the files of the installed Gymnasium package. Observations, rewards, terminations and the distributions of
starts are Gymnasium's (Towers et al. 2024, "Gymnasium: a standard interface for reinforcement learning environments");
a test compares them to 1e-6. What differs: an action in [-1, 1] spans the actuators' range (Gymnasium takes the command
itself: Humanoid's is 0.4 of ours, Pusher's 2, InvertedPendulum's 3), observations are float32, and starts come from our
keyed streams. A task of theirs defines no success.

Legend: N worlds, n of them, A actuators.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...arrays import constant
from ...errors import UsageError
from ...spec import ActionTerm, ObsTerm, Spec
from ..randomization import Randomization, Term
from ..task import Key, State

if TYPE_CHECKING:
    import mujoco


def asset(file: str) -> Path:
    """The model file of that name in the installed Gymnasium package."""
    found = find_spec("gymnasium")
    if found is None or found.origin is None:
        raise UsageError("this task's model comes with Gymnasium: pip install 'gymnasium[mujoco]'")
    return Path(found.origin).parent / "envs" / "mujoco" / "assets" / file


def ranges(bodies: Any = "*", geoms: Any = "*", joints: Any = ()) -> Randomization:
    """Masses, sliding friction and damping of the named ones, each scaled by 0.7 to 1.3."""
    terms = (("mass", "link_mass", bodies), ("friction", "geom_friction", geoms), ("damping", "joint_damping", joints))
    return Randomization(tuple(Term(name, what, at, range=(0.7, 1.3)) for name, what, at in terms if at))


class GymnasiumTask(ABC):
    """Base of the tasks; a subclass says what it sees, earns and ends at."""

    name: str
    file: str
    physics_dt: float  # [s]
    substeps: int
    max_episode_steps = 1000
    command = 1.0  # an action of 1 in the actuators' unit: theirs reach from -command to command
    position_noise = 0.1  # starts are uniform around the model's own pose, this far to either side
    velocity_noise = 0.1  # deviation where normal_velocity, else to either side
    normal_velocity = False
    randomization = Randomization()

    def __init__(self) -> None:
        model = self.model().compile()
        self._start = model.qpos0.copy()
        self._nv = model.nv
        motors = ActionTerm("motors", "control", low=(-self.command,) * model.nu, high=(self.command,) * model.nu)
        self.spec = Spec({"state": self._terms()}, (motors,), self.physics_dt * self.substeps)

    @abstractmethod
    def _terms(self) -> tuple[ObsTerm, ...]:
        """What `observe` gives, in Gymnasium's order."""
        ...

    def model(self) -> mujoco.MjSpec:
        import mujoco

        return mujoco.MjSpec.from_file(str(asset(self.file)))

    def _noisy(self, key: Key) -> tuple[Any, Any]:
        """Start positions (n, nq) and velocities (n, nv) around the model's own pose at rest."""
        nq = len(self._start)
        u = key.uniform("start", nq if self.normal_velocity else nq + self._nv)  # one draw costs as much as two
        speed = key.normal("velocity", self._nv) if self.normal_velocity else 2.0 * u[:, nq:] - 1.0
        return constant(self._start, u) + self.position_noise * (2.0 * u[:, :nq] - 1.0), self.velocity_noise * speed

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        return *self._noisy(key), {}

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        return {}

    def effort(self, action: Any) -> Any:
        """The sum of squared commands, (N,)."""
        return self.command**2 * (action * action).sum(-1)

    def terminated(self, state: State) -> Any:
        """Never, unless a task says otherwise."""
        return state.time < 0.0

    def success(self, state: State) -> None:
        """Gymnasium defines none."""
        return None
