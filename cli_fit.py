"""`poise fit`: a learner and demonstration files, or a fit that goes on."""

from __future__ import annotations

import argparse
from typing import Any

from .cli_train import config_settings, option_settings, print_run, print_settings
from .errors import UsageError

FIT_EXAMPLES = """\
examples:
  poise data collect lift.hdf5 --task lift/fr3 --episodes 200
  poise fit bc --data lift.hdf5 --task lift/fr3 --out runs/lift          scored in the task as it learns
  poise fit iql --data logs.hdf5:train --valid logs.hdf5:valid           held-out episodes instead
  poise fit td3_bc --data a.hdf5 b.hdf5 --set steps=200000 discount=0.98
  poise fit --resume runs/lift --steps 50000

A FILE may have any layout that `poise data info` reads, and FILE:FILTER takes the episodes of one filter."""


class FitHelp(argparse.Action):
    """`poise fit --help` with every recipe, and `poise fit ALGO --help` with every setting of one."""

    def __call__(self, parser, namespace, values, option_string=None):
        from .policies.recipes import recipes_of
        from .policies.run_settings import FitSettings

        parser.print_help()
        print_settings("fit", namespace, recipes_of(FitSettings))
        parser.exit()


def add_fit_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("-h", "--help", action=FitHelp, nargs=0, help="this, or with ALGO every setting of it")
    p.add_argument("algorithm", nargs="?", metavar="ALGO", help="a recipe, from the list below; left out with --resume")
    p.add_argument("--data", nargs="+", default=[], metavar="FILE", help="demonstrations, each FILE or FILE:FILTER")
    p.add_argument("--weights", nargs="+", type=float, metavar="W", help="shares of the files in every batch")
    p.add_argument("--valid", nargs="+", default=[], metavar="FILE", help="held-out demonstrations to score on")
    p.add_argument("--task", help="score the policy in this task during the run")
    p.add_argument("--obs", action="append", default=[], metavar="GROUP=KEY,KEY", help="which keys make which group")
    p.add_argument("--steps", type=int, metavar="N", help="updates; the total when resuming")
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the networks live")
    p.add_argument("--randomize", metavar="none|default|FILE", help="dynamics of the evaluations")
    p.add_argument("--ends", choices=("terminated", "truncated"), help="what ends of unknown kind in the files are")
    p.add_argument("--actions", choices=("checked", "clip", "scale"), help="what to do with actions beyond [-1, 1]")
    p.add_argument("--seed", type=int, metavar="S", help="seed of everything random")
    p.add_argument("--out", metavar="DIR", help="the run folder; a new one under runs/ by default")
    p.add_argument("--resume", metavar="DIR", help="go on with the fit in this folder")
    p.add_argument("--config", metavar="FILE", help="take settings from a config.json, such as another run's")
    p.add_argument("--set", nargs="+", action="extend", default=[], metavar="key=value", help="change settings")


FLAGS = ("steps", "device", "randomize", "ends", "actions", "seed")


def fit_command(options) -> dict[str, Any]:
    """Fit or go on fitting, and print where the policy is and its score."""
    from .policies.fit import fit, resume_fit
    from .policies.progress import Progress

    flags = {name: value for name in FLAGS if (value := getattr(options, name)) is not None}
    with Progress() as progress:
        if options.resume:
            beyond = [f"--{k}" for k in flags if k not in ("steps", "device")]
            beyond += [f"--{k}" for k in ("config", "out", "task", "data", "valid", "weights", "obs", "set")
                       if getattr(options, k)]  # fmt: skip
            if beyond:
                raise UsageError(f"--resume goes on with the fit as it was; leave out {', '.join(beyond)}")
            result = resume_fit(options.resume, options.steps, options.device, progress)
        else:
            if not (options.algorithm and options.data):
                raise UsageError("poise fit needs an algorithm and demonstrations: poise fit bc --data FILE; "
                                 "`poise fit --help` lists the algorithms")  # fmt: skip
            settings = {**config_settings(options), **flags, **option_settings(options)}
            result = fit(options.algorithm, options.data, options.task, options.out, valid=options.valid,
                         mapping=_mapping(options.obs), weights=options.weights, settings=settings,
                         progress=progress)  # fmt: skip
    return print_run(result, f"fitted with {result.steps:,} updates", f"poise eval {result.policy} --task TASK")


def _mapping(assignments: list[str]) -> dict[str, list[str]] | None:
    """group -> keys, of texts GROUP=KEY,KEY."""
    mapping: dict[str, list[str]] = {}
    for text in assignments:
        group, equals, keys = text.partition("=")
        if not (group and equals and keys) or group in mapping:
            raise UsageError(f"--obs takes GROUP=KEY,KEY, each group once; got {text!r}")
        mapping[group] = keys.split(",")
    return mapping or None
