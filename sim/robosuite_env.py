"""RobosuiteEnv: a robosuite task as a Gymnasium environment, each episode a function of reset(seed) and actions alone.

What robosuite does otherwise, and what is done about it here:

    in robosuite                                        here
    reset draws from generators that were seeded once   they are all set by reset(seed)
    PickPlaceSingle and NutAssemblySquare choose from   they choose from a sorted list
      a set of names: another choice in every process
    the horizon's end is `done`                         truncated; terminated only where a task itself ends (Wipe)
    control periods that are not whole substeps are     refused
      cut short
    observables are polled in every substep             read once, at the end of the control period: the same numbers
    pictures are upside down                            upright

Between episodes the simulator is reset (1 ms), or rebuilt where the model itself is drawn: the size of Lift's cube
(`hard_reset`, 0.2 s). Physics can be randomized: terms are drawn by the key of the episode, and computed from the
model's own values.

Importing this file imports robosuite, without what it prints and warns of.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from ..errors import unknown_name
from ..spec import UNKNOWN, ActionTerm, ObsTerm, Spec
from .dynamics import Dynamics
from .models import Models
from .randomization import Randomization

LOGGER = "robosuite_logs"
FRAME = 84  # height and width of a camera's picture


class _Muffle(logging.Filter):
    """Drops robosuite's warnings while this file calls it; a user's own robosuite keeps them."""

    depth = 0

    def filter(self, record: logging.LogRecord) -> bool:
        return self.depth == 0 or record.levelno >= logging.ERROR


_muffle = _Muffle()
logging.getLogger(LOGGER).addFilter(_muffle)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """robosuite warns of nothing in here."""
    _muffle.depth += 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in its sources, and what numba says when it compiles
            yield
    finally:
        _muffle.depth -= 1


_backend = os.environ.get("MUJOCO_GL")
with quiet():
    import robosuite
    from robosuite.controllers import load_composite_controller_config, load_part_controller_config
    from robosuite.macros import SIMULATION_TIMESTEP
    from robosuite.utils.binding_utils import MjRenderContextOffscreen

    from .robosuite_control import NAME
os.environ.pop("MUJOCO_GL", None)  # robosuite sets it, which would choose the library of everything drawn here
if _backend is not None:
    os.environ["MUJOCO_GL"] = _backend


@dataclass(frozen=True)
class RobosuiteOptions:
    """What may follow the name: robosuite:Lift/Panda?controller=JOINT_POSITION&horizon=200."""

    controller: str = "OSC_POSE"
    control_freq: int = 20  # [1/s]
    horizon: int = 500  # time limit [steps]
    reward_shaping: bool = True
    reward_scale: float = 1.0  # the reward of a solved step
    hard_reset: bool | None = None  # None: where the model itself is drawn
    camera: Sequence[str] = ()  # names of cameras


class RobosuiteEnv(gymnasium.Env):
    """One world.

    `metadata["spec"]` names every slice of the observation and of the action.
    """

    def __init__(self, task: str, robot: str, options: RobosuiteOptions, randomization: Randomization):
        self._options, self._randomization = options, randomization
        with quiet():
            self._suite = _make(task, robot, options)
        self._rebuilds = False  # it has just been built
        self._suite.rng = _Orderly(self._suite.rng.bit_generator)
        self._begin, self._suite._reset_internal = self._suite._reset_internal, self._randomize_and_begin
        self._randomized: tuple[Dynamics, Models] | None = None
        self._substeps = round(1.0 / options.control_freq / SIMULATION_TIMESTEP)
        self._key = 0
        first, _ = self.reset(seed=0)
        with quiet():
            self._suite.step(np.zeros(self._suite.action_dim))  # numba compiles here, where it had not yet
        self._rebuilds = options.hard_reset if options.hard_reset is not None else task == "Lift"
        low, high = self._suite.action_spec
        self.action_space = spaces.Box(low.astype(np.float32), high.astype(np.float32))
        state = first["state"] if options.camera else first
        self.observation_space = spaces.Box(-np.inf, np.inf, state.shape, np.float32)
        if options.camera:
            parts: dict[str, spaces.Space] = {"state": self.observation_space}
            parts |= {name: spaces.Box(0, 255, first[name].shape, np.uint8) for name in options.camera}
            self.observation_space = spaces.Dict(parts)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": options.control_freq, "spec": self._spec(robot)}

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None):
        """Start the episode of that key; without one, the next in robosuite's own order."""
        if seed is not None:
            self._key = seed
            # every sampler of the task shares this bit generator
            self._suite.rng.bit_generator.state = np.random.PCG64(seed).state
        else:
            self._key = int(self._suite.rng.integers(2**63))
        self._suite.hard_reset = self._rebuilds
        if self._rebuilds and self._suite.sim._render_context_offscreen is None:
            self._release()
        with quiet():
            self._suite.reset()
        return self._observe(), {}

    def step(self, action: np.ndarray):
        """Apply an action of action_space for one control period."""
        suite = self._suite
        suite.timestep += 1
        _muffle.depth += 1  # Wipe warns of joint limits; this is quiet without its 20 us
        try:
            for substep in range(self._substeps):
                suite.sim.step1()
                suite._pre_action(action, substep == 0)
                suite.sim.step2()
            suite.cur_time += suite.control_timestep
            reward, terminated, _ = suite._post_action(action)  # by ignore_done, what is done is no horizon
            suite._update_observables(force=True)
            success = suite._check_success()
        finally:
            _muffle.depth -= 1
        truncated = suite.timestep >= self._options.horizon
        return self._observe(), float(reward), bool(terminated), truncated, {"is_success": bool(success)}

    def put_state(self, state: np.ndarray) -> Any:
        """Go to a recorded state (1 + nq + nv,), time, positions and velocities; the observation there."""
        data, nq = self.data, self.model.nq
        data.time, data.qpos[:], data.qvel[:] = state[0], state[1 : 1 + nq], state[1 + nq :]
        with quiet():
            self._suite.sim.forward()
            self._suite.robots[0].composite_controller.reset()  # an arm's goal is where it is
            self._suite._update_observables(force=True)
        return self._observe()

    def judged(self, action: np.ndarray) -> tuple[float, bool]:
        """Reward and success of the present state."""
        return float(self._suite.reward(action)), bool(self._suite._check_success())

    def render(self) -> np.ndarray:
        """A picture (480, 640, 3) uint8 of the world."""
        sim = self._suite.sim
        if sim._render_context_offscreen is None:
            context = MjRenderContextOffscreen(sim, device_id=-1)  # which gives itself to sim
            context.vopt.geomgroup[0] = 0  # what only collides
        return np.ascontiguousarray(sim.render(width=640, height=480, camera_name="frontview")[::-1])

    @property
    def model(self) -> mujoco.MjModel:
        return self._suite.sim.model._model

    @property
    def data(self) -> mujoco.MjData:
        return self._suite.sim.data._data

    def close(self) -> None:
        if self._suite.sim is not None:
            self._suite.close()

    def _randomize_and_begin(self) -> None:
        """What robosuite calls once the simulator is reset or rebuilt, before anything is placed in it."""
        if self._randomization.terms:
            self._randomize()
        self._begin()

    def _randomize(self) -> None:
        if self._randomized is None or self._suite.hard_reset:
            self._randomized = Dynamics(self.model, self._randomization), Models([self.model])
        dynamics, models = self._randomized
        models.give(dynamics.fields(dynamics.draw(self._key, 0, 0)))

    def _release(self) -> None:
        """Free the models that a rebuild replaces; robosuite does so by a pass over all garbage, twice the cost."""
        sim, self._suite.sim = self._suite.sim, None
        sim.data._data = sim.data._model = sim.model._model = None
        self._suite.robots[0].robot_model.mujoco_model = None

    # ---- observations ------------------------------------------------------------------------

    def _seen(self) -> Iterator[tuple[str, Any]]:
        """The observables that the task shows: name and newest value."""
        for name, observable in self._suite._observables.items():
            if observable.is_enabled() and observable.is_active():
                yield name, observable.obs

    def _observe(self) -> Any:
        pictures = {f"{name}_image": name for name in self._options.camera}
        values, frames = [], {}
        for name, value in self._seen():
            if name in pictures:
                frames[pictures[name]] = np.ascontiguousarray(value[::-1])
            else:
                values.append(np.ravel(value))
        state = np.concatenate(values).astype(np.float32)
        return {"state": state, **frames} if frames else state

    def _spec(self, robot: str) -> Spec:
        suite = self._suite
        pictures = {f"{name}_image": name for name in self._options.camera}
        chosen = getattr(suite, "obj_to_use", None) if getattr(suite, "single_object_mode", 0) == 1 else None
        state = tuple(
            _obs_term(name if chosen is None else name.replace(str(chosen), "object"), np.size(value))
            for name, value in self._seen()
            if name not in pictures
        )
        groups: dict[str, tuple[ObsTerm, ...]] = {"state": state}
        for name in self._options.camera:
            group = "camera" if len(self._options.camera) == 1 else f"camera_{name}"
            groups[group] = (ObsTerm(group, (FRAME, FRAME, 3), "camera", dtype="uint8"),)
        low, high = suite.action_spec
        actions = []
        for part, (start, end) in suite.robots[0]._action_split_indexes.items():
            name = self._options.controller.lower() if part == "right" else "gripper"
            if end > start:
                actions.append(ActionTerm(name, "control", low=tuple(low[start:end]), high=tuple(high[start:end])))
        return Spec(groups, tuple(actions), 1.0 / self._options.control_freq, robot=robot,
                    notes={"simulator": f"robosuite {robosuite.__version__}"})  # fmt: skip


