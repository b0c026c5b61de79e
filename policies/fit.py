"""Fitting: a learner and demonstration files, with no simulator but to score.

    for each update:   update(data.sample(request, rng))

What a run is besides (logs, evaluations, checkpoints, exact resume) stands in run.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..datasets.check import quick_errors
from ..datasets.d4rl_names import normalized_score, score_reference
from ..datasets.file_hash import sha256
from ..datasets.log import Log
from ..datasets.offline import OfflineDataset, load, split_filter
from ..datasets.open_log import located
from ..errors import DatasetError, UsageError
from ..normalizer import Normalizer
from ..sim.make import make
from ..spec import Spec
from .devices import Work, choose_device, say
from .evaluate import Evaluation
from .learner import concatenated
from .offline_core import DataFacts
from .recipes import fitting_recipe
from .run import Progress, Run, RunResult, new_run_folder, torch_threads
from .run_folder import RunFolder, describe_machine, read_config
from .run_settings import FitSettings

CHECKED = 2 << 30  # bytes up to which a file is looked through before anything is learned from it
PICTURES = 256  # of held-out steps that go through an encoder at once
TOGETHER = 32  # updates between two looks at whether to log or to stop


def fit(
    algorithm: str,
    data: Sequence[str],
    task: str | None = None,
    out: Path | str | None = None,
    *,
    valid: Sequence[str] = (),
    mapping: Mapping[str, Sequence[str]] | None = None,
    weights: Sequence[float] | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Fit `algorithm` to demonstration files, each FILE or FILE:filter, into the run folder `out`.

    task: score the policy in this task during the run; its Spec must be the data's.
    valid: files, each FILE or FILE:filter, that are held out and scored on.
    mapping: group -> the files' observation keys, see datasets/log_spec.py.
    settings: of the run and the algorithm, instead of the recipe's; with `resume`, `steps` alone may change.

    Raises:
        UsageError: an unknown algorithm, task or setting.
        DatasetError: files that cannot be read, do not fit, or changed since the run began.
        RunError: the folder is taken, locked, damaged or full.
        Interrupted: Ctrl-C; the run is saved.
    """
    chosen = fitting_recipe(algorithm, task, settings or {})
    path = Path(out) if out is not None else new_run_folder(f"{task or 'data'}-{algorithm}-seed{chosen.run.seed}")
    run = chosen.run
    assert isinstance(run, FitSettings)
    reference = _reference(run.d4rl, data)
    where = choose_device(run.device, Work.of(chosen.settings, pictures=bool(getattr(chosen.settings, "camera", ""))))
    say(where)
    device = where.device
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch_threads(run.torch_threads))
        files = {"data": _described(data), "valid": _described(valid)}
        wanted = _task_spec(task)
        options: dict[str, Any] = {"mapping": mapping, "task": wanted, "ends": run.ends, "actions": run.actions,
                                   "label": run.label}  # fmt: skip
        if run.memory:
            options["memory"] = run.memory
        if run.check and not resume:
            options["look"] = _require_sound
        learned = load(data, device=device, weights=weights, **options)
        held_out = load(valid, device=device, **options) if valid else None
        facts = _facts(learned, chosen.settings, device)
        learner = chosen.learner(learned.spec, chosen.settings, facts, run.seed, device, planned_steps=run.steps)
        learned.show(learner.reads)
        folder = RunFolder(path, resume)
        stack.callback(folder.close)
        if resume:
            _require_same_files(read_config(path)["files"], files)
        else:
            folder.write_json("config.json", {
                "algorithm": algorithm, "task": task, "run": asdict(run), "settings": asdict(chosen.settings),
                "files": files, "mapping": mapping, "weights": weights, "device": str(device),
                "device_reason": where.why, "machine": describe_machine(run.threads)})  # fmt: skip
        return _Fitting(algorithm, task or "", run, learned, held_out, learner, folder, progress, reference).go(resume)


def resume_fit(run_dir: Path | str, steps: int | None = None, device: str | None = None,
               progress: Progress | None = None) -> RunResult:  # fmt: skip
    """Go on with a fit that was stopped or killed, to its own total of updates or to `steps`."""
    config = read_config(Path(run_dir))
    if "files" not in config:
        raise UsageError(f"{run_dir} is a run in simulation: poise train --resume {run_dir}")
    changes = {k: v for k, v in (("steps", steps), ("device", device)) if v is not None}
    names = {kind: [file["name"] for file in config["files"][kind]] for kind in ("data", "valid")}
    return fit(config["algorithm"], names["data"], config["task"], run_dir, valid=names["valid"],
               mapping=config["mapping"], weights=config["weights"], resume=True, progress=progress,
               settings={**config["run"], **config["settings"], **changes})  # fmt: skip


