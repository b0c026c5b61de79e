"""Run: what training and fitting share, around the iterations of either.

Between iterations, and only there, a run logs, evaluates and saves checkpoints; none of the three touches what
learning computes, so a run that was killed and resumed ends with the very tensors of one that was not.
"""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import PoiseError, RunError
from ..keyed import Stream
from .aside import Aside, Asked
from .checkpoint import has_checkpoint, load_checkpoint, save_checkpoint
from .evaluate import Evaluation
from .evaluation_process import score
from .follower_folder import FollowerFolder
from .interrupts import interrupts
from .metrics import MetricMeans, next_multiple, not_finite, together
from .parallel import ALONE, Group, require_same
from .policy import Policy
from .run_folder import RunFolder, read_config
from .run_settings import LoopSettings

CPU = torch.device("cpu")
CHECKPOINT_SHARE = 0.04  # of the training time, at most


class Interrupted(PoiseError):
    """The user pressed Ctrl-C; everything is saved."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves."""

    run_dir: Path
    policy: Path
    steps: int
    seconds: float
    eval: Evaluation | None
    scores: Mapping[str, float] = field(default_factory=dict)  # what is told of the last evaluation beside returns
    leads: bool = True  # whether this process is the one of those training together that evaluates and writes


Progress = Callable[[int, int, Mapping[str, float]], None]  # (steps, total, newest metrics)


