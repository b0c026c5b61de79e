"""Training: one loop for every learner, and the run folder around it.

    for each iteration:
        collect_steps times:           act -> env.step -> buffer.add
        updates_due(env_steps) times:  update(buffer.sample(request, rng))

Between iterations, and only there, it logs, evaluates and saves checkpoints; none of the three touches what
training computes, so a run that was killed and resumed ends with the very tensors of one that was not.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Step
from ..errors import PoiseError, RunError, UsageError
from ..keyed import Stream
from ..sim.make import make
from .checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from .evaluate import Evaluation, evaluate
from .interrupts import interrupts
from .learner import restart
from .policy import Policy
from .recipes import Recipe, RunSettings, recipe
from .run_folder import RunFolder, describe_machine, read_config

CHECKPOINT_SHARE = 0.04  # of the training time, at most


class Interrupted(PoiseError):
    """The user pressed Ctrl-C; everything is saved."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves."""

    run_dir: Path
    policy: Path
    steps: int
    seconds: float
    eval: Evaluation | None


Progress = Callable[[int, int, Mapping[str, float]], None]  # (steps, total, newest metrics)


def train(
    algorithm: str,
    task: str,
    out: Path | str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> TrainResult:
    """Train `algorithm` on `task` into the run folder `out` (a new one under runs/ by default).

    `settings` overrides the recipe's, run settings (steps, seed, num_envs, …) and the algorithm's alike.
    With `resume`, `out` is a run folder to go on with; `settings` may then change `steps` alone.

    Raises:
        UsageError: an unknown task, algorithm or setting.
        RunError: the folder is taken, locked, damaged or full.
        Interrupted: Ctrl-C; the run is saved.
    """
    chosen = recipe(algorithm, task, settings or {})
    path = Path(out) if out is not None else _new_run_folder(algorithm, task, chosen.run.seed)
    randomize = read_config(path)["randomization"] or "none" if resume else chosen.run.randomize
    device = choose_device(chosen.run.device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_torch_threads(chosen.run.torch_threads))
        env = make(task, chosen.run.num_envs, chosen.run.seed, randomize, chosen.run.threads, training=True)
        stack.callback(env.close)
        learner = chosen.learner(
            env.spec, chosen.settings, env.num_envs, chosen.run.seed, device, planned_steps=chosen.run.steps
        )
        folder = RunFolder(path, resume)
        stack.callback(folder.close)
        if not resume:
            folder.write_json("config.json", _config(algorithm, task, chosen, env, device))
        return _Run(algorithm, task, chosen.run, env, learner, folder, progress).go(resume)


def resume(
    run_dir: Path | str, steps: int | None = None, device: str | None = None, progress: Progress | None = None
) -> TrainResult:
    """Go on with a run that was stopped or killed, to its own total of steps or to `steps`."""
    config = read_config(Path(run_dir))
    settings = {**config["run"], **config["settings"]}
    if steps is not None:
        settings["steps"] = steps
    if device is not None:
        settings["device"] = device
    return train(config["algorithm"], config["task"], run_dir, settings=settings, resume=True, progress=progress)


def choose_device(name: str) -> torch.device:
    """The torch device for auto, cpu or cuda.

    Raises:
        UsageError: cuda was asked for and is not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda: torch finds no usable GPU here; use --device cpu, or check the driver")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class _Run:
    """One run of the loop: where it stands, and what it leaves in its folder."""

    def __init__(self, algorithm: str, task: str, run: RunSettings, env, learner, folder: RunFolder, progress):
        self.algorithm, self.task, self.run = algorithm, task, run
        self.env, self.learner, self.folder, self.progress = env, learner, folder, progress
        self.randomization = evaluation_ranges(env)
        self.buffer = learner.make_buffer()
        self.rng = np.random.default_rng(int(Stream(run.seed, "train/sample").integer(0, 0)[0]))
        self.steps = 0  # over all worlds
        self.seconds = 0.0  # of training, over all sittings
        self.best = -math.inf
        self.last: Evaluation | None = None
        self.initial_state = learner.initial_state(env.num_envs)
        self.state: Mapping[str, Tensor] = self.initial_state  # what a recurrent learner carries
        self.episodes = EpisodeStatistics(env.num_envs)
        self.metrics = MetricMeans()
        self.next_log = self.next_eval = 0
        self.checkpoint_cost = 0.0

    # ---- the loop ----------------------------------------------------------------------------

    def go(self, resuming: bool) -> TrainResult:
        obs = self._load() if resuming and has_checkpoint(self.folder.checkpoint) else self._begin()
        started = saved = time.monotonic()
        before = self.seconds
        with interrupts() as interrupted:
            while self.steps < self.run.steps:
                try:
                    obs = self._iterate(obs)
                except Exception:  # where a policy has turned to NaN, the worlds or the sampling refuse its actions
                    self._require_sound()
                    raise
                self.seconds = before + time.monotonic() - started
                if self.steps >= self.next_log:
                    self._log()
                if self.steps >= self.next_eval and self.run.evaluations:
                    self._evaluate()
                since = time.monotonic() - saved
                if since >= max(self.run.checkpoint_seconds, self.checkpoint_cost / CHECKPOINT_SHARE):
                    self._save()
                    saved = time.monotonic()
                if interrupted():
                    self._save()
                    self._write_policy("policy.safetensors")
                    raise Interrupted(f"interrupted at step {self.steps} of {self.run.steps}; all is saved; "
                                      f"go on with: poise train --resume {self.folder.path}")  # fmt: skip
            self._save()
            self._write_policy("policy.safetensors")
            self._draw_curves()
        return TrainResult(
            self.folder.path, self.folder.path / "policy.safetensors", self.steps, self.seconds, self.last
        )

    def _iterate(self, obs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Collect, then learn."""
        for _ in range(self.learner.collect_steps):
            action, extras, self.state = self.learner.act(obs, self.state)
            step = self.env.step(action)
            self.buffer.add(obs, action, extras, step)
            self.episodes.add(step)
            if self.state:
                self.state = restart(self.state, step.ended, self.initial_state)
            obs = step.obs
            self.steps += self.env.num_envs
        for _ in range(self.learner.updates_due(self.steps)):
            batch = self.buffer.sample(self.learner.request, self.rng)
            metrics = self.learner.update(batch)
            if "priorities" in metrics:
                self.buffer.set_priorities(batch.rows, metrics.pop("priorities"))
            self.metrics.add(metrics)
        return obs

    def _begin(self) -> Mapping[str, Tensor]:
        """Step 0; also of a run that was killed before its first checkpoint."""
        self.folder.open_metrics(0, 0)
        self._plan()
        return self.env.reset(self.run.seed)

    # ---- what happens between iterations -----------------------------------------------------

    def _plan(self) -> None:
        """Where the next log line and evaluation are due, as a function of the steps taken alone."""
        self.next_log = _next_multiple(self.steps, self.run.steps, self.run.log_points)
        self.next_eval = _next_multiple(self.steps, self.run.steps, self.run.evaluations)

    def _log(self) -> None:
        values = {"seconds": self.seconds, **self.episodes.take(), **self._require_finite(self.metrics.means())}
        if hasattr(self.env, "metrics"):  # what the worlds themselves have to say
            values |= self.env.metrics()
        self.metrics.clear()
        self.folder.write_metrics(self.steps, values)
        self.next_log = _next_multiple(self.steps, self.run.steps, self.run.log_points)
        if self.progress is not None:
            self.progress(self.steps, self.run.steps, values)

    def _require_sound(self) -> None:
        """Raise unless the metrics since the last log line and everything that the learner keeps are finite."""
        self._require_finite(self.metrics.means())
        if bad := _not_finite(self.learner.state_dict()):
            raise self._not_finite_error(f"{bad} of the learner")

    def _require_finite(self, values: dict[str, float]) -> dict[str, float]:
        if bad := [name for name, value in values.items() if not math.isfinite(value)]:
            raise self._not_finite_error(bad[0])
        return values

    def _not_finite_error(self, what: str) -> RunError:
        good = self.folder.checkpoint if has_checkpoint(self.folder.checkpoint) else "none yet"
        return RunError(f"{what} is not finite at step {self.steps}; the run stops; last good checkpoint: {good}")

    def _evaluate(self) -> None:
        self.next_eval = _next_multiple(self.steps, self.run.steps, self.run.evaluations)
        self._require_sound()
        policy = self.learner.policy()
        self.last = evaluate(
            policy, self.task, self.run.eval_episodes, self.run.seed, self.randomization or "none",
            threads=self.run.threads,
        )  # fmt: skip
        values = {
            "eval/return": self.last.return_mean, "eval/low": self.last.return_low, "eval/high": self.last.return_high,
            "eval/iqm": self.last.return_iqm, "eval/length": self.last.length_mean,
        }  # fmt: skip
        if self.last.success_rate is not None:
            values["eval/success"] = self.last.success_rate
        self.folder.write_metrics(self.steps, {"seconds": self.seconds, **values})
        if self.last.return_mean > self.best:
            self.best = self.last.return_mean
            self._write_policy("best.safetensors")
        if self.progress is not None:
            self.progress(self.steps, self.run.steps, values)

    def _write_policy(self, name: str) -> None:
        policy: Policy = self.learner.policy()
        policy.provenance |= {
            "algorithm": self.algorithm,
            "task": self.task,
            "seed": self.run.seed,
            "steps": self.steps,
            "randomize": trained_ranges(self.env),
            "config": read_config(self.folder.path),
        }
        policy.evaluation = self.last.to_json() if self.last is not None else {}
        policy.save(self.folder.path / name)
        if getattr(self.env, "adr", None) is not None:
            self.folder.write_json("adr.json", trained_ranges(self.env))

    def _draw_curves(self) -> None:
        from .curves import draw_curves

        draw_curves(self.folder.path / "metrics.jsonl", self.folder.path / "curves.png")

    # ---- checkpoints -------------------------------------------------------------------------

    def _save(self) -> None:
        """A checkpoint; only of finite numbers."""
        began = time.monotonic()
        self._require_sound()
        state = {
            "env": self.env.state_dict(),
            "learner": self.learner.state_dict(),
            "act_state": dict(self.state),
            "episodes": self.episodes.state_dict(),
            "metrics": self.metrics.state_dict(),
            "rng": self.rng.bit_generator.state,
        }
        info = {
            "steps": self.steps,
            "seconds": self.seconds,
            "best": None if math.isinf(self.best) else self.best,
            "last": self.last.to_json() if self.last else None,
            "metrics_size": self.folder.metrics_size(),
        }
        save_checkpoint(self.folder.checkpoint, state, self.buffer, info)
        self.checkpoint_cost = time.monotonic() - began

    def _load(self) -> Mapping[str, Tensor]:
        state, info = load_checkpoint(self.folder.checkpoint, self.buffer)
        self.learner.load_state_dict(state["learner"])
        self.episodes.load_state_dict(state["episodes"])
        self.metrics.load_state_dict(state["metrics"])
        self.rng.bit_generator.state = state["rng"]
        self.state = state["act_state"]
        self.steps, self.seconds = info["steps"], info["seconds"]
        self.best = -math.inf if info["best"] is None else info["best"]
        self.last = Evaluation(**info["last"]) if info["last"] else None
        self.folder.open_metrics(info["metrics_size"], self.steps)
        self._plan()
        return self.env.load_state_dict(state["env"])


class EpisodeStatistics:
    """Return, length and success of the episodes that ended since they were last asked for.

    Steps are kept until there are some, or until someone asks: a look at each alone would cost a small task's step a
    tenth of its time, and on a GPU wait for it.
    """

    TOGETHER = 64  # steps

    def __init__(self, num_envs: int):
        self._return = np.zeros(num_envs)
        self._length = np.zeros(num_envs)
        self._sums = np.zeros(4)  # episodes, returns, lengths, successes
        self._defines_success = False
        self._steps: list[tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]] = []

    def add(self, step: Step) -> None:
        self._steps.append((step.reward, step.terminated, step.truncated, step.success, step.mask))
        if len(self._steps) == self.TOGETHER:
            self._count()

    def _count(self) -> None:
        """Take in the steps kept, in their order: sums come out the same however many were kept."""
        if not self._steps:
            return
        rewards, terminated, truncated, successes, masks = zip(*self._steps, strict=True)
        self._steps = []
        reward = torch.stack(rewards).numpy(force=True).astype(np.float64)  # (T, N)
        done = (torch.stack(terminated) | torch.stack(truncated)).numpy(force=True)
        counts = np.ones(reward.shape)
        if any(mask is not None for mask in masks):
            given = np.stack([np.ones(len(done[0]), bool) if m is None else m.numpy(force=True) for m in masks])
            reward, counts, done = np.where(given, reward, 0.0), given.astype(np.float64), done & given
        begin = 0
        for row in [*np.flatnonzero(np.logical_or.reduce(done, axis=1)).tolist(), len(done) - 1]:
            if begin <= row:
                reward[begin] += self._return
                self._return = np.add.accumulate(reward[begin : row + 1])[-1]
                self._length = self._length + counts[begin : row + 1].sum(0)
                begin = row + 1
                self._end(done[row], successes[row])

    def _end(self, done: np.ndarray, success: Tensor | None) -> None:
        """The episodes of the worlds `done` (N,) are over."""
        if np.logical_or.reduce(done):
            self._defines_success = success is not None
            successes = 0 if success is None else success.numpy(force=True)[done].sum()
            self._sums += (done.sum(), self._return[done].sum(), self._length[done].sum(), successes)
            self._return[done] = 0.0
            self._length[done] = 0.0

    def take(self) -> dict[str, float]:
        self._count()
        n, returns, lengths, successes = self._sums.tolist()
        self._sums[:] = 0.0
        if n == 0:
            return {}
        values = {"train/return": returns / n, "train/length": lengths / n, "train/episodes": n}
        return {**values, "train/success": successes / n} if self._defines_success else values

    def state_dict(self) -> dict[str, Any]:
        self._count()
        return {"return": self._return, "length": self._length, "sums": self._sums, "success": self._defines_success}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._return, self._length, self._sums = (np.array(state[k]) for k in ("return", "length", "sums"))
        self._defines_success, self._steps = state["success"], []