class _Fitting(Run):
    """One run; its steps are updates."""

    verb = "fit"

    def __init__(self, algorithm: str, task: str, run: FitSettings, data: OfflineDataset, valid: OfflineDataset | None,
                 learner: Any, folder: RunFolder, progress: Progress | None, reference: str):  # fmt: skip
        super().__init__(algorithm, task, run, learner, folder, progress)
        self.data, self.valid, self.reference = data, valid, reference

    def iterate(self) -> None:
        request, rng, learner, metrics = self.learner.request, self.rng, self.learner, self.metrics
        for _ in range(min(TOGETHER, self.run.steps - self.steps)):
            metrics.add(learner.update(self.data.sample(request, rng)))
            self.steps += 1

    def begin(self) -> None:
        pass

    def own_metrics(self) -> dict[str, float]:
        """Of held-out steps, all of them."""
        if self.valid is None or not hasattr(self.learner, "score"):
            return {}
        sums: dict[str, float] = {}
        reads = self.learner.reads
        rows = PICTURES if any(self.valid.spec.is_image(group) for group in reads) else 8192
        for batch in self.valid.blocks(rows, reads):
            for name, value in self.learner.score(batch).items():
                sums[f"valid/{name}"] = sums.get(f"valid/{name}", 0.0) + value.item() * len(batch.action)
        return {name: total / self.valid.num_rows for name, total in sums.items()}

    def own_scores(self, evaluation: Evaluation) -> dict[str, float]:
        """D4RL's normalized score of the mean return, where there are references for it."""
        return {"d4rl_score": normalized_score(self.reference, evaluation.return_mean)} if self.reference else {}

    @property
    def evaluation_ranges(self) -> Any:
        return self.run.randomize

    def provenance(self) -> dict[str, Any]:
        named: dict[str, Any] = {"d4rl_reference": self.reference} if self.reference else {}
        named |= self.own_scores(self.last) if self.last else {}
        return {"randomize": self.run.randomize, **named}

    def own_state(self) -> dict[str, Any]:
        return {}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        pass


def _require_sound(log: Log) -> None:
    """Raise DatasetError where `poise data check` finds an error in a file, unless it is too large to look through."""
    path = log.path
    if path.is_file() and path.stat().st_size > CHECKED:
        return
    if errors := quick_errors(log):
        raise DatasetError(f"{path} would spoil what is learned from it: {errors[0]}. `poise data check {path}` "
                           f"tells all; --set check=false goes on all the same")  # fmt: skip


def _reference(wanted: str, data: Sequence[str]) -> str:
    """The D4RL set whose references score returns, or "" for no score."""
    if wanted == "none":
        return ""
    if wanted == "auto":
        return score_reference([split_filter(name)[0] for name in data])
    normalized_score(wanted, 0.0)  # refuses a name without references
    return wanted


def _task_spec(task: str | None) -> Spec | None:
    """What the task shows and wants."""
    if task is None:
        return None
    env = make(task, num_envs=1, seed=0, randomize="none")
    try:
        return env.spec.for_policy_file()
    finally:
        env.close()


def _facts(data: OfflineDataset, settings: Any, device: torch.device) -> DataFacts:
    """What the settings ask to know of the data before the first update."""
    normalizer = _normalizer(data, device) if settings.normalize_obs else None
    if not getattr(settings, "scale_rewards", False):
        return DataFacts(normalizer)
    returns = data.episode_returns()
    return DataFacts(normalizer, (float(returns.min()), float(returns.max())))


def _normalizer(data: OfflineDataset, device: torch.device) -> Normalizer | None:
    """The moments of everything that is learned from, and of nothing else."""
    if not (groups := data.spec.vectors):
        return None
    result: Normalizer | None = None
    for batch in data.blocks(groups=groups):
        x = concatenated(batch.obs, groups)
        result = result or Normalizer(x.shape[-1], device=device)
        result.update(x)
    return result


# ---- which files a run is of ---------------------------------------------------------------------


def _described(names: Sequence[str]) -> list[dict[str, Any]]:
    return [{"name": str(name), **_fingerprint(name)} for name in names]


def _fingerprint(name: str) -> dict[str, Any]:
    """Size and hash of a file, or of a folder's files together."""
    path = located(split_filter(name)[0])
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {"bytes": sum(p.stat().st_size for p in files), "sha256": sha256(path)}


def _require_same_files(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for kind, files in before.items():
        for was, found in zip(files, now[kind], strict=True):
            if was != found:
                raise DatasetError(f"{was['name']} changed since this run began: it had {was['bytes']:,} bytes and "
                                   f"sha256 {was['sha256'][:12]}…, now {found['bytes']:,} and {found['sha256'][:12]}…; "
                                   f"put it back, or begin a new run")  # fmt: skip
