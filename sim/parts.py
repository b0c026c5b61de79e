"""Parts: what stands between a policy and the physics of N worlds, bound to one task and its randomization.

    actions → faults → commands → backlash → engine;   pushes and kicks → engine
    engine → sensors → the task's readings → readings → observations

On the CPU they are numpy arrays, on a device tensors; either way the same classes. Legend: N worlds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SpecError
from ..robots import RobotSpec
from .actuation import ActionFaults, Backlash
from .commands import Commands
from .cpu import compile_physics
from .dynamics import Dynamics
from .kicks import Kicks
from .physics_terms import prepare
from .pushes import Pushes
from .randomization import Randomization
from .readings import Readings
from .schedule import Schedule
from .sensing import Sensors
from .task import Task
from .white import White


class Parts:
    """The model of one world, what is drawn for it, and everything that happens outside of its physics."""

    def __init__(self, task: Task, varied: Randomization, num_envs: int, device: Any = None):
        """device: a torch device, or None for numpy arrays."""
        spec = task.spec
        description = task.model()
        description.option.timestep = task.physics_dt
        prepare(description, varied)
        self.model = model = compile_physics(description)
        self.dynamics = Dynamics(model, varied, spec, device)
        self.substeps = _whole(spec.control_dt, task.physics_dt)
        longest = self.dynamics.longest_delay(task.physics_dt)
        robot = getattr(task, "robot", None)  # a task of somebody's own may call anything so
        self.commands = Commands(spec, model, num_envs, self.substeps, longest, device,
                                 robot if isinstance(robot, RobotSpec) else None)  # fmt: skip
        self.white = White(num_envs, device)
        self.sensors = Sensors(self.dynamics, num_envs, self.white, spec.control_dt, device)
        self.readings = Readings(spec, varied, num_envs, self.white, device)
        self.faults = ActionFaults(varied, num_envs, spec.action_dim, self.white, device)
        self.backlash = Backlash(model, varied, num_envs, device)
        self.schedule = Schedule(varied, num_envs, spec.control_dt, device)
        self.pushes = Pushes(model, varied, num_envs, spec.control_dt, device)
        self.kicks = Kicks(model, varied, num_envs, device)
        self._remembering = {"commands": self.commands, "schedule": self.schedule, "sensors": self.sensors,
                             "readings": self.readings, "actions": self.faults, "backlash": self.backlash,
                             "pushes": self.pushes, "white": self.white}  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._remembering.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, part in self._remembering.items():
            part.load_state_dict(state[name])


def _whole(long: float, short: float) -> int:
    count = round(long / short)
    if count < 1 or abs(count * short - long) > 1e-9:
        raise SpecError(f"control_dt {long:g} s must be a whole multiple of physics_dt {short:g} s")
    return count
