"""`poise eval`: a policy's score, several seeds' together, and the gap over a grid of realities.

Also what other commands share with it: a scripted expert by name, the task with another model of its arm, and how a
score is printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .address import with_option
from .errors import UsageError

EVAL_EXAMPLES = """\
examples:
  poise eval runs/reach/policy.safetensors --episodes 200 --video reach.mp4
  poise eval runs/a/policy.safetensors runs/b/policy.safetensors         two seeds of one training
  poise eval none=runs/a/policy.safetensors default=runs/b/policy.safetensors --grid grid.json --out gap
                                   the gap: tables and heat-maps over held-out realities, a column for each label"""


def eval_command(options) -> dict[str, Any]:
    """Score one policy or several, and print it."""
    if options.grid:
        return _eval_grid(options)
    if options.out:
        raise UsageError("--out is where the report of --grid goes")
    if options.video and len(options.policy) > 1:
        raise UsageError("--video films one policy; leave out the others")
    episodes, seed = options.episodes or 100, 1000 if options.seed is None else options.seed
    from .policies.evaluate import evaluate
    from .policies.policy import load_policy
    from .policies.progress import Progress

    policies = [expert(options.task) if path == "expert" else load_policy(path) for path in options.policy]
    task, randomize = _what_to_score_on(options, policies)
    with Progress() as progress:
        ended = progress.episodes(episodes * len(policies))
        results = [evaluate(policy, task, episodes, seed, randomize, ended) for policy in policies]
    if len(policies) > 1:
        return {"policies": options.policy, "task": task, **_together(options, results, seed)}
    score = results[0].to_json(options.returns)
    print_eval(score)
    video = None
    if options.video:
        from .policies.film import film

        video = str(film(policies[0], task, options.video, options.video_episodes, seed, randomize))
        print(f"video:        {video}")
    return {"policy": options.policy[0], "task": task, "eval": score, "video": video}


def _what_to_score_on(options, policies: list[Any]) -> tuple[str, Any]:
    """The one task of all policies, and its randomization: as in training, unless something else is asked for."""
    tasks = [options.task or policy.provenance.get("task") for policy in policies]
    if not (task := tasks[0]):
        raise UsageError(f"{options.policy[0]} does not say what it was trained on; name it with --task")
    for path, other in zip(options.policy, tasks, strict=True):
        if other != task:
            raise UsageError(f"{path} was trained on {other}, {options.policy[0]} on {task}: one score needs one task; "
                             f"name it with --task")  # fmt: skip
    trained = policies[0].provenance.get("randomize") if task == policies[0].provenance.get("task") else "default"
    return with_mjcf(task, options.mjcf), options.randomize or trained or "none"


def _together(options, results: list[Any], seed: int) -> dict[str, Any]:
    """Every policy's score in a line, and what they are together."""
    from .policies.statistics import aggregate

    scores = [result.to_json(options.returns) for result in results]
    together = aggregate([result.returns for result in results], seed).to_json()
    for path, e in zip(options.policy, scores, strict=True):
        print(f"{path}: {_return_line(e)}")
    _print_aggregate(together, options.policy)
    return {"evals": scores, "aggregate": together}


def _eval_grid(options) -> dict[str, Any]:
    from dataclasses import replace
    from math import prod

    from .policies.gap import gap, labelled
    from .policies.grid import Grid
    from .policies.progress import Progress

    if options.video or options.randomize or options.returns or options.mjcf:
        raise UsageError("--grid takes neither --video, --randomize, --mjcf nor --returns: the grid says what differs")
    grid = Grid.load(options.grid)
    wishes = {"episodes": options.episodes, "seed": options.seed}
    grid = replace(grid, **{name: value for name, value in wishes.items() if value is not None})
    policies = labelled(options.policy)
    with Progress() as progress:
        total = grid.episodes * prod(grid.shape) * len(options.policy)
        report = gap(policies, grid, options.out or "gap", options.task, progress.episodes(total))
    out = Path(options.out or "gap")
    print((out / "gap.md").read_text().partition("\n\n![")[0])
    print(f"heat-maps: {out / 'gap.png'}\nscores:    {out / 'gap.json'}")
    return {"out": str(out), **report}


def expert(task: str | None) -> Any:
    """The scripted expert of the task, in a policy's place."""
    if not task:
        raise UsageError("an expert needs its task, such as lift/fr3: poise eval expert --task lift/fr3")
    from .policies.expert_policy import ExpertPolicy

    return ExpertPolicy(task)


def with_mjcf(task: str, mjcf: str | None) -> str:
    """The task with another model of its arm, by its absolute path: a run may be resumed from another folder."""
    if not mjcf:
        return task
    if ":" in task.partition("?")[0] and not task.startswith("py:"):
        raise UsageError(f"--mjcf is another model of a native task's arm, and {task} is no native task")
    return with_option(task, "mjcf", str(Path(mjcf).resolve()))


def _return_line(e: dict[str, Any]) -> str:
    return f"{e['return_mean']:.2f} ± {e['return_std']:.2f} (worst {e['return_min']:.2f})"


def print_eval(e: dict[str, Any]) -> None:
    """A score, in lines for a person."""
    print(f"episodes:     {e['episodes']}")
    print(f"return:       {_return_line(e)}")
    print(f"  mean        {e['return_mean']:.2f}, 95 % interval {e['return_low']:.2f} to {e['return_high']:.2f}")
    print(f"  IQM         {e['return_iqm']:.2f}, 95 % interval {e['iqm_low']:.2f} to {e['iqm_high']:.2f}")
    if e["success_rate"] is not None:
        print(f"success rate: {100 * e['success_rate']:.1f} %, 95 % interval {100 * e['success_low']:.1f} "
              f"to {100 * e['success_high']:.1f}")  # fmt: skip


def _print_aggregate(a: dict[str, Any], names: list[str]) -> None:
    print(f"together:     {a['runs']} runs of {a['episodes']} episodes")
    print(f"  mean        {a['return_mean']:.2f}, 95 % interval {a['return_low']:.2f} to {a['return_high']:.2f}")
    print(f"  IQM         {a['return_iqm']:.2f}, 95 % interval {a['iqm_low']:.2f} to {a['iqm_high']:.2f}")
    print(f"  runs differ {a['runs_std']:.2f} (standard deviation of their means)")
    print(f"  worst run   {a['worst_mean']:.2f}, {names[a['worst_run']]}")
