"""What an environment step costs: our engines against physics alone, other vector environments, and themselves.

`poise bench sim [--only NAME] [--seconds S]` prints a table; so does this file by itself. CPU-seconds on one thread,
actions drawn beforehand for every side. The two sides of a row run short rounds in turn in a process of their own, so
that a busy or throttled machine slows them alike; a row gives the median of the rounds' ratios. Only the row about two
threads uses the clock on the wall, and the best round of either side.

Legend: N worlds, S substeps, T steps.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from mujoco.rollout import Rollout

from poise.errors import UsageError
from poise.sim.make import load_task, make
from poise.sim.randomization import Randomization
from poise.sim.task_env import TaskEnv
from poise.tests.benchmarks.row_process import rows_apart

_CTRL = int(mujoco.mjtState.mjSTATE_CTRL)
Side = Callable[[int], float]  # takes about that many environment steps, gives environment steps a second


@dataclass(frozen=True)
class Pair:
    """Two sides, and what the ratio of their rates should be at least."""

    what: str
    ours: Callable[[], Side]
    against: str
    theirs: Callable[[], Side]
    bar: float | None  # None: for information
    steps: int  # environment steps of one round of either side
    wall: bool = False


def env_side(name: str, worlds: int, randomize: Any = "none", threads: int = 1, clock: Any = time.process_time) -> Side:
    """Our worlds under random actions, resets included."""
    env = make(name, worlds, 0, randomize, threads=threads)
    generator = torch.Generator().manual_seed(0)
    actions = [torch.rand(worlds, env.spec.action_dim, generator=generator) * 2 - 1 for _ in range(256)]
    env.reset(0)
    return _timed(lambda i: env.step(actions[i % 256]), worlds, clock)


def physics_side(name: str, worlds: int) -> Side:
    """mujoco.rollout over control periods that an env of ours went through: nothing but their physics.

    The states at their beginning and the commands are recorded beforehand, so that both sides simulate the same: worlds
    left to themselves would lie on the ground where an env starts its episode again.
    """
    task = load_task(name)
    env = TaskEnv(task, worlds, task.randomization, threads=1)
    env.reset(0)
    generator = torch.Generator().manual_seed(0)
    states, commands, path = [], [], env.commands.step

    def recording(*args: Any) -> np.ndarray:
        commands.append(path(*args).copy())
        return commands[-1]

    env.commands.step = recording
    for _ in range(256):
        states.append(env.engine.state.copy())
        env.step(torch.rand(worlds, env.spec.action_dim, generator=generator) * 2 - 1)
    models, data, pool = env.engine.models, [mujoco.MjData(env.engine.model)], Rollout(nthread=0)
    substeps = env.engine.num_substeps
    trace = np.empty((worlds, substeps, states[0].shape[1]))

    def step(i: int) -> None:
        pool.rollout(models, data, states[i % 256], commands[i % 256], control_spec=_CTRL, skip_checks=True,
                     nstep=substeps, state=trace)  # fmt: skip

    return _timed(step, worlds)


def gymnasium_side(name: str, worlds: int) -> Side:
    env = gymnasium.make_vec(name, worlds, vectorization_mode="sync")
    env.reset(seed=0)
    return _theirs(env, worlds, env.single_action_space.high[0], env.single_action_space.shape)


def envpool_side(name: str, worlds: int) -> Side:
    try:
        import envpool  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError("not installed: pip install envpool") from None
    env = envpool.make_gymnasium(name, num_envs=worlds, num_threads=1, seed=0)
    env.reset()
    return _theirs(env, worlds, env.action_space.high[0], env.action_space.shape)


def robosuite_side(task: str, robot: str, controller: str) -> Side:
    """robosuite alone: the options of our adapter, its own composite controller and its own loop."""
    from poise.sim.robosuite_env import quiet, robosuite, settings

    with quiet():
        env = robosuite.make(task, **settings(robot, controller, composite="BASIC"), seed=0)
        env.reset()
    actions = np.random.default_rng(0).uniform(-1, 1, (256, env.action_dim)).astype(np.float32)

    def step(i: int) -> None:
        env.step(actions[i % 256])
        if env.timestep == 500:
            with quiet():
                env.reset()

    return _timed(step, 1)


def _theirs(env: Any, worlds: int, high: float, shape: Any) -> Side:
    actions = np.random.default_rng(0).uniform(-high, high, (256, worlds, *shape)).astype(np.float32)
    return _timed(lambda i: env.step(actions[i % 256]), worlds)


def _timed(step: Callable[[int], Any], worlds: int, clock: Callable[[], float] = time.process_time) -> Side:
    made = 0

    def run(count: int) -> float:
        nonlocal made
        steps, start = max(1, count // worlds), clock()
        for _ in range(steps):
            step(made)
            made += 1
        return worlds * steps / (clock() - start)

    return run


# ---- the table -----------------------------------------------------------------------------------

TASKS = {"HalfCheetah-v5": 64_000, "Ant-v5": 9_600, "Humanoid-v5": 9_600}  # environment steps of a round


def physics_pair(name: str, worlds: int, bar: float) -> Pair:
    return Pair(f"{name}, {worlds} randomized worlds", partial(env_side, name, worlds, "default"),
                "physics alone", partial(physics_side, name, worlds), bar, TASKS[name] * worlds // 64)  # fmt: skip


def peer_pair(name: str, peer: str, side: Callable[[str, int], Side], bar: float | None) -> Pair:
    return Pair(f"{name}, 8 worlds, {peer}", partial(env_side, name, 8), f"{peer}(8)", partial(side, name, 8), bar,
                TASKS[name] // 8)  # fmt: skip


def robosuite_pair(task: str, robot: str, controller: str) -> Pair:
    name = f"robosuite:{task}/{robot}?controller={controller}"
    return Pair(name, partial(env_side, name, 1), "robosuite alone", partial(robosuite_side, task, robot, controller),
                0.9, 50)  # fmt: skip


def drawing_pair(name: str, steps: int) -> Pair:
    """64 worlds that are drawn anew for every episode, against worlds as different as these that are drawn once."""
    return Pair(f"{name}, drawn every episode", partial(env_side, name, 64, "default"), "drawn once",
                partial(_drawn_once, name), 0.95, steps)  # fmt: skip


def _drawn_once(name: str) -> Side:
    terms = load_task(name).randomization.terms
    return env_side(name, 64, Randomization(tuple(replace(term, when="start") for term in terms)))


def randomization_pair(name: str, steps: int, bar: float | None) -> Pair:
    """64 worlds with a model each and all draws, against worlds that share one model."""
    return Pair(f"{name}, randomized", partial(env_side, name, 64, "default"), "not randomized",
                partial(env_side, name, 64), bar, steps)  # fmt: skip


def many_pair(name: str) -> Pair:
    """Separate models crowd the processor's cache: a step may cost 1.4 times as much."""
    return Pair(f"{name}, 4096 randomized worlds", partial(env_side, name, 4096, "default"), "16 of them",
                partial(env_side, name, 16, "default"), round(1 / 1.4, 3), 4 * 4096)  # fmt: skip


