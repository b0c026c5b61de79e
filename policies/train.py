"""Training in simulation: one loop for every learner. What a run is besides stands in run.py.

for each iteration:
    collect_steps times:           act -> env.step -> buffer.add
    updates_due(env_steps) times:  update(buffer.sample(request, rng))
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..datasets.device_replay import DeviceReplay
from ..sim.make import make
from . import demos as demonstrations
from .device_statistics import DeviceEpisodeStatistics
from .devices import Chosen, Work, choose_device, say, stays_on_device
from .engines import Engine, choose_engine, engine_device
from .episode_statistics import EpisodeStatistics
from .evaluate import Evaluation
from .follower_folder import FollowerFolder
from .learner import restart
from .parallel import ALONE, Group
from .processes import (
    Place,
    place_of_torchrun,
    require_one_search,
    require_same_size,
    require_shared,
    run_together,
)
from .recipes import Recipe, training_recipe
from .run import Progress, Run, RunResult, new_run_folder, torch_threads
from .run_folder import RunFolder, describe_machine, read_config
from .run_settings import RunSettings


def train(
    algorithm: str,
    task: str,
    out: Path | str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    demos: demonstrations.Files = (),
    resume: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Train `algorithm` on `task` into the run folder `out` (a new one under runs/ by default).

    `settings` overrides the recipe's, run settings (steps, seed, num_envs, …) and the algorithm's alike.
    `demos` are files of demonstrations, FILE or FILE:FILTER, that an off-policy learner learns from too: see demos.py.
    With `resume`, `out` is a run folder to go on with; `settings` may then change `steps` alone.

    Raises:
        UsageError: an unknown task, algorithm or setting, or an algorithm that takes no demonstrations.
        RunError: the folder is taken, locked, damaged or full, or demonstrations have changed since.
        DatasetError, SpecError: demonstrations cannot be read, or are not of such a task.
        Interrupted: Ctrl-C; the run is saved.
    """
    chosen = training_recipe(algorithm, task, settings or {})
    assert isinstance(chosen.run, RunSettings)
    require_shared(algorithm, chosen.learner, chosen.run.num_envs, chosen.run.processes)
    place = place_of_torchrun(chosen.run.processes)
    if place is None and chosen.run.processes > 1:
        return _train_together(algorithm, task, out, chosen, demos, resume, progress)
    return train_here(place or Place(), algorithm, task, out, settings, demos, resume, progress)


def _train_together(algorithm: str, task: str, out: Path | str | None, chosen: Recipe, demos: demonstrations.Files,
                    resume: bool, progress: Progress | None) -> RunResult:  # fmt: skip
    """The same in processes that are started for it."""
    assert isinstance(chosen.run, RunSettings)
    path = Path(out) if out is not None else new_run_folder(f"{task}-{algorithm}-seed{chosen.run.seed}")
    order = {"algorithm": algorithm, "task": task, "out": str(path), "demos": [os.fspath(file) for file in demos],
             "resume": resume, "settings": {**asdict(chosen.run), **asdict(chosen.settings)}}  # fmt: skip
    result = run_together(chosen.run.processes, order, progress)
    scored = Evaluation(**result["eval"]) if result["eval"] else None
    return RunResult(Path(result["run_dir"]), Path(result["policy"]), result["steps"], result["seconds"], scored)


