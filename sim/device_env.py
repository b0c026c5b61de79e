"""DeviceEnv: N worlds of a Task behind the VecEnv contract, where physics, randomization and learner share one device.

The same task, randomization and components as in sim/task_env.py, with tensors in place of numpy arrays and masks in
place of indices: every part of a step does its arithmetic for all N worlds, and a mask says whose results count. So
nothing is decided on the host, and a step is a few recordings (sim/recorded_part.py) with the engine's own in between:

    _redraw    what changes within episodes        → engine.write, engine.kick
    _command   action → commands (shaped, late)    → engine.step
    _judge     the task's memory → reward, terminated, success → observation; draws where an episode begins
                                                   → engine.write, engine.set_state
    _begin     the observations to act on

Legend: N worlds, A action, S substeps. float32 tensors on `device`, counters int64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Step
from ..errors import SpecError, UsageError
from .adr import AdaptiveRandomization
from .parts import Parts
from .randomization import Randomization
from .recorded_part import Place, cloned, recorded
from .rows import replaced, scattered
from .task import Key, State, Task
from .warp_device import require_warp
from .warp_engine import WarpEngine

Tensors = dict[str, Tensor]


class DeviceEnv:
    """N worlds of one task on one device, with automatic reset and true next observations.

    A world whose physics or reward breaks, or whose action is no action, never reaches the learner: that step has
    reward 0, its successor is the last sound observation, the episode is truncated, and `bad_worlds` counts it.
    """

    adr = None  # ranges that adapt live on the CPU
    on_device = True  # for the learner: no number of a step need be looked at from the host

    def __init__(self, task: Task, num_envs: int, randomization: Randomization | None = None, seed: int = 0,
                 device: torch.device | str = "cuda"):  # fmt: skip
        self.task, self.spec, self.num_envs = task, task.spec, num_envs
        self.max_episode_steps, self.device = task.max_episode_steps, require_warp(device)
        self.randomization = randomization or Randomization()
        _require_fit(task, self.randomization, num_envs)
        self.parts = Parts(task, self.randomization, num_envs, self.device)
        self.dynamics = self.parts.dynamics
        self.engine = WarpEngine(self.parts.model, num_envs, self.parts.substeps, self.device,
                                 tuple(self.dynamics.defaults), tuple(getattr(task, "reads", ())))  # fmt: skip
        self._start = getattr(task, "start", None) if self.engine.extra else None
        self._redrawn_fields = self.dynamics.touched(t.name for t in self.randomization.terms if t.when == "interval")
        self._all = torch.ones(num_envs, dtype=torch.bool, device=self.device)
        self._seed, self._started = seed, False

        self.worlds, self.episodes, self.steps = self._numbers(0), self._numbers(0), self._numbers(0)
        self.params: Tensors = {}  # randomization term -> (N, k) of the present episodes
        self.memory: Tensors = {}
        self._delay = self._numbers(0)
        self._measured: Tensors = {}  # qpos (N, nq) and qvel (N, nv)
        self._obs: Tensors = {}
        self._bad = torch.zeros((), dtype=torch.int64, device=self.device)
        self._refused = torch.zeros((), dtype=torch.bool, device=self.device)  # whether an action was beyond ±1
        self._now: dict[str, Any] = {}  # what the parts of a step hand on to each other, and its results
        self._action = torch.zeros(num_envs, self.spec.action_dim, device=self.device)
        self._broken = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._place = Place(self._tree, self._put)
        self._record_anew()

    # ---- the VecEnv contract -----------------------------------------------------------------

    @torch.no_grad()
    def reset(self, seed: int, worlds: Any = None, episodes: Any = 0) -> Tensors:
        """Start episode 0 of every world under `seed`; worlds, episodes: play others, as in TaskEnv.reset."""
        self._seed, self._started = int(seed), True
        self._record_anew()
        self.parts.white.seed(self._seed)
        self.worlds = torch.arange(self.num_envs, device=self.device) if worlds is None else self._numbers(worlds)
        self.episodes, self.steps = self._numbers(episodes), self._numbers(0)
        self._now, self.params, self.memory, self._obs = {}, {}, {}, {}
        self._measured = {"qpos": self.engine.qpos.clone(), "qvel": self.engine.qvel.clone()}
        self._draw(self._all)
        self._put_into_engine()
        self._obs = self._first(self._all)
        self._place.settle()
        return cloned(self._obs)

    @torch.no_grad()
    def step(self, action: Tensor) -> Step:
        """Apply action (N, A) in [-1, 1] for one control period."""
        if not self._started:
            raise UsageError("call reset(seed) before the first step")
        if action.shape != self._action.shape:
            raise SpecError(f"an action for {self.num_envs} worlds has shape {tuple(self._action.shape)}, "
                            f"got {tuple(action.shape)}")  # fmt: skip
        self._action.copy_(action)
        if not self.parts.schedule.empty:
            self._redraw()
            self._put_redrawn_into_engine()
        self._command()
        self._broken.copy_(self.engine.step(self._now["ctrl"], self._now.get("wrench")))
        self._judge()
        self._put_into_engine()
        self._begin()
        return Step(obs=cloned(self._obs), **cloned(self._now["given"]))

    def state_dict(self) -> dict[str, Any]:
        """Everything to go on with."""
        return {
            "task": self.task.name,
            "randomization": self.randomization.to_json(),
            "seed": self._seed,
            "engine": self.engine.state_dict(),
            **cloned(self._tree()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Tensors:
        """Restore, and return the observations to act on next."""
        for name, mine in (("task", self.task.name), ("randomization", self.randomization.to_json())):
            if state[name] != mine:
                raise UsageError(f"cannot resume: the saved {name} is {state[name]!r}, this environment's is {mine!r}")
        self._seed, self._started = int(state["seed"]), True
        self._record_anew()
        self.parts.white.seed(self._seed)
        self._put(self._moved({"own": state["own"], "parts": state["parts"]}))
        if self.dynamics.defaults:
            self.engine.write(self.dynamics.fields(self.params), self._all)
        self.engine.load_state_dict(state["engine"])
        self._place.settle()
        return cloned(self._obs)

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the task's model this engine does otherwise, in sentences."""
        return self.engine.notes

    @property
    def bad_worlds(self) -> int:
        """Worlds that broke since this env was made."""
        return int(self._bad)

    def metrics(self) -> dict[str, float]:
        """What a training run logs of its worlds: those that broke so far, and those that lack room for contacts now.

        Raises:
            SpecError: since the last call some action was not in [-1, 1]; its world counts as broken.
        """
        bad, refused, full = torch.stack([self._bad, self._refused.long(), (self.engine.overflow != 0).sum()]).tolist()
        if refused:
            raise SpecError("actions must lie in [-1, 1]: some action did not, or was not finite")
        return {"train/bad_worlds": float(bad), "train/contact_overflow": float(full)}

    def close(self) -> None:
        """Give the device's memory back."""
        self._record_anew()
        self.engine.close()

    # ---- for tests ---------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The true state of every world at the present moment."""
        return self._state(self.engine.qpos, self.engine.qvel)

    @property
    def key(self) -> Key:
        """The present episodes."""
        return Key(self._seed, self.worlds, self.episodes)

    # ---- one step's parts --------------------------------------------------------------------

    def _redraw_part(self) -> None:
        """Draw anew, in the middle of episodes, what is due."""
        parts, dynamics = self.parts, self.dynamics
        due, key = parts.schedule.due(self.steps, self.key), self.key
        draws = parts.schedule.draws(self._all)
        for name, where in due.items():
            drawn = dynamics.draw_one(name, key, draws[name])
            self.params = {**self.params, name: replaced(self.params[name], where, drawn)}
        anywhere = torch.stack(list(due.values())).any(0)
        self._now |= {"due": anywhere, "fields": dynamics.fields(self.params)}
        if dynamics.latency:
            self._delay = replaced(self._delay, anywhere, dynamics.delay(self.params, self.task.physics_dt))
        parts.pushes.start(due, self.steps, key, draws, self.params)
        if (kick := parts.kicks.change(due, key, draws, self.params)) is not None:
            self._now["kick"] = kick

    def _put_redrawn_into_engine(self) -> None:
        if self._redrawn_fields:
            self.engine.write(self._now["fields"], self._now["due"], self._redrawn_fields)
        if "kick" in self._now:
            self.engine.kick(self._now["kick"])

    def _command_part(self) -> None:
        """Commands (N, S, U) of one control period, with all that goes wrong on their way."""
        parts = self.parts
        sound = (self._action.abs() <= 1.0 + 1e-6).all(1)  # False for NaN too
        self._refused = self._refused | ~sound.all()
        action = torch.where(sound[:, None], self._action, 0.0)  # its world is broken, and begins anew
        self._now |= {"action": action, "sound": sound}
        if not parts.faults.none:
            action = parts.faults.apply(action, self.steps, self.params)
        ctrl = parts.commands.step(action, self._measured["qpos"], self._delay)
        self._now["ctrl"] = ctrl if parts.backlash.none else parts.backlash.apply(ctrl, self.params)
        if not parts.pushes.none:
            self._now["wrench"] = parts.pushes.wrench(self.steps)

    def _judge_part(self) -> None:
        """What the step was worth, what it led to, and the draws of the episodes that begin."""
        action, task = self._now["action"], self.task
        self.steps = self.steps + 1
        self._new_noise()
        self.memory = task.advance(self.state, action)
        state = self.state
        reward, terminated, success = task.reward(state, action).float(), task.terminated(state), task.success(state)
        next_obs = self._observe(state)
        bad = self._broken | ~self._now["sound"] | ~torch.isfinite(reward)
        for values in next_obs.values():
            bad = bad | ~torch.isfinite(values).all(1)
        self._bad = self._bad + bad.sum()
        terminated = terminated & ~bad
        done = terminated | bad | (self.steps >= self.max_episode_steps)
        self._now["given"] = {
            "next_obs": {group: replaced(values, bad, self._obs[group]) for group, values in next_obs.items()},
            "reward": torch.where(bad, 0.0, reward),
            "terminated": terminated,
            "truncated": done & ~terminated,
            "success": None if success is None else success & ~bad,
        }
        self.episodes = self.episodes + done
        self.steps = torch.where(done, 0, self.steps)
        self._draw(done)

    def _draw(self, where: Tensor) -> None:
        """Draw what differs in the present episodes, and where they begin, for the worlds of a mask (N,)."""
        parts, dynamics, key = self.parts, self.dynamics, self.key
        parts.schedule.begin(where, key)
        parts.pushes.begin(where)
        drawn = dynamics.draw(self._seed, self.worlds, self.episodes, parts.schedule.draws(self._all))
        self.params = scattered(self.params, where, drawn, self.num_envs)
        if dynamics.latency:
            self._delay = replaced(self._delay, where, dynamics.delay(drawn, self.task.physics_dt))
        qpos, qvel, memory = self.task.reset(key, drawn)
        self.memory = scattered(self.memory, where, memory, self.num_envs)
        self._now |= {"where": where, "qpos": qpos, "qvel": qvel}
        self._new_noise()
        if dynamics.defaults:
            self._now["fields"] = dynamics.fields(drawn)

    def _new_noise(self) -> None:
        """That of the present steps of the present episodes."""
        if self.parts.white:
            self.parts.white.follow(self.worlds, self.episodes, self.steps)

    def _put_into_engine(self) -> None:
        """The worlds where an episode begins."""
        now = self._now
        if self.dynamics.defaults:
            self.engine.write(now["fields"], now["where"])
        self.engine.set_state(now["where"], now["qpos"], now["qvel"])

    def _begin_part(self) -> None:
        """What the next action answers: the first observation where an episode begins, the next one elsewhere."""
        where, next_obs = self._now["where"], self._now["given"]["next_obs"]
        first = self._first(where)
        self._obs = {group: replaced(values, where, first[group]) for group, values in next_obs.items()}

    def _first(self, where: Tensor) -> Tensors:
        """First observations, of which those of the mask count."""
        parts = self.parts
        qpos, qvel = self.engine.qpos, self.engine.qvel
        if not parts.sensors.perfect:
            qpos, qvel = parts.sensors.begin(where, qpos, qvel, self.params)
        parts.backlash.begin(where, parts.commands.reset(where, qpos))
        if self._start is not None:
            self.memory = scattered(self.memory, where, self._start(self.state), self.num_envs)
        self._measured = scattered(self._measured, where, {"qpos": qpos, "qvel": qvel}, self.num_envs)
        readings = self.task.observe(self._state(qpos, qvel))
        if not parts.readings.perfect:
            readings = parts.readings.begin(where, readings, self.params)
        return self._pack(readings)

    def _observe(self, state: State) -> Tensors:
        """Observations of all worlds; remembers what was measured, which the next commands start from."""
        parts, qpos, qvel = self.parts, state.qpos, state.qvel
        if not parts.sensors.perfect:
            last = self._measured["qpos"], self._measured["qvel"]
            qpos, qvel = parts.sensors.measure(qpos, qvel, self.steps, self.params, last)
            state = self._state(qpos, qvel)
        self._measured = {"qpos": qpos, "qvel": qvel}
        readings = self.task.observe(state)
        if not parts.readings.perfect:
            readings = parts.readings.report(readings, self.steps, self.params)
        return self._pack(readings)

    def _pack(self, readings: Mapping[str, Tensor]) -> Tensors:
        """The Spec's groups, group -> (N, dim)."""
        return {group: torch.cat([readings[term.name].reshape(self.num_envs, -1).float() for term in terms], 1)
                for group, terms in self.spec.observations.items()}  # fmt: skip

    # ---- the state ---------------------------------------------------------------------------

    def _state(self, qpos: Tensor, qvel: Tensor) -> State:
        engine = self.engine
        return State(engine.time, qpos, qvel, self.parts.commands.target, self.params, self.memory, engine.extra)

    def _tree(self) -> dict[str, Any]:
        """Everything that the parts of a step leave behind."""
        own = {
            "worlds": self.worlds, "episodes": self.episodes, "steps": self.steps, "delay": self._delay,
            "bad": self._bad, "refused": self._refused, "params": self.params, "memory": self.memory,
            "measured": self._measured, "obs": self._obs,
        }  # fmt: skip
        return {"own": own, "parts": self.parts.state_dict(), "now": self._now}

    def _put(self, tree: Mapping[str, Any]) -> None:
        own = tree["own"]
        self.worlds, self.episodes, self.steps, self._delay = (own[k] for k in ("worlds", "episodes", "steps", "delay"))
        self._bad, self._refused = own["bad"], own["refused"]
        self.params, self.memory, self._measured, self._obs = (
            dict(own[k]) for k in ("params", "memory", "measured", "obs")
        )
        self.parts.load_state_dict(tree["parts"])
        self._now = dict(tree.get("now", {}))

    def _record_anew(self) -> None:
        """Other numbers will be drawn, from other places: no recording fits any more."""
        self._place.forget()
        self._redraw, self._command, self._judge, self._begin = (
            recorded(part, self._place, self.device)
            for part in (self._redraw_part, self._command_part, self._judge_part, self._begin_part)
        )

    def _moved(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """Copies on this device."""
        return {k: torch.as_tensor(v).to(self.device, copy=True) if isinstance(v, Tensor | np.ndarray)
                else self._moved(v) if isinstance(v, Mapping) else v for k, v in tree.items()}  # fmt: skip

    def _numbers(self, of_worlds: Any) -> Tensor:
        """Whole numbers (N,), from as many or from one."""
        return torch.as_tensor(of_worlds, dtype=torch.int64, device=self.device).expand(self.num_envs).clone()


def lack_of(task: Task, randomization: Randomization) -> str:
    """What the worlds of the CPU engine have, these have not, and this task needs; "" where nothing is missing."""
    if isinstance(randomization, AdaptiveRandomization):
        return "ranges that adapt follow the CPU engine"
    if images := [group for group in task.spec.observations if task.spec.is_image(group)]:
        return f"{task.name} shows pictures ({', '.join(images)}), which the CPU engine draws"
    return ""


def _require_fit(task: Task, randomization: Randomization, num_envs: int) -> None:
    if num_envs < 1:
        raise UsageError(f"num_envs must be at least 1, not {num_envs}")
    if lack := lack_of(task, randomization):
        raise UsageError(f"{lack}: use engine=cpu")