def threads_pair(name: str, steps: int) -> Pair:
    side = partial(env_side, name, 64, "default", clock=time.perf_counter)
    return Pair(f"{name}, two threads", partial(side, threads=2), "one thread, wall clock", partial(side, threads=1),
                1.7, steps, wall=True)  # fmt: skip


PAIRS = (
    *(physics_pair(name, 64, 0.85) for name in TASKS),
    physics_pair("HalfCheetah-v5", 8, 0.7),
    *(peer_pair(name, "SyncVectorEnv", gymnasium_side, 1.0) for name in TASKS),
    *(peer_pair(name, "EnvPool", envpool_side, None) for name in TASKS),
    *(drawing_pair(name, steps) for name, steps in TASKS.items()),
    drawing_pair("reach/fr3", 6400),
    *(randomization_pair(name, steps, 0.95) for name, steps in TASKS.items()),
    randomization_pair("reach/fr3", 6400, None),  # other physics: its arm then has dry friction and a payload
    robosuite_pair("Lift", "Panda", "OSC_POSE"),
    robosuite_pair("Door", "UR5e", "JOINT_POSITION"),
    many_pair("HalfCheetah-v5"),
    threads_pair("HalfCheetah-v5", 64_000),
    threads_pair("Ant-v5", 9_600),
)


def rows(seconds: float = 30.0, only: str = "") -> list[dict[str, Any]]:
    """The table, each pair measured for about that many seconds: one dict a line, JSON values only."""
    return rows_apart(__file__, PAIRS, seconds, only)


def measure(pair: Pair, seconds: float, share: float = 1.0) -> dict[str, Any]:
    """One row; `share` of a round's steps makes it short."""
    row: dict[str, Any] = {"what": pair.what, "against": pair.against, "bar": pair.bar}
    try:
        ours, theirs = pair.ours(), pair.theirs()
    except UsageError as error:
        return {**row, "passed": None, "note": str(error)}
    steps = max(1, round(share * pair.steps))
    ours(max(1, steps // 8)), theirs(max(1, steps // 8))  # first touches of memory are not what is measured
    rates: list[tuple[float, float]] = []
    deadline, least = time.monotonic() + seconds, 5 if pair.wall else 3
    while time.monotonic() < deadline or len(rates) < least:
        rates.append((ours(steps), theirs(steps)))
    mine, other = zip(*rates, strict=True)
    ratio = max(mine) / max(other) if pair.wall else statistics.median(a / b for a, b in rates)
    return {
        **row,
        "steps_per_second": round(statistics.median(mine)),
        "against_steps_per_second": round(statistics.median(other)),
        "ratio": round(ratio, 3),
        "passed": None if pair.bar is None else ratio >= pair.bar,
        "rounds": len(rates),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--row"]:
        print(json.dumps(next(measure(pair, float(sys.argv[3])) for pair in PAIRS if pair.what == sys.argv[2])))
    else:
        for line in rows(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0, *sys.argv[2:3]):
            print("  ".join(f"{key}={value}" for key, value in line.items()))
