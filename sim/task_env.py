"""TaskEnv: N worlds of a Task behind the VecEnv contract, on the CPU.

One step reads top to bottom: action → commands (shaped, late) → engine → the task's memory → reward,
terminated and success from the true state → measured state → observation → reset where an episode ended.

Legend: N worlds, n of them, A action. numpy inside, torch at the boundary (views of arrays made anew each step).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Step
from ..errors import SpecError, UsageError
from ..observe import observe
from .adr import AdaptiveRandomization, Search
from .cpu import CpuEngine
from .engine import Engine
from .parts import Parts
from .randomization import Randomization
from .rows import replaced, scattered
from .stepping import SteppingEngine
from .task import Key, State, Task

Arrays = dict[str, np.ndarray]


class TaskEnv:
    """N worlds of one task with randomized dynamics, automatic reset and true next observations.

    A world whose physics or reward breaks (NaN, instability) never reaches the learner: that step has reward 0, its
    successor is the last sound observation, the episode is truncated, and `bad_worlds` counts it.
    """

    def __init__(self, task: Task, num_envs: int, randomization: Randomization | None = None, seed: int = 0,
                 threads: int = 0):  # fmt: skip
        if num_envs < 1:
            raise UsageError(f"num_envs must be at least 1, not {num_envs}")
        self.task, self.spec, self.num_envs = task, task.spec, num_envs
        self.max_episode_steps = task.max_episode_steps
        self.device = torch.device("cpu")
        self.randomization = randomization or Randomization()
        self.adr = Search(randomization, num_envs) if isinstance(randomization, AdaptiveRandomization) else None
        varied = self.randomization if self.adr is None else self.adr.randomization.widest()
        self.parts = parts = Parts(task, varied, num_envs)
        self.dynamics, self.commands, self.white, self.sensors = (
            parts.dynamics, parts.commands, parts.white, parts.sensors
        )  # fmt: skip
        self.readings, self.faults, self.backlash = parts.readings, parts.faults, parts.backlash
        self.schedule, self.pushes, self.kicks = parts.schedule, parts.pushes, parts.kicks
        self.engine = _engine(task, parts, num_envs, threads)
        self.bad_worlds = 0  # worlds that broke since this env was made
        self.params: Arrays = {}  # randomization term -> (N, k) of the present episodes
        self.memory: Arrays = {}
        self.worlds = np.arange(num_envs)  # who each world is, to its random numbers
        self.episodes = np.zeros(num_envs, np.int64)
        self.steps = np.zeros(num_envs, np.int64)  # control steps since each episode began
        self._all = np.arange(num_envs)
        self._delay = np.zeros(num_envs, np.int64)
        self._measured: tuple[np.ndarray, np.ndarray] = (self.engine.qpos, self.engine.qvel)
        self._obs: Arrays = {}
        flat = {g: terms for g, terms in task.spec.observations.items() if not task.spec.is_image(g)}
        plain = all(len(t.shape) == 1 and t.dtype == "float32" for terms in flat.values() for t in terms)
        self._vectors = {group: [t.name for t in terms] for group, terms in flat.items()} if plain else {}
        self._cameras = _cameras(task, varied, num_envs)
        self._start = getattr(task, "start", None) if self.engine.extra else None
        self._seed = seed

    # ---- the VecEnv contract -----------------------------------------------------------------

    def reset(self, seed: int, worlds: Any = None, episodes: Any = 0) -> dict[str, Tensor]:
        """Start episode 0 of every world under `seed`.

        worlds, episodes: play other episodes instead, each (N,) or one number: with N = 1, `reset(seed, 5, 3)`
        is world 5's episode 3, alone.
        """
        self._seed = int(seed)
        self.white.seed(self._seed)
        self.worlds = self._all if worlds is None else np.full(self.num_envs, worlds, np.int64)
        self.episodes = np.full(self.num_envs, episodes, np.int64)
        self.steps = np.zeros(self.num_envs, np.int64)
        if self.adr is not None:
            self.adr.restart()
        self._obs = self._begin(self._all)
        return _tensors(self._obs)

    def step(self, action: Tensor) -> Step:
        """Apply action (N, A) in [-1, 1] for one control period."""
        if not self._obs:
            raise UsageError("call reset(seed) before the first step")
        act = self._checked(action)
        if not self.schedule.empty:
            self._redraw()
        wrench = None if self.pushes.none else self.pushes.wrench(self.steps)
        bad = self.engine.step(self._commands(act), wrench)
        self.steps = self.steps + 1
        self.memory = self.task.advance(self.state, act)
        state = self.state
        reward = self.task.reward(state, act).astype(np.float32)
        terminated = self.task.terminated(state)
        success = self.task.success(state)
        if self.white:
            self.white.follow(self.worlds, self.episodes, self.steps)
        next_obs = self._observe(state)
        at_limit = self.steps >= self.max_episode_steps
        if not math.isfinite(np.add.reduce(reward)):
            broken = np.flatnonzero(~np.isfinite(reward))
            bad = broken if bad is None else np.union1d(bad, broken)
        if bad is not None:
            reward, terminated, success, at_limit, next_obs = self._contain(
                bad, reward, terminated, success, at_limit, next_obs
            )
        done = terminated | at_limit
        if self.adr is not None:
            self.adr.add_rewards(reward)
            self.adr.ended(np.flatnonzero(done), success)
        truncated, self._obs = at_limit, next_obs
        if np.logical_or.reduce(done):
            truncated = at_limit & ~terminated
            self._obs = self._restart(np.flatnonzero(done), next_obs)
        next_tensors = _tensors(next_obs)
        return Step(
            obs=next_tensors if self._obs is next_obs else _tensors(self._obs),
            next_obs=next_tensors,
            reward=torch.from_numpy(reward),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(truncated),
            success=None if success is None else torch.from_numpy(success),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything to go on to the bit; draws and noise are keyed, so they are drawn again at load."""
        return {
            "task": self.task.name,
            "randomization": self.randomization.to_json(),
            "seed": self._seed,
            "bad_worlds": self.bad_worlds,
            "worlds": self.worlds,
            "episodes": self.episodes,
            "steps": self.steps,
            "engine": self.engine.state_dict(),
            "parts": self.parts.state_dict(),
            "memory": dict(self.memory),
            "measured": dict(zip(("qpos", "qvel"), self._measured, strict=True)),
            "obs": {group: values.copy() for group, values in self._obs.items()},
            **({} if self.adr is None else {"adr": self.adr.state_dict(), "params": dict(self.params)}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """Restore, and return the observations to act on next."""
        for name, mine in (("task", self.task.name), ("randomization", self.randomization.to_json())):
            if state[name] != mine:
                raise UsageError(f"cannot resume: the saved {name} is {state[name]!r}, this environment's is {mine!r}")
        self._seed, self.bad_worlds = int(state["seed"]), int(state["bad_worlds"])
        self.white.seed(self._seed)
        self.engine.load_state_dict(state["engine"])
        self.parts.load_state_dict(state["parts"])
        self.worlds, self.episodes, self.steps = (np.array(state[k]) for k in ("worlds", "episodes", "steps"))
        self.memory = {k: np.array(v) for k, v in state["memory"].items()}
        if self.adr is None:
            self._draw(self._all)
        else:
            self.adr.load_state_dict(state["adr"])
            self._apply(self._all, {name: np.array(values) for name, values in state["params"].items()})
        self.white.prepare(self._all, self.worlds, self.episodes, self.steps)
        self._measured = np.array(state["measured"]["qpos"]), np.array(state["measured"]["qvel"])
        self._obs = {k: np.array(v) for k, v in state["obs"].items()}
        return _tensors(self._obs)

    def metrics(self) -> dict[str, float]:
        """What a training run logs of its worlds: those that broke so far, and where adaptive ranges stand."""
        return {"train/bad_worlds": float(self.bad_worlds), **({} if self.adr is None else self.adr.metrics())}

    def close(self) -> None:
        """Stop the engine's threads, and the cameras."""
        self.engine.close()
        if self._cameras is not None:
            self._cameras.close()

    # ---- for renderers and tests -------------------------------------------------------------

    @property
    def state(self) -> State:
        """The true state of every world at the present moment."""
        return self._state(self.engine.qpos, self.engine.qvel)

    def observations(self) -> dict[str, Tensor]:
        """What the worlds show in the state that they were put into."""
        return _tensors(self._observe(self.state))

    # ---- one step's parts --------------------------------------------------------------------

    def _checked(self, action: Tensor) -> np.ndarray:
        act = action.numpy(force=True).astype(np.float64)
        if act.shape != (self.num_envs, self.spec.action_dim):
            raise SpecError(f"an action for {self.num_envs} worlds has shape {(self.num_envs, self.spec.action_dim)}, "
                            f"got {act.shape}")  # fmt: skip
        if not np.maximum.reduce(np.abs(act), axis=None) <= 1.0 + 1e-6:  # also catches NaN
            world, column = np.argwhere(~(np.abs(act) <= 1.0 + 1e-6))[0]
            raise SpecError(f"actions must lie in [-1, 1]: world {world} has {act[world, column]:g} in column {column}")
        return act

    def _state(self, qpos: np.ndarray, qvel: np.ndarray) -> State:
        return State(self.engine.time, qpos, qvel, self.commands.target, self.params, self.memory, self.engine.extra)

    def _commands(self, act: np.ndarray) -> np.ndarray:
        """Commands (N, S, U) of one control period, with all that goes wrong on their way."""
        if not self.faults.none:
            act = self.faults.apply(act, self.steps, self.params)
        ctrl = self.commands.step(act, self._measured[0], self._delay)
        return ctrl if self.backlash.none else self.backlash.apply(ctrl, self.params)

    def _observe(self, state: State) -> Arrays:
        """Observations of all worlds; remembers what was measured, which the next commands start from."""
        frames = {} if self._cameras is None else self._cameras.frames(state)
        if self.sensors.perfect:
            self._measured = state.qpos, state.qvel
        else:
            self._measured = self.sensors.measure(state.qpos, state.qvel, self.steps, self.params, self._measured)
            state = self._state(*self._measured)
        readings = self.task.observe(state)
        if not self.readings.perfect:
            readings = self.readings.report({**readings, **frames}, self.steps, self.params)
            frames = {group: readings[group] for group in frames}
        return self._pack(readings, frames)

    def _pack(self, readings: Mapping[str, np.ndarray], frames: Arrays) -> Arrays:
        """`observe`, whose checks the first observation has passed, in one numpy call a group."""
        if not self._obs or not self._vectors:
            return observe(self.spec, readings, frames)
        vectors = {group: np.concatenate([readings[name] for name in names], axis=1, dtype=np.float32)
                   for group, names in self._vectors.items()}  # fmt: skip
        return {**vectors, **frames}

    def _observe_first(self, worlds: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> Arrays:
        """First observations of worlds whose joints are measured at qpos (n, nq), qvel (n, nv): group -> (n, dim)."""
        everyone = len(worlds) == self.num_envs
        self._measured = (qpos, qvel) if everyone else (replaced(self._measured[0], worlds, qpos),
                                                        replaced(self._measured[1], worlds, qvel))  # fmt: skip
        true = self.state if everyone else self._state_of(worlds)
        frames = {} if self._cameras is None else self._cameras.frames(true, worlds)
        readings = self.task.observe(replace(true, qpos=qpos, qvel=qvel))
        if not self.readings.perfect:
            readings = self.readings.begin(worlds, {**readings, **frames}, self.params)
            frames = {group: readings[group] for group in frames}
        return self._pack(readings, frames)

    def _state_of(self, worlds: np.ndarray) -> State:
        """The true state of some worlds alone."""
        time, qpos, qvel = self.engine.time[worlds], self.engine.qpos[worlds], self.engine.qvel[worlds]
        rows = [{k: v[worlds] for k, v in d.items()}
                for d in (self.commands.target, self.params, self.memory, self.engine.extra)]  # fmt: skip
        return State(time, qpos, qvel, *rows)

    def _contain(self, bad, reward, terminated, success, at_limit, next_obs):
        """The same step with every trace of the broken worlds replaced."""
        self.bad_worlds += len(bad)
        reward, terminated, at_limit = (np.array(x) for x in (reward, terminated, at_limit))
        reward[bad], terminated[bad], at_limit[bad] = 0.0, False, True
        success = None if success is None else replaced(success, bad, False)
        next_obs = {group: replaced(values, bad, self._obs[group][bad]) for group, values in next_obs.items()}
        return reward, terminated, success, at_limit, next_obs

    # ---- beginning episodes ------------------------------------------------------------------

    def _restart(self, worlds: np.ndarray, obs: Arrays) -> Arrays:
        """The observations `obs` with the first ones of new episodes where the old ones ended."""
        self.episodes = replaced(self.episodes, worlds, self.episodes[worlds] + 1)
        self.steps = replaced(self.steps, worlds, 0)
        first = self._begin(worlds)
        if len(worlds) == self.num_envs:
            return first
        return {group: replaced(values, worlds, first[group]) for group, values in obs.items()}

    def _begin(self, worlds: np.ndarray) -> Arrays:
        """Start the present episode of the given worlds; their first observations, group -> (n, dim)."""
        key = self.key.some(worlds)
        self.schedule.begin(worlds, key)
        self.pushes.begin(worlds)
        qpos, qvel, memory = self.task.reset(key, self._draw(worlds))
        self.engine.set_state(worlds, qpos, qvel)
        self.memory = scattered(self.memory, worlds, memory, self.num_envs)
        if self.white:
            self.white.prepare(worlds, key.worlds, key.episodes, self.steps[worlds])
        qpos, qvel = self.engine.qpos[worlds], self.engine.qvel[worlds]
        if not self.sensors.perfect:
            qpos, qvel = self.sensors.begin(worlds, qpos, qvel, self.params)
        self.backlash.begin(worlds, self.commands.reset(worlds, qpos))
        if self._start is not None:
            self.memory = scattered(self.memory, worlds, self._start(self._state_of(worlds)), self.num_envs)
        return self._observe_first(worlds, qpos, qvel)

    @property
    def key(self) -> Key:
        """The present episodes."""
        return Key(self._seed, self.worlds, self.episodes)

    def _draw(self, worlds: np.ndarray) -> Arrays:
        """Draw the dynamics of the worlds' present episodes, put them into the engine, and return them."""
        who = self._seed, self.worlds[worlds], self.episodes[worlds]
        if self.adr is None:
            drawn = self.dynamics.draw(*who, self.schedule.draws(worlds))
        else:
            drawn = self.adr.draw(*who, self.dynamics.sizes, worlds)
        self._apply(worlds, drawn)
        return drawn

    def _apply(self, worlds: np.ndarray, drawn: Arrays) -> None:
        """Let the worlds have these dynamics."""
        self.params = scattered(self.params, worlds, drawn, self.num_envs)
        self._write(worlds, drawn, self.dynamics.defaults)
        if self._cameras is not None:
            self._cameras.begin(worlds, self.key.some(worlds), drawn)

    def _redraw(self) -> None:
        """Draw anew, in the middle of episodes, what is due."""
        due = self.schedule.due(self.steps, self.key)
        if not due:
            return
        draws = self.schedule.draws(self._all)
        for name, worlds in due.items():
            drawn = self.dynamics.draw_one(name, self.key.some(worlds), draws[name][worlds])
            self.params = {**self.params, name: replaced(self.params[name], worlds, drawn)}
        rows = np.unique(np.concatenate(list(due.values())))
        self._write(rows, {name: values[rows] for name, values in self.params.items()}, self.dynamics.touched(due))
        self.pushes.start(due, self.steps, self.key, draws, self.params)
        if (change := self.kicks.change(due, self.key, draws, self.params)) is not None:
            self.engine.kick(change)

    def _write(self, worlds: np.ndarray, drawn: Arrays, wanted: Collection[str]) -> None:
        """Put the wanted model fields, for the worlds' drawn parameters, into the engine."""
        if wanted:
            self.engine.write(self.dynamics.fields(drawn), worlds, wanted)
        if self.dynamics.latency:
            self._delay[worlds] = self.dynamics.delay(drawn, self.task.physics_dt)


def _engine(task: Task, parts: Parts, num_envs: int, threads: int) -> Engine:
    """The faster engine where positions and velocities are all that the task reads; a model a world where they vary."""
    separate = bool(parts.dynamics.defaults)
    if reads := tuple(getattr(task, "reads", ())):
        return SteppingEngine(parts.model, num_envs, parts.substeps, threads, separate, reads)
    return CpuEngine(parts.model, num_envs, parts.substeps, threads, separate)


def _cameras(task: Task, randomization: Randomization, num_envs: int) -> Any:
    """What draws the task's image groups, or None where it has none: most tasks need no graphics at all."""
    if not (groups := [group for group in task.spec.observations if task.spec.is_image(group)]):
        return None
    from .cameras import Cameras

    return Cameras(task, groups, randomization, num_envs)


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(values) for name, values in arrays.items()}