class Run(ABC):
    """One run: where it stands, and what it leaves in its folder. `buffer` is saved with it."""

    verb = "train"  # of the command that goes on with it
    buffer: Any = None

    def __init__(self, algorithm: str, task: str, run: LoopSettings, learner, folder: RunFolder | FollowerFolder,
                 progress, group: Group = ALONE):  # fmt: skip
        self.algorithm, self.task, self.run = algorithm, task, run
        self.learner, self.folder, self.progress, self.group = learner, folder, progress, group
        self.rng = np.random.default_rng(int(Stream(run.seed, "train/sample").integer(group.rank, 0)[0]))
        self.steps = 0
        self.seconds = 0.0  # of learning, over all sittings
        self.best = -math.inf
        self.last: Evaluation | None = None
        self.metrics = MetricMeans()
        self.next_log = self.next_eval = 0
        self.checkpoint_cost = 0.0
        waits = getattr(learner, "device", CPU).type != "cpu" or getattr(run, "collect", "sync") == "async"
        aside = run.aside == "on" or (run.aside == "auto" and waits)  # a device or actors would wait for it
        self.aside = Aside(folder.path) if aside and run.evaluations and folder.leads else None

    # ---- what training and fitting do each in its own way --------------------------------------

    @abstractmethod
    def iterate(self) -> None:
        """Learn, and count `steps` on."""

    @abstractmethod
    def begin(self) -> None:
        """Step 0; also of a run that was killed before its first checkpoint."""

    @abstractmethod
    def own_state(self) -> dict[str, Any]:
        """What a checkpoint holds besides the learner, the sampling and the metrics."""

    @abstractmethod
    def load_own_state(self, state: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def own_metrics(self) -> dict[str, float]:
        """What a log line holds besides the learner's metrics."""

    def own_scores(self, evaluation: Evaluation) -> dict[str, float]:
        """What an evaluation is worth by other measures, which its log line holds too, each as eval/<name>."""
        return {}

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """What a policy file says of where it comes from, besides algorithm, task, seed, steps and config."""

    @property
    @abstractmethod
    def evaluation_ranges(self) -> Any:
        """The randomization that policies are scored in."""

    # ---- the loop ------------------------------------------------------------------------------

    def go(self, resuming: bool) -> RunResult:
        if resuming and self.folder.has_checkpoint():
            self._load()
        else:
            self.folder.open_metrics(0, 0)
            self._plan()
            self.begin()
        try:
            return self._loop()
        finally:
            if self.aside is not None:
                self.aside.close()

    def _loop(self) -> RunResult:
        started = saved = time.monotonic()
        before = self.seconds
        with interrupts() as interrupted:
            while self.steps < self.run.steps:
                try:
                    self.iterate()
                except Exception:  # where a policy has turned to NaN, the worlds or the sampling refuse its actions
                    self._require_sound()
                    raise
                self.seconds = before + time.monotonic() - started
                if self.steps >= self.next_log:
                    self._log()
                if self.steps >= self.next_eval and self.run.evaluations:
                    self._evaluate()
                self._take_scores()
                since = time.monotonic() - saved
                due = since >= max(self.run.checkpoint_seconds, self.checkpoint_cost / CHECKPOINT_SHARE)
                due, stop = self.group.any(due, interrupted())
                if due:
                    self._save()
                    saved = time.monotonic()
                if stop:
                    self._save()
                    self._write_policy("policy.safetensors")
                    raise Interrupted(f"interrupted at step {self.steps} of {self.run.steps}; all is saved; "
                                      f"go on with: poise {self.verb} --resume {self.folder.path}")  # fmt: skip
            self._take_scores(wait=True)
            self._save()
            self._write_policy("policy.safetensors")
            self._draw_curves()
        policy, scores = self.folder.path / "policy.safetensors", self.own_scores(self.last) if self.last else {}
        return RunResult(self.folder.path, policy, self.steps, self.seconds, self.last, scores, self.folder.leads)

    # ---- what happens between iterations -----------------------------------------------------

    def _plan(self) -> None:
        """Where the next log line and evaluation are due, as a function of the steps taken alone."""
        self.next_log = next_multiple(self.steps, self.run.steps, self.run.log_points)
        self.next_eval = next_multiple(self.steps, self.run.steps, self.run.evaluations)

    def _log(self) -> None:
        told = self.group.told([self.own_metrics(), self.metrics.means()])
        own, learned = (together(parts) for parts in zip(*told, strict=True))
        values = {"seconds": self.seconds, **own, **self._require_finite(learned)}
        self.metrics.clear()
        self.folder.write_metrics(self.steps, values)
        self.next_log = next_multiple(self.steps, self.run.steps, self.run.log_points)
        if self.progress is not None:
            self.progress(self.steps, self.run.steps, values)

    def _require_sound(self) -> None:
        """Raise unless the metrics since the last log line and everything that the learner keeps are finite."""
        self._require_finite(self.metrics.means())
        if bad := not_finite(self.learner.state_dict()):
            raise self._not_finite_error(f"{bad} of the learner")

    def _require_finite(self, values: dict[str, float]) -> dict[str, float]:
        if bad := [name for name, value in values.items() if not math.isfinite(value)]:
            raise self._not_finite_error(bad[0])
        return values

    def _not_finite_error(self, what: str) -> RunError:
        good = self.folder.checkpoint if has_checkpoint(self.folder.checkpoint) else "none yet"
        return RunError(f"{what} is not finite at step {self.steps}; the run stops; last good checkpoint: {good}")

    def _evaluate(self) -> None:
        self.next_eval = next_multiple(self.steps, self.run.steps, self.run.evaluations)
        if not self.folder.leads:
            return
        self._require_sound()
        asked = Asked(self.steps, self.seconds, self._labelled_policy())
        if self.aside is not None:
            self.aside.ask(asked, self._order(asked.step))
        else:
            self._scored(asked, score(self._order(asked.step), asked.policy))

    def _order(self, step: int) -> dict[str, Any]:
        """What an evaluation depends on beside the policy."""
        video = self.folder.path.absolute() / "videos" / f"{step}.mp4"
        if self.run.videos:
            video.parent.mkdir(exist_ok=True)
        return {
            "task": self.task, "episodes": self.run.eval_episodes, "seed": self.run.seed, "threads": self.run.threads,
            "randomize": self.evaluation_ranges, "torch_threads": self.run.torch_threads,
            "videos": self.run.videos, "video": str(video),
        }  # fmt: skip

    def _take_scores(self, wait: bool = False) -> None:
        """Those evaluations beside the run that are done; with `wait` all of them."""
        if self.aside is not None:
            for asked, evaluation in self.aside.answers(wait):
                self._scored(asked, evaluation)

    def _scored(self, asked: Asked, evaluation: Evaluation) -> None:
        self.last = evaluation
        values = {
            "eval/return": self.last.return_mean, "eval/low": self.last.return_low, "eval/high": self.last.return_high,
            "eval/iqm": self.last.return_iqm, "eval/length": self.last.length_mean,
        }  # fmt: skip
        if self.last.success_rate is not None:
            values["eval/success"] = self.last.success_rate
        scores = self.own_scores(self.last)
        values |= {f"eval/{name}": score for name, score in scores.items()}
        self.folder.write_metrics(asked.step, {"seconds": asked.seconds, **values})
        if self.last.return_mean > self.best:
            self.best, policy = self.last.return_mean, asked.policy
            policy.provenance |= scores
            policy.evaluation = self.last.to_json()
            policy.save(self.folder.path / "best.safetensors")
        if self.progress is not None:
            self.progress(self.steps, self.run.steps, values)

    def _write_policy(self, name: str) -> None:
        if not self.folder.leads:
            return
        policy = self._labelled_policy()
        policy.evaluation = self.last.to_json() if self.last is not None else {}
        policy.save(self.folder.path / name)

    def _labelled_policy(self) -> Policy:
        """The policy as it is now, which says where it comes from."""
        policy: Policy = self.learner.policy()
        policy.provenance |= {
            "algorithm": self.algorithm,
            "task": self.task,
            "seed": self.run.seed,
            "steps": self.steps,
            "config": read_config(self.folder.path),
            **self.provenance(),
        }
        return policy

    def _draw_curves(self) -> None:
        from .curves import draw_curves

        if self.folder.leads:
            draw_curves(self.folder.path / "metrics.jsonl", self.folder.path / "curves.png")

    # ---- checkpoints -------------------------------------------------------------------------

    def _save(self) -> None:
        """A checkpoint; only of finite numbers. Of several processes' the first one's counts, complete last."""
        began = time.monotonic()
        self._require_sound()
        state = {
            **self.own_state(),
            "learner": self.learner.state_dict(),
            "metrics": self.metrics.state_dict(),
            "rng": self.rng.bit_generator.state,
        }
        info = {
            "steps": self.steps,
            "seconds": self.seconds,
            "best": None if math.isinf(self.best) else self.best,
            "last": self.last.to_json() if self.last else None,
            "metrics_size": self.folder.metrics_size(),
            "evaluating": self.aside.pending() if self.aside is not None else [],
        }
        require_same(self.group, state["learner"])
        if self.folder.leads:
            self.group.wait()
        save_checkpoint(self.folder.checkpoint, state, self.buffer, info, keep_before=not self.folder.leads)
        if not self.folder.leads:
            self.group.wait()
        if self.aside is not None:
            self.aside.saved()
        self.checkpoint_cost = time.monotonic() - began

    def _load(self) -> None:
        state, info = load_checkpoint(self.folder.checkpoint, self.buffer)
        self.learner.load_state_dict(state["learner"])
        self.metrics.load_state_dict(state["metrics"])
        self.rng.bit_generator.state = state["rng"]
        self.steps, self.seconds = info["steps"], info["seconds"]
        self.best = -math.inf if info["best"] is None else info["best"]
        self.last = Evaluation(**info["last"]) if info["last"] else None
        self.folder.open_metrics(info["metrics_size"], self.steps)
        self._plan()
        self.load_own_state(state)
        for entry in info.get("evaluating", ()):  # which the run had not seen the end of
            asked = (self.aside or Aside(self.folder.path)).reloaded(entry)
            if self.aside is not None:
                self.aside.ask(asked, self._order(asked.step))
            else:
                self._scored(asked, score(self._order(asked.step), asked.policy))


def new_run_folder(name: str) -> Path:
    """The first free runs/<name>[-n]."""
    base = Path("runs") / "".join(c if c.isalnum() else "-" for c in name)
    path, n = base, 2
    while path.exists():
        path, n = base.with_name(f"{base.name}-{n}"), n + 1
    return path


@contextlib.contextmanager
def torch_threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