def train_here(place: Place, algorithm: str, task: str, out: Path | str | None, settings: Mapping[str, Any] | None,
               demos: demonstrations.Files, resume: bool, progress: Progress | None) -> RunResult:  # fmt: skip
    """`train` as one of the processes of a run, or the only one."""
    chosen = training_recipe(algorithm, task, settings or {})
    assert isinstance(chosen.run, RunSettings)
    require_shared(algorithm, chosen.learner, chosen.run.num_envs, place.size)
    path = Path(out) if out is not None else new_run_folder(f"{task}-{algorithm}-seed{chosen.run.seed}")
    randomize, config = chosen.run.randomize, {}
    if resume:
        config = read_config(path)
        require_same_size(config["run"], place.size)
        demonstrations.require_unchanged(config)
        randomize, demos = config["randomization"] or "none", demonstrations.recorded(config)
    if demos:
        demonstrations.require_takes_demos(algorithm, chosen.settings)
    run = replace(chosen.run, processes=place.size)
    chosen = replace(chosen, run=run)
    place.take_gpu()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch_threads(run.torch_threads))
        engine = Engine(config.get("engine", "cpu"), "as before") if resume else _engine(chosen, place, task, randomize)
        env = _worlds(algorithm, task, chosen, place, engine, randomize)
        stack.callback(env.close)
        where = _device(chosen, place, engine, env)
        group = place.join(where.device)
        path = Path(group.told(str(path))[0])
        more = {"group": group} if group.size > 1 else {}
        learner = chosen.learner(
            env.spec, chosen.settings, env.num_envs, run.seed, where.device, planned_steps=run.steps, **more
        )
        folder = RunFolder(path, resume) if group.rank == 0 else FollowerFolder(path, group.rank)
        stack.callback(folder.close)
        if not resume:
            config = _config(algorithm, task, chosen, env, where, engine)
            config |= {"demos": demonstrations.record(demos)} if demos else {}
            folder.write_json("config.json", config)
        buffer = learner.make_buffer(on_device=True) if stays_on_device(env, learner) else learner.make_buffer()
        if demos:
            data = demonstrations.demonstrations(demos, task, env.spec, where.device)
            if not resume:
                learner.look_at(data)
            buffer = demonstrations.mixed(buffer, data, chosen.settings.demo_share)
        told = progress if group.rank == 0 else None
        result = _loop(run)(algorithm, task, run, env, learner, buffer, folder, told, group).go(resume)
        group.close()
        return result


