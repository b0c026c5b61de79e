"""`poise train`: a recipe with its settings, or a run that goes on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .cli_eval import print_eval, with_mjcf
from .errors import UsageError, unknown_name

TRAIN_EXAMPLES = """\
examples:
  poise train ppo --task reach/fr3 --out runs/reach
  poise train sac --task gym:Pendulum-v1 --steps 10000 --seed 1
  poise train ppo --task reach/fr3 --randomize my_ranges.json --set learning_rate=3e-4
  poise train sac/demos --task 'lift/fr3?reward=sparse' --demos lift.hdf5
                                                       half of every batch from demonstrations (poise data collect)
  poise train ppo --task reach/fr3 --num-envs 16384 --set processes=4
                                                       four processes share the run, each on a GPU of its own
  poise train --resume runs/reach --steps 2000000
  poise train ppo --task reach/fr3 --config runs/reach/config.json --out runs/again"""


class TrainHelp(argparse.Action):
    """`poise train --help` with every recipe, and `poise train ALGO --help` with every setting of one."""

    def __call__(self, parser, namespace, values, option_string=None):
        from .policies.recipes import recipes_of
        from .policies.run_settings import RunSettings

        parser.print_help()
        print_settings("train", namespace, recipes_of(RunSettings))
        parser.exit()


def print_settings(command: str, namespace: Any, recipes: dict[str, Any]) -> None:
    """Every recipe of a command, or every setting of the one that is named."""
    algorithm = getattr(namespace, "algorithm", None)
    if not algorithm:
        print(f"\nrecipes (`poise {command} ALGO --help` lists the settings of one):")
        width = max(map(len, recipes))
        for name, make in recipes.items():
            print(f"  {name:<{width}}  {(make.__doc__ or '').strip().splitlines()[0]}")
        return
    from .policies.recipes import recipe
    from .policies.settings import describe

    chosen = recipe(algorithm, getattr(namespace, "task", None))
    for title, config in ((f"settings of {algorithm}", chosen.settings), ("settings of a run", chosen.run)):
        print(f"\n{title} (--set key=value):")
        for name, default, text in describe(config):
            print(f"  {name:<20} {default:<12} {text}")


def train_command(options) -> dict[str, Any]:
    """Train or go on training, and print where the policy is and its score."""
    flags = {"num_envs": options.num_envs, "steps": options.steps, "device": options.device,
             "randomize": options.randomize, "seed": options.seed}  # fmt: skip
    flags = {k: v for k, v in flags.items() if v is not None}
    result = _resume(options, flags) if options.resume else _train(options, flags)
    if not result.leads:  # one of torchrun's processes, the first of which tells
        return {"steps": result.steps}
    return print_run(result, f"trained {result.steps:,} steps", f"poise eval {result.policy}")


def print_run(result: Any, done: str, then: str) -> dict[str, Any]:
    """What was done, the policy's score, where its curves are, and what to do next; the same as data."""
    print(f"{done} in {result.seconds:.0f} s: {result.policy}")
    if result.eval is not None:
        print_eval(result.eval.to_json())
    if "d4rl_score" in result.scores:
        print(f"D4RL score:   {result.scores['d4rl_score']:.1f}")
    print(f"curves: {result.run_dir / 'curves.png'}\nnext:   {then}")
    return {"run_dir": str(result.run_dir), "policy": str(result.policy), "steps": result.steps,
            "eval": result.eval.to_json() if result.eval else None, **result.scores}  # fmt: skip


def _resume(options, flags: dict[str, Any]) -> Any:
    beyond = [f"--{k.replace('_', '-')}" for k in flags if k not in ("steps", "device")]
    beyond += [f"--{k}" for k in ("config", "out", "task", "mjcf", "demos") if getattr(options, k)]
    beyond += ["--set"] * bool(options.set)
    if beyond:
        raise UsageError(f"--resume goes on with the run as it was; leave out {', '.join(beyond)}")
    from .policies.progress import Progress
    from .policies.run_folder import read_config
    from .policies.train import resume

    with Progress() as progress:
        read_config(Path(options.resume))
        return resume(options.resume, options.steps, options.device, progress)


def _train(options, flags: dict[str, Any]) -> Any:
    from .policies.recipes import RECIPES

    if not options.algorithm:
        raise UsageError(f"poise train needs an algorithm: {', '.join(sorted(RECIPES))}")
    if options.algorithm not in RECIPES:
        raise unknown_name("algorithm", options.algorithm, RECIPES)
    if not options.task:
        raise UsageError("poise train needs --task, such as reach/fr3 or gym:Pendulum-v1")
    from .policies.progress import Progress
    from .policies.train import train

    settings = {**config_settings(options), **flags, **option_settings(options)}
    with Progress() as progress:
        task = with_mjcf(options.task, options.mjcf)
        demos = options.demos or _config_demos(options)
        return train(options.algorithm, task, options.out, settings=settings, demos=demos, progress=progress)


def option_settings(options) -> dict[str, str]:
    """Settings of --set."""
    from .policies.settings import parse_assignments

    return parse_assignments(options.set)


def config_settings(options) -> dict[str, Any]:
    """Settings of --config FILE: a run's config.json, or a plain object of settings."""
    config = _config_file(options)
    return {**config["run"], **config["settings"]} if "run" in config and "settings" in config else config


def _config_demos(options) -> list[str]:
    """The demonstrations that the run of --config FILE learned from."""
    from .policies.demos import recorded

    return recorded(_config_file(options))


def _config_file(options) -> dict[str, Any]:
    if not options.config:
        return {}
    try:
        config = json.loads(Path(options.config).read_text())
    except OSError as error:
        raise UsageError(f"--config {options.config}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--config {options.config} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise UsageError(f"--config {options.config} should hold an object of settings")
    if config.get("algorithm", options.algorithm) != options.algorithm:
        raise UsageError(f"--config {options.config} is of {config['algorithm']}, not of {options.algorithm}")
    return config
