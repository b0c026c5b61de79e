"""Simulation and learning on one device: physics, environments, updates, whole iterations, time to a success.

`poise bench gpu [--only NAME] [--seconds S] [--device cuda|cpu]` prints a table, hardware, versions and commit above
it; each row has a process of its own, so that peak memory is its own. A row of a peer does the same work in the same
run, in turns. On a CPU (`--device cpu`) the same rows run with a few worlds, to see that they do; its figures mean
nothing. Legend: N worlds, T steps of a rollout.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from device_clock import median_seconds, peak_memory
from row_process import rows_apart
from rsl_rl_side import RslRl, available
from sac_peers import Sizes, compiled_and_captured, eager, transitions
from torch import Tensor

from poise.batch import Batch, Step
from poise.datasets.device_replay import DeviceReplay
from poise.errors import PoiseError
from poise.policies import sac_update
from poise.policies.devices import choose_device, stays_on_device
from poise.policies.recipes import recipe
from poise.policies.run_folder import describe_machine
from poise.policies.sac_core import Plain
from poise.policies.sac_general import Seen
from poise.policies.train import train
from poise.sim.make import make

WORLDS = (256, 1024, 4096, 16384, 32768)
TASKS = ("reach/fr3", "lift/fr3", "walk/quad")
LEARNING_WORLDS = 4096
Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A row: what it is called, and what measures it in so many seconds on a device."""

    what: str
    measure: Callable[[torch.device, float], Row]


def few(device: torch.device, many: int) -> int:
    """As many worlds as the device is for."""
    return many if device.type == "cuda" else min(many, 8)


# ---- worlds --------------------------------------------------------------------------------------


def physics(task: str, many: int, device: torch.device, seconds: float) -> Row:
    """Steps of physics and of the environment a second, over all worlds; randomized as the task says."""
    n = few(device, many)
    env = make(task, n, 0, "default", engine="warp", device=str(device))
    env.reset(0)
    substeps = env.parts.substeps
    ctrl = torch.zeros(n, substeps, env.parts.model.nu, device=device)
    action = torch.rand(n, env.spec.action_dim, device=device) * 2.0 - 1.0
    [of_env] = median_seconds([lambda: env.step(action)], device, seconds / 2)
    [of_physics] = median_seconds([lambda: env.engine.step(ctrl)], device, seconds / 2)
    return {"worlds": n, "physics_steps_per_s": round(n * substeps / of_physics),
            "env_steps_per_s": round(n / of_env), "overflow": int(env.metrics()["train/contact_overflow"])}  # fmt: skip


# ---- updates -------------------------------------------------------------------------------------


def update_of_sac(device: torch.device, seconds: float) -> Row:
    """One gradient step of plain SAC: eager, compiled, captured; and as others write it."""
    sizes = Sizes(27, 7)
    batch = transitions(sizes, device)
    works: dict[str, Callable[[], object]] = {}
    if device.type == "cuda":  # nothing is captured on a CPU, and compiling would take a minute
        works["eager"] = _eager_sac_step(sizes, batch, device)
        works["compiled"] = _sac_step({"compile": "on"}, batch, device)
    works["captured"] = _sac_step({}, batch, device)
    works["cleanrl_style"] = partial(eager(sizes, device), *batch)
    works["leanrl_style"] = partial(compiled_and_captured(sizes, device), *batch)
    took = dict(zip(works, median_seconds(list(works.values()), device, seconds), strict=True))
    row: Row = {"batch": sizes.batch, **{f"{name}_us": round(1e6 * s, 1) for name, s in took.items()}}
    if "eager" in took:
        row["captured_over_eager"] = round(took["eager"] / took["captured"], 2)
    return {**row, "captured_over_leanrl_style": round(took["leanrl_style"] / took["captured"], 2),
            "bars": "4 over eager, 1 over leanrl_style"}  # fmt: skip


def _core(settings: Mapping[str, Any], batch: tuple[Tensor, ...], device: torch.device) -> tuple[Any, Tensor]:
    """Plain SAC's networks for batches like this, and noise for one."""
    chosen = recipe("sac", None, settings).settings
    obs, action = batch[:2]
    core = Plain(obs.shape[1], action.shape[1], chosen, torch.Generator().manual_seed(0), device,
                 chosen.compile == "on")  # fmt: skip
    return core, torch.randn(2 * len(obs), action.shape[1], device=device)


def _sac_step(settings: Mapping[str, Any], batch: tuple[Tensor, ...], device: torch.device) -> Callable[[], object]:
    """The update as the learner makes it: one graph on a GPU."""
    core, noise = _core(settings, batch, device)
    obs, action, reward, next_obs, terminated = batch
    seen = Seen(obs, None), action, reward, Seen(next_obs, None), terminated.bool()
    return lambda: core.update(*seen, None, noise, True)