def make_world(task: str, robot: str, options: Mapping[str, Any], randomization: Mapping[str, Any]) -> RobosuiteEnv:
    """One world; of plain arguments, so that a worker process can be asked for it, which loads no torch."""
    return RobosuiteEnv(task, robot, RobosuiteOptions(**options), Randomization.from_json(randomization))


class _Orderly(np.random.Generator):
    """Chooses from names in alphabetical order: robosuite hands it sets, whose order is another in every process."""

    def choice(self, a: Any, *arguments: Any, **settings: Any) -> Any:
        names = isinstance(a, list) and all(isinstance(name, str) for name in a)
        return super().choice(sorted(a) if names else a, *arguments, **settings)


def settings(robot: str, controller: str, composite: str = NAME) -> dict[str, Any]:
    """Arguments of robosuite.make: one arm, dense rewards, no pictures, and no end but a true one."""
    return {
        "robots": robot,
        "controller_configs": {"type": composite, "body_parts": {"right": _arm(robot, controller)}},
        "control_freq": 20,
        "horizon": 500,  # Wipe scales its rewards by it
        "ignore_done": True,
        "reward_shaping": True,
        "has_renderer": False,
        "has_offscreen_renderer": False,
        "use_camera_obs": False,
        "renderer": "mujoco",
    }