class MetricMeans:
    """Means of a learner's metrics; they stay on the device until asked for, then come in one transfer."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        if self._count == 0:
            self._sums = {k: v.detach().double() for k, v in metrics.items()}
        else:  # one call for all, since this runs with every update
            sums = [self._sums[name] for name in metrics]
            torch._foreach_add_(sums, list(metrics.values()))  # pyright: ignore[reportPrivateImportUsage]
        self._count += 1

    def means(self) -> dict[str, float]:
        if self._count == 0:
            return {}
        values = (torch.stack(list(self._sums.values())) / self._count).tolist()
        return dict(zip(self._sums, values, strict=True))

    def clear(self) -> None:
        self._count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums, self._count = state["sums"], state["count"]


def _next_multiple(steps: int, total: int, parts: int) -> float:
    """The first of the `parts` equal marks on the way to `total` that lies beyond `steps`."""
    if parts == 0:
        return math.inf
    return (math.floor(steps * parts / total) + 1) * total / parts


def _not_finite(state: Any, path: str = "") -> str:
    """The path of the first number, array or tensor in nested dicts and lists that is not finite; "" for none."""
    if isinstance(state, Mapping):
        parts = state.items()
    elif isinstance(state, list | tuple):
        parts = enumerate(state)
    elif isinstance(state, Tensor):
        return path if state.is_floating_point() and not bool(torch.isfinite(state).all()) else ""
    elif isinstance(state, np.ndarray):
        return path if state.dtype.kind == "f" and not np.isfinite(state).all() else ""
    else:
        return path if isinstance(state, float) and not math.isfinite(state) else ""
    return next((bad for key, part in parts if (bad := _not_finite(part, f"{path}/{key}" if path else str(key)))), "")


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


def _config(algorithm: str, task: str, chosen: Recipe, env, device: torch.device) -> dict[str, Any]:
    return {
        "algorithm": algorithm,
        "task": task,
        "run": asdict(chosen.run),
        "settings": asdict(chosen.settings),
        "randomization": randomization_of(env),
        "device": str(device),
        "machine": describe_machine(chosen.run.threads),
    }


def _new_run_folder(algorithm: str, task: str, seed: int) -> Path:
    """The first free runs/<task>-<algorithm>-seed<seed>[-n]."""
    plain = "".join(c if c.isalnum() else "-" for c in task)
    base = Path("runs") / f"{plain}-{algorithm.replace('/', '-')}-seed{seed}"
    path, n = base, 2
    while path.exists():
        path, n = base.with_name(f"{base.name}-{n}"), n + 1
    return path


@contextlib.contextmanager
def _torch_threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