def _eager_sac_step(sizes: Sizes, batch: tuple[Tensor, ...], device: torch.device) -> Callable[[], object]:
    """The same update kernel by kernel."""
    core, noise = _core({}, batch, device)
    obs, action, reward, next_obs, terminated = batch
    rows = sac_update.Transitions(obs, action, reward, next_obs, terminated.bool(), noise)
    rates = sac_update.Rates(sizes.learning_rate, sizes.discount, sizes.tau, -float(sizes.action))
    return lambda: sac_update.update(core.networks, rows, rates, *core.work)


def update_of_ppo(device: torch.device, seconds: float) -> Row:
    """The update phase of PPO on a rollout of reach/fr3's sizes: all epochs and minibatches; and rsl_rl's."""
    n = few(device, LEARNING_WORLDS)
    chosen = _ppo(n)
    spec = make("reach/fr3", 1).spec
    learner = chosen.learner(spec, chosen.settings, n, 0, device, planned_steps=10**8)
    t, obs_dim, g = learner.collect_steps, spec.obs_shape("state")[0], torch.Generator().manual_seed(0)
    obs = torch.randn(n, t + 1, obs_dim, generator=g).to(device)
    action = (torch.rand(n, t, spec.action_dim, generator=g) * 2.0 - 1.0).to(device)
    never = torch.zeros(n, t, dtype=torch.bool, device=device)
    batch = Batch({"state": obs[:, :-1]}, action, torch.randn(n, t, generator=g).to(device), {"state": obs[:, 1:]},
                  never, never, extras={"raw_action": action})  # fmt: skip
    works: list[Callable[[], object]] = [lambda: learner.update(batch)]
    missing = available()
    if not missing:
        peer = RslRl(obs_dim, spec.action_dim, n, t, chosen.settings, device)
        peer.collect(obs[:, 0], partial(_replayed, iter(range(t)), batch))
        works.append(peer.update)
    took = median_seconds(works, device, seconds)
    row: Row = {"worlds": n, "rollout": n * t, "ours_ms": round(1e3 * took[0], 2)}
    if missing:
        return {**row, "rsl_rl_ms": f"not measured: {missing}"}
    return {**row, "rsl_rl_ms": round(1e3 * took[1], 2), "ratio": round(took[1] / took[0], 2), "bar": 3.0}


def _replayed(steps: Any, batch: Batch, action: Tensor) -> Any:
    """A step of a rollout that is there already."""
    i = next(steps)
    obs = {"state": batch.next_obs["state"][:, i]}
    return Step(obs, obs, batch.reward[:, i], batch.terminated[:, i], batch.truncated[:, i])


def _ppo(n: int) -> Any:
    chosen = recipe("ppo", "reach/fr3", {"num_envs": n, "collect_steps": 24, "epochs": 5, "minibatches": 4})
    return replace(chosen, settings=replace(chosen.settings, hidden=(256, 128, 64)))


# ---- whole iterations ----------------------------------------------------------------------------


def end_to_end(algorithm: str, settings: Mapping[str, Any], device: torch.device, seconds: float) -> Row:
    """Environment steps a second of the whole loop: acting, stepping, storing, updating."""
    n = few(device, LEARNING_WORLDS)
    if algorithm != "ppo":  # it learns from the first steps on, of small batches where there are few worlds
        rows = 4096 if device.type == "cuda" else 16
        settings = {**settings, "batch_size": rows, "learning_starts": rows}
    chosen = _ppo(n) if algorithm == "ppo" else recipe(algorithm, "reach/fr3", {"num_envs": n, **settings})
    env = make("reach/fr3", n, 0, "default", engine="warp", device=str(device))
    works: list[Callable[[], object]] = [_iteration(chosen, env, device)]
    missing = available() if algorithm == "ppo" else "sac"
    if not missing:
        other = make("reach/fr3", n, 0, "default", engine="warp", device=str(device))
        works.append(_their_iteration(chosen.settings, other, device))
    took = median_seconds(works, device, seconds)
    steps = n * chosen.settings.collect_steps
    row: Row = {"worlds": n, "ours_steps_per_s": round(steps / took[0])}
    if algorithm != "ppo":
        return row
    if missing:
        return {**row, "rsl_rl_steps_per_s": f"not measured: {missing}"}
    return {**row, "rsl_rl_steps_per_s": round(steps / took[1]), "ratio": round(took[1] / took[0], 2), "bar": 1.5}


