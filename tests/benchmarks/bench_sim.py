"""The CPU engine against physics alone and against Gymnasium, on HalfCheetah's model; and reach/fr3.

`python tests/benchmarks/bench_sim.py [seconds]` prints a table; `poise bench sim` shows the same rows.
One thread, CPU-seconds, actions drawn beforehand for every side. All sides run one short round after the
other, so that a busy or throttled machine slows them alike; a row gives the median of the rounds' ratios.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from mujoco.rollout import Rollout

from poise.sim.make import make
from poise.sim.randomization import Randomization, Term
from poise.sim.task import Key, State
from poise.sim.task_env import TaskEnv
from poise.spec import ActionTerm, ObsTerm, Spec

_MODEL = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "half_cheetah.xml"
_NAMES = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
_DT, _SUBSTEPS = 0.01, 5


class HalfCheetah:
    """Gymnasium's HalfCheetah-v5 as a Task: forward speed minus a cost of control, 1000 steps."""

    name = "bench/half_cheetah"
    physics_dt = _DT
    max_episode_steps = 1000
    randomization = Randomization((
        Term("mass", "link_mass", "*", range=(0.7, 1.3)),
        Term("friction", "geom_friction", "*", range=(0.7, 1.3)),
        Term("damping", "joint_damping", _NAMES, range=(0.7, 1.3)),
    ))  # fmt: skip
    spec = Spec(
        {"state": (ObsTerm("position", (8,)), ObsTerm("velocity", (9,)))},
        (ActionTerm("motors", "control", _NAMES, low=(-1.0,) * 6, high=(1.0,) * 6),),
        control_dt=_DT * _SUBSTEPS,
    )

    def model(self) -> mujoco.MjSpec:
        return mujoco.MjSpec.from_file(str(_MODEL))

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        u = key.uniform("start", 18)
        return 0.2 * u[:, :9] - 0.1, 0.2 * u[:, 9:] - 0.1, {"x": 0.2 * u[:, 0] - 0.1, "speed": np.zeros(len(u))}

    def observe(self, state: State) -> dict[str, Any]:
        return {"position": state.qpos[:, 1:], "velocity": state.qvel}

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        x = state.qpos[:, 0].copy()
        return {"x": x, "speed": (x - state.memory["x"]) / (_DT * _SUBSTEPS)}

    def reward(self, state: State, action: Any) -> Any:
        return state.memory["speed"] - 0.1 * np.einsum("na,na->n", action, action)

    def terminated(self, state: State) -> Any:
        return state.memory["x"] != state.memory["x"]  # never

    def success(self, state: State) -> Any:
        return self.terminated(state)


Side = Callable[[int], float]  # runs about that many vector steps, gives environment steps a CPU-second


def _env_side(env: Any) -> Side:
    generator = torch.Generator().manual_seed(0)
    actions = [torch.rand(env.num_envs, env.spec.action_dim, generator=generator) * 2 - 1 for _ in range(256)]
    env.reset(0)

    def run(count: int) -> float:
        start = time.process_time()
        for i in range(count):
            env.step(actions[i % 256])
        return env.num_envs * count / (time.process_time() - start)

    return run


def _physics_side(worlds: int) -> Side:
    """mujoco.rollout on randomized models of its own: nothing but the physics of the same control periods."""
    env = TaskEnv(HalfCheetah(), worlds, HalfCheetah.randomization, threads=1)
    env.reset(0)
    models, data = env.engine.models, [mujoco.MjData(env.engine.model)]
    start_state, pool = env.engine.state.copy(), Rollout(nthread=0)
    ctrl = np.random.default_rng(0).uniform(-1, 1, (256, worlds, 1, 6)).repeat(_SUBSTEPS, axis=2)
    trace = np.empty((worlds, _SUBSTEPS, start_state.shape[1]))
    state, steps = start_state, 0

    def run(count: int) -> float:
        nonlocal state, steps
        start = time.process_time()
        for i in range(count):
            pool.rollout(models, data, state, ctrl[i % 256], skip_checks=True, nstep=_SUBSTEPS, state=trace)
            steps += 1
            state = start_state if steps % 1000 == 0 else trace[:, -1].copy()
        return worlds * count / (time.process_time() - start)

    return run


def _gymnasium_side(worlds: int) -> Side:
    env = gymnasium.make_vec("HalfCheetah-v5", worlds, vectorization_mode="sync")
    actions = np.random.default_rng(0).uniform(-1, 1, (256, worlds, 6)).astype(np.float32)
    env.reset(seed=0)

    def run(count: int) -> float:
        start = time.process_time()
        for i in range(count):
            env.step(actions[i % 256])
        return worlds * count / (time.process_time() - start)

    return run


def _cheetah_side(worlds: int) -> Side:
    return _env_side(TaskEnv(HalfCheetah(), worlds, HalfCheetah.randomization, threads=1))


def rows(seconds: float = 60.0, share: float = 1.0) -> list[dict[str, Any]]:
    """The table, measured for about that long: one dict a line, JSON values only.

    A round of a side is this share of an episode of all its worlds: 1 has every reset in it, once.
    """
    sides: dict[str, tuple[Side, int]] = {  # and the control steps of an episode
        "engine 64": (_cheetah_side(64), 1000),
        "physics 64": (_physics_side(64), 1000),
        "engine 8": (_cheetah_side(8), 1000),
        "physics 8": (_physics_side(8), 1000),
        "gymnasium 8": (_gymnasium_side(8), 1000),
        "reach/fr3 64": (_env_side(make("reach/fr3", 64, randomize="none", threads=1)), 100),
        "reach/fr3 randomized 64": (_env_side(make("reach/fr3", 64, randomize="default", threads=1)), 100),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for side, _ in sides.values():  # first touches of memory are not what is measured
        side(10)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(rates["engine 64"]) < 3:
        for name, (side, steps) in sides.items():
            rates[name].append(side(max(1, round(share * steps))))
    table = [_row("engine 64", "physics 64", 0.85, rates), _row("engine 8", "physics 8", 0.7, rates),
             _row("engine 8", "gymnasium 8", 1.3, rates), _row("reach/fr3 64", None, None, rates),
             _row("reach/fr3 randomized 64", None, None, rates)]  # fmt: skip
    return table


def _row(name: str, against: str | None, bar: float | None, rates: Mapping[str, list[float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"what": name, "steps_per_cpu_second": round(statistics.median(rates[name]))}
    if against is not None and bar is not None:
        ratio = statistics.median(a / b for a, b in zip(rates[name], rates[against], strict=True))
        row |= {"against": against, "against_steps_per_cpu_second": round(statistics.median(rates[against])),
                "ratio": round(ratio, 3), "bar": bar, "passed": ratio >= bar}  # fmt: skip
    return row | {"rounds": len(rates[name])}


if __name__ == "__main__":
    for line in rows(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0):
        print("  ".join(f"{key}={value}" for key, value in line.items()))