def _make(task: str, robot: str, options: RobosuiteOptions) -> Any:
    given = settings(robot, options.controller) | {
        "control_freq": options.control_freq, "horizon": options.horizon, "reward_shaping": options.reward_shaping,
        "reward_scale": options.reward_scale, "seed": 0,
    }  # fmt: skip
    if not options.camera:
        return robosuite.make(task, **given)
    pictures = {"has_offscreen_renderer": True, "use_camera_obs": True, "camera_names": list(options.camera),
                "camera_heights": FRAME, "camera_widths": FRAME}  # fmt: skip
    try:
        return robosuite.make(task, **given | pictures)
    except ValueError:
        known = robosuite.make(task, **given).sim.model.camera_names
        for name in options.camera:
            if name not in known:
                raise unknown_name("camera", name, known) from None
        raise


def _arm(robot: str, controller: str) -> dict[str, Any]:
    """The configuration of the only part that the arm has, so that robosuite has nothing to warn of."""
    arm = load_composite_controller_config(robot=robot)["body_parts"]["right"]
    if arm["type"] != controller:
        arm = {**load_part_controller_config(default_controller=controller), "gripper": arm["gripper"]}
    return arm


# endings of robosuite's names, the first that fits: (source, unit, frame)
_TERMS = (
    ("joint_pos_cos", ("robot", "1", "")),
    ("joint_pos_sin", ("robot", "1", "")),
    ("joint_pos", ("robot", "rad", "")),
    ("joint_vel", ("robot", "rad/s", "")),
    ("joint_acc", ("robot", "rad/s^2", "")),
    ("gripper_qpos", ("robot", UNKNOWN, "")),
    ("gripper_qvel", ("robot", UNKNOWN, "")),
    ("_to_robot0_eef_pos", ("external", "m", "tool")),
    ("_to_robot0_eef_quat", ("external", "xyzw", "tool")),
    ("robot0_eef_pos", ("kinematics", "m", "world")),
    ("robot0_eef_quat", ("kinematics", "xyzw", "world")),
    ("robot0_eef_quat_site", ("kinematics", "xyzw", "world")),
    ("_qpos", ("external", "rad", "")),  # of Door's hinge and handle
    ("cubeA_to_cubeB", ("external", "m", "world")),
    ("gripper_to_cubeA", ("external", "m", "world")),
    ("gripper_to_cubeB", ("external", "m", "world")),
    ("wipe_centroid", ("external", "m", "world")),
    ("wipe_radius", ("external", "m", "")),
    ("robot0_contact", ("robot", "1", "")),
    ("proportion_wiped", ("external", "1", "")),
    ("_id", ("external", "1", "")),
    ("_is_assembled", ("external", "1", "")),
    ("tool_on_frame", ("external", "1", "")),
    ("_quat", ("external", "xyzw", "world")),
    ("_pos", ("external", "m", "world")),
)


def _obs_term(name: str, size: int) -> ObsTerm:
    source, unit, frame = next((said for end, said in _TERMS if name.endswith(end)), ("external", UNKNOWN, ""))
    return ObsTerm(name, (size,), source, unit, frame=frame)