def _iteration(chosen: Any, env: Any, device: torch.device) -> Callable[[], None]:
    """What `poise train` does between two looks at the clock."""
    learner = chosen.learner(env.spec, chosen.settings, env.num_envs, 0, device, planned_steps=10**8)
    buffer = learner.make_buffer(on_device=True) if stays_on_device(env, learner) else learner.make_buffer()
    rng = np.random.default_rng(0)
    at = {"obs": env.reset(0), "state": learner.initial_state(env.num_envs), "steps": 0}

    def iteration() -> None:
        for _ in range(learner.collect_steps):
            action, extras, at["state"] = learner.act(at["obs"], at["state"])
            step = env.step(action)
            buffer.add(at["obs"], action, extras, step)
            at["obs"] = step.obs
            at["steps"] += env.num_envs
        due = learner.updates_due(at["steps"])
        if due and isinstance(buffer, DeviceReplay):
            learner.update_from(buffer, due)
            return
        for _ in range(due):
            learner.update(buffer.sample(learner.request, rng))

    return iteration


def _their_iteration(settings: Any, env: Any, device: torch.device) -> Callable[[], None]:
    obs = env.reset(0)["state"]
    peer = RslRl(obs.shape[1], env.spec.action_dim, env.num_envs, settings.collect_steps, settings, device)
    at = [obs]

    def iteration() -> None:
        at[0] = peer.collect(at[0], env.step)
        peer.update()

    return iteration


def time_to_success(algorithm: str, task: str, bar: float, limit: float, device: torch.device, seconds: float) -> Row:
    """Seconds of `poise train`, from its start, until an evaluation on the CPU engine succeeds often enough."""
    settings: dict[str, Any] = {"engine": "warp", "device": device.type, "num_envs": few(device, LEARNING_WORLDS)}
    settings |= {"evaluations": 40} if device.type == "cuda" else {"steps": 64, "evaluations": 1, "eval_episodes": 2}
    best: Row = {}

    def watch(step: int, total: int, values: Mapping[str, float]) -> None:
        success = values.get("eval/success", -1.0)
        if success > best.get("success", -1.0):
            best.update(success=success, steps=step, seconds=round(time.monotonic() - began, 1))
        if success >= bar or time.monotonic() - began > limit:
            raise _Enough

    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        with contextlib.suppress(_Enough):
            train(algorithm, task, Path(folder) / "run", settings=settings, progress=watch)
    return {"worlds": settings["num_envs"], **best, "bar": f"{bar:g} within {limit:g} s"}


class _Enough(Exception):
    """What was waited for has come, or will not."""


CASES = [
    *(Case(f"{task}, {n} worlds", partial(physics, task, n)) for task in TASKS for n in WORLDS),
    Case("PPO update", update_of_ppo),
    Case("SAC update", update_of_sac),
    Case("PPO end to end", partial(end_to_end, "ppo", {})),
    Case("SAC end to end", partial(end_to_end, "sac/massive", {})),
    Case("reach to 90 %", partial(time_to_success, "ppo", "reach/fr3", 0.9, 60.0)),
    Case("lift to 85 %", partial(time_to_success, "sac/massive", "lift/fr3", 0.85, 600.0)),
]


def rows(seconds: float = 10.0, only: str = "", device: str = "cuda") -> list[Row]:
    """The table, each row measured for about that many seconds: one dict a line, JSON values only.

    Raises:
        UsageError: there is no such device, or no such row.
    """
    chosen = choose_device(device).device
    print(json.dumps(hardware(chosen)))
    return rows_apart(__file__, CASES, seconds, only, chosen.type)


def hardware(device: torch.device) -> Row:
    """What the figures were measured on."""
    from importlib.metadata import version

    machine = describe_machine(0)
    versions = {**machine["versions"], **{name: version(name) for name in ("mujoco-warp", "warp-lang")}}
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    return {"gpu": gpu, "cpu": machine["cpu"], "commit": machine["commit"], "versions": versions}


def _row(what: str, seconds: float, device: str) -> None:
    """Print one row as JSON; one that could not be measured says why, and leaves the others theirs."""
    where = torch.device(device)
    case = next(case for case in CASES if case.what == what)
    try:
        row = {"what": what, **case.measure(where, seconds), "peak_mb": peak_memory(where)}
    except (PoiseError, RuntimeError) as error:
        row = {"what": what, "not_measured": str(error).splitlines()[0]}
    print(json.dumps(row))


if __name__ == "__main__":
    _row(sys.argv[2], float(sys.argv[3]), sys.argv[4])