def _engine(chosen: Recipe, place: Place, task: str, randomize: Any) -> Engine:
    """What steps the worlds of a new run, a process's share of them."""
    assert isinstance(chosen.run, RunSettings)
    return choose_engine(replace(chosen.run, num_envs=chosen.run.num_envs // place.size), task, randomize)


def _worlds(algorithm: str, task: str, chosen: Recipe, place: Place, engine: Engine, randomize: Any) -> Any:
    """A process's share of the worlds, in this process or in those of actors."""
    run = chosen.run
    assert isinstance(run, RunSettings)
    if run.collect == "async":
        from .async_collect import actors_for

        return actors_for(algorithm, task, chosen, randomize)
    env = make(task, run.num_envs // place.size, run.seed, randomize, place.threads(run.threads), training=True,
               engine=engine.name, device=engine_device(run))  # fmt: skip
    require_one_search(env, place.size)
    return env


def _device(chosen: Recipe, place: Place, engine: Engine, env: Any) -> Chosen:
    """Where the networks live, told once."""
    run = chosen.run
    assert isinstance(run, RunSettings)
    work = Work.of(chosen.settings, env.num_envs, bool(env.spec.images), env.device.type == "cuda")
    where = choose_device(run.device, work)
    place.require_gpu(where.device)
    if place.rank == 0:
        _say_where(where, engine, env)
    if run.collect == "async":
        env.device = where.device  # where rows of actors go
    return where


def _loop(run: RunSettings) -> Any:
    """The loop that suits how steps are collected."""
    if run.collect == "sync":
        return Training
    from .async_collect import AsyncTraining

    return AsyncTraining


def resume(
    run_dir: Path | str, steps: int | None = None, device: str | None = None, progress: Progress | None = None
) -> RunResult:
    """Go on with a run that was stopped or killed, to its own total of steps or to `steps`."""
    config = read_config(Path(run_dir))
    settings = {**config["run"], **config["settings"]}
    if steps is not None:
        settings["steps"] = steps
    if device is not None:
        settings["device"] = device
    return train(config["algorithm"], config["task"], run_dir, settings=settings, resume=True, progress=progress)


class Training(Run):
    """One run of the loop; its steps are those of all worlds together."""

    def __init__(self, algorithm: str, task: str, run: RunSettings, env, learner, buffer,
                 folder: RunFolder | FollowerFolder, progress, group: Group = ALONE):  # fmt: skip
        super().__init__(algorithm, task, run, learner, folder, progress, group)
        self.env = env
        self.buffer = buffer
        self.obs: Mapping[str, Tensor] = {}
        self.on_device = stays_on_device(env, learner)
        self.initial_state = learner.initial_state(env.num_envs)
        self.episodes: EpisodeStatistics | DeviceEpisodeStatistics = EpisodeStatistics(env.num_envs)
        if self.on_device:
            self.initial_state = {name: x.to(env.device) for name, x in self.initial_state.items()}
            self.episodes = DeviceEpisodeStatistics(env.num_envs, env.device)
        self.state: Mapping[str, Tensor] = self.initial_state  # what a recurrent learner carries

    def iterate(self) -> None:
        """Collect, then learn."""
        obs = self.obs
        for _ in range(self.learner.collect_steps):
            action, extras, self.state = self.learner.act(obs, self.state)
            step = self.env.step(action)
            self.buffer.add(obs, action, extras, step)
            self.episodes.add(step)
            if self.state:
                self.state = restart(self.state, step.ended, self.initial_state, look=not self.on_device)
            self.obs = obs = step.obs
            self.steps += self.env.num_envs * self.group.size
        self.learn()

    def learn(self) -> int:
        """Make the updates that are due, and return their number."""
        due = self.learner.updates_due(self.steps)
        if due and isinstance(self.buffer, DeviceReplay):
            self.metrics.add(self.learner.update_from(self.buffer, due))
            return due
        for _ in range(due):
            batch = self.buffer.sample(self.learner.request, self.rng)
            metrics = self.learner.update(batch)
            if "priorities" in metrics:
                self.buffer.set_priorities(batch.rows, metrics.pop("priorities"))
            self.metrics.add(metrics)
        return due

    def begin(self) -> None:
        if self.group.size == 1:
            self.obs = self.env.reset(self.run.seed)
        else:
            n = self.env.num_envs
            self.obs = self.env.reset(self.run.seed, worlds=self.group.rank * n + np.arange(n))

    def own_metrics(self) -> dict[str, float]:
        """Of the episodes, and what the worlds themselves have to say."""
        values = self.episodes.take()
        return values | self.env.metrics() if hasattr(self.env, "metrics") else values

    @property
    def evaluation_ranges(self) -> Any:
        return evaluation_ranges(self.env) or "none"

    def provenance(self) -> dict[str, Any]:
        ranges = trained_ranges(self.env)
        if getattr(self.env, "adr", None) is not None:
            self.folder.write_json("adr.json", ranges)
        return {"randomize": ranges}

    def own_state(self) -> dict[str, Any]:
        return {"env": self.env.state_dict(), "act_state": dict(self.state), "episodes": self.episodes.state_dict()}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        self.episodes.load_state_dict(state["episodes"])
        self.state = {name: x.to(self.initial_state[name].device) for name, x in state["act_state"].items()}
        self.obs = self.env.load_state_dict(state["env"])


def randomization_of(env: Any) -> dict[str, Any] | None:
    """What a task's worlds differ in, as data; None for a simulator that cannot be randomized."""
    randomization = getattr(env, "randomization", None)
    return None if randomization is None else randomization.to_json()


def evaluation_ranges(env: Any) -> dict[str, Any] | None:
    """The same for scoring: where ranges adapt, those that they are compared with, so that scores stay comparable."""
    data = randomization_of(env)
    return None if data is None else {name: value for name, value in data.items() if name != "adr"}


def trained_ranges(env: Any) -> dict[str, Any] | None:
    """The ranges that the worlds draw from now: those of `adr.json`, where they adapt."""
    search = getattr(env, "adr", None)
    return randomization_of(env) if search is None else search.ranges().to_json()


def _say_where(where: Chosen, engine: Engine, env: Any) -> None:
    """What was chosen, in a line each."""
    say(where)
    if engine.name == "warp" or where.device.type == "cuda":
        say(engine)
        for note in getattr(env, "notes", ()):
            say(f"engine {engine.name}: {note}")


def _config(algorithm: str, task: str, chosen: Recipe, env: Any, where: Chosen, engine: Engine) -> dict[str, Any]:
    return {
        "algorithm": algorithm,
        "task": task,
        "run": asdict(chosen.run),
        "settings": asdict(chosen.settings),
        "randomization": randomization_of(env),
        "device": str(where.device),
        "device_reason": where.why,
        "engine": engine.name,
        "engine_reason": engine.why,
        "machine": describe_machine(chosen.run.threads),
    }
