"""The `poise` command: a thin skin over the Python functions of the same names.

Exit code 0 worked, 2 wrong usage, 1 failure: one clear message on standard error, no traceback unless --debug.
With --json the last line on standard output is one JSON object, also when the command failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from .address import with_option
from .errors import PoiseError, UsageError, unknown_name

DESCRIPTION = """\
From simulation to a real arm, by one path:

  poise train ppo --task reach/fr3 --out runs/reach      train in randomized MuJoCo worlds
  poise eval runs/reach/policy.safetensors               score it on fresh episodes
  poise view reach/fr3 --policy runs/reach/policy.safetensors
                                                         watch it in a browser
  poise deploy runs/reach/policy.safetensors --robot twin:fr3 --record out.hdf5
                                                         run it on an arm, behind the supervisor
  poise identify motion.hdf5 --excite twin:fr3 --fit terms.json
                                                         fit a model's numbers to how an arm moves
  poise export runs/reach/policy.safetensors             write it as an ONNX model

`poise COMMAND --help` explains each; `poise train ALGO --help` lists every setting with its meaning.
"""


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are UsageErrors, so that --json and --debug see them too."""

    def error(self, message: str):
        raise UsageError(f"{message}\n{self.format_usage().strip()}")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    wants_json, debug = "--json" in arguments, "--debug" in arguments
    command = next((a for a in arguments if not a.startswith("-")), "")
    began = time.monotonic()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("poise").setLevel(logging.INFO)  # what the user waits for, such as a compilation
    try:
        options = build_parser().parse_args(arguments)
        result, code = options.run(options), 0
    except (PoiseError, KeyboardInterrupt) as error:
        result, code = _failure(error), 2 if isinstance(error, UsageError) else 1
    except Exception as error:  # a defect of ours, or of a library: the user still gets one line
        result, code = _failure(error), 1
        if not debug:
            result["error"]["message"] += " (unexpected; --debug shows where)"
    if code:
        if debug:
            traceback.print_exc()
        print(f"poise: {result['error']['message']}", file=sys.stderr)
    if wants_json:
        seconds = round(time.monotonic() - began, 3)
        print(json.dumps({"command": command, "ok": code == 0, "seconds": seconds, **result}, default=str), flush=True)
    return code


def _failure(error: BaseException) -> dict[str, Any]:
    message = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or repr(error)
    return {"error": {"type": type(error).__name__, "message": message}}


def build_parser() -> argparse.ArgumentParser:
    """Every command and option."""
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="end with one JSON object on standard output")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = _Parser("poise", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.set_defaults(run=_version_or_help, parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)

    def add(name: str, run, help: str, description: str = "", **kwargs) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.\n\n{description}",
                                  parents=[common], formatter_class=argparse.RawDescriptionHelpFormatter,
                                  **kwargs)  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    p = add("train", _train, "train a policy in simulation", _TRAIN_EXAMPLES, add_help=False)
    p.add_argument("-h", "--help", action=_TrainHelp, nargs=0, help="this, or with ALGO every setting of it")
    p.add_argument("algorithm", nargs="?", metavar="ALGO", help="a recipe, from the list below; left out with --resume")
    p.add_argument("--task", help="reach/fr3, gym:ID for any Gymnasium environment, or py:module:attribute")
    p.add_argument("--mjcf", metavar="FILE", help="another model of the task's arm, see docs/arms.md")
    p.add_argument("--num-envs", type=int, metavar="N", help="worlds stepped together")
    p.add_argument("--steps", type=int, metavar="N", help="environment steps over all worlds; the total when resuming")
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), help="where the networks live")
    p.add_argument(
        "--randomize", metavar="none|default|adr|FILE", help="what differs between worlds; adr: ranges that adapt"
    )
    p.add_argument("--seed", type=int, metavar="S", help="seed of everything random")
    p.add_argument("--out", metavar="DIR", help="the run folder; a new one under runs/ by default")
    p.add_argument("--resume", metavar="DIR", help="go on with the run in this folder")
    p.add_argument("--config", metavar="FILE", help="take settings from a config.json, such as another run's")
    p.add_argument("--set", action="append", default=[], metavar="key=value", help="change one setting; repeatable")

    p = add("eval", _eval, "score a policy on fresh episodes, or several as the seeds of one training", _EVAL_EXAMPLES)
    p.add_argument("policy", metavar="POLICY", nargs="+", help="a policy file, or expert: the task's scripted one")
    p.add_argument("--task", help="the task; by default the one it was trained on")
    p.add_argument("--mjcf", metavar="FILE", help="another model of the task's arm, see docs/arms.md")
    p.add_argument("--episodes", type=int, metavar="N", help="episodes (100; with --grid its own)")
    p.add_argument("--seed", type=int, metavar="S", help="seed of starts and dynamics (1000; with --grid its own)")
    p.add_argument("--randomize", metavar="none|default|FILE", help="dynamics; by default as in training")
    p.add_argument("--grid", metavar="SPEC", help="sweep a grid of realities: a JSON file, see docs/gap.md")
    p.add_argument("--out", metavar="DIR", help="with --grid: where the report goes (gap)")
    p.add_argument("--returns", action="store_true", help="with --json: the return of every episode too")
    p.add_argument("--video", metavar="OUT.mp4", help="film some episodes as well")
    p.add_argument("--video-episodes", type=int, default=3, metavar="N", help="how many (3)")

    p = add("view", _view, "show a task, or a policy in it, in a web browser", _VIEW_EXAMPLES)
    p.add_argument("task", metavar="TASK", nargs="?", help="the task; by default the one --policy was trained on")
    p.add_argument("--policy", metavar="POLICY", help="a policy file, or expert; without one, random actions or yours")
    p.add_argument("--mjcf", metavar="FILE", help="another model of the task's arm, see docs/arms.md")
    p.add_argument("--episodes", type=int, metavar="N", help="end after so many; by default Ctrl-C ends")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="seed of starts and dynamics (0)")
    p.add_argument("--randomize", metavar="none|default|FILE", help="dynamics; none by default")
    p.add_argument("--port", type=int, default=8080, metavar="P", help="where the page is served (8080)")
    p.add_argument("--host", default="127.0.0.1", help="the interface; by default only this machine reaches it")

    p = add("deploy", _deploy, "run a policy on an arm, behind the supervisor", _DEPLOY_EXAMPLES)
    p.add_argument("policy", metavar="POLICY", help="a policy file, such as RUN/policy.safetensors")
    p.add_argument("--robot", required=True, metavar="ROBOT", help="an address: twin:fr3, twin:fr3?latency=0.04")
    length = p.add_mutually_exclusive_group()
    length.add_argument("--episodes", type=int, metavar="N", help="episodes (10)")
    length.add_argument("--duration", type=float, metavar="S", help="seconds on the arm's clock instead of episodes")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the goals (0)")
    p.add_argument("--realtime", action="store_true", help="pace a simulated arm by the clock on the wall")
    p.add_argument("--record", metavar="OUT.hdf5", help="record every episode in robomimic's layout")

    p = add("identify", _identify, "fit a model's parameters to how an arm moved", _IDENTIFY_EXAMPLES)
    p.add_argument("log", metavar="LOG.hdf5", help="a recording of an arm; with --excite the file to record to")
    p.add_argument("--fit", required=True, metavar="FILE", help="a randomization file: what to fit, in which ranges")
    p.add_argument("--out", metavar="FILE", help="write the result as a randomization file")
    p.add_argument("--excite", metavar="ROBOT", help="first move the arm at this address about its home, and record it")
    p.add_argument("--duration", type=float, default=30.0, metavar="S", help="with --excite: seconds of motion (30)")
    p.add_argument("--amplitude", type=float, default=0.5, metavar="RAD", help="with --excite: of each joint (0.5)")
    p.add_argument("--robot", default="", metavar="NAME", help="the arm; by default the recording's")
    p.add_argument("--episode", action="append", default=[], metavar="demo_N", help="use this one alone; repeatable")
    p.add_argument("--mjcf", metavar="FILE", help="another model of the arm")
    p.add_argument("--physics-dt", type=float, default=0.001, metavar="S", help="time step of the model (0.001 s)")
    p.add_argument("--threads", type=int, default=0, metavar="N", help="physics threads; 0 takes every core")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the motion and of the starts (0)")

    p = add("export", _export, "write a policy for other runtimes, checked against torch")
    p.add_argument("policy", metavar="POLICY", help="a policy file, such as RUN/policy.safetensors")
    p.add_argument("--format", choices=("onnx",), default="onnx", help="onnx: one model, normalizer and state inside")
    p.add_argument("--out", metavar="FILE", help="where to; by default beside the policy, ending in .onnx")

    p = add("robot", _robot, "what Poise knows of arms")
    p.add_argument("action", choices=("list",), help="list: the arms, their joints and limits")

    p = add("bench", _bench, "measure Poise against its peers, interleaved, in CPU-seconds on one thread")
    p.add_argument(
        "what",
        choices=("sim", "learners", "checkpoint"),
        help="sim: the engine; learners: cost of a step; checkpoint: what saving costs",
    )
    p.add_argument("--only", metavar="NAME", help="sim, learners: only the rows whose name contains this")
    p.add_argument(
        "--seconds", type=float, metavar="S", help="seconds of measuring for every row (sim 30, learners 60)"
    )
    return parser


_TRAIN_EXAMPLES = """\
examples:
  poise train ppo --task reach/fr3 --out runs/reach
  poise train sac --task gym:Pendulum-v1 --steps 10000 --seed 1
  poise train ppo --task reach/fr3 --randomize my_ranges.json --set learning_rate=3e-4
  poise train --resume runs/reach --steps 2000000
  poise train ppo --task reach/fr3 --config runs/reach/config.json --out runs/again"""

_EVAL_EXAMPLES = """\
  poise eval runs/reach/policy.safetensors --episodes 200 --video reach.mp4
  poise eval runs/a/policy.safetensors runs/b/policy.safetensors         two seeds of one training
  poise eval none=runs/a/policy.safetensors default=runs/b/policy.safetensors --grid grid.json --out gap
                                   the gap: tables and heat-maps over held-out realities, a column for each label
"""

_VIEW_EXAMPLES = """\
examples:
  poise view reach/fr3
  poise view reach/fr3 --policy runs/reach/policy.safetensors --randomize default
  poise view gym:HalfCheetah-v5 --seed 3

The page has buttons to pause, step and restart, sliders that move the joints, and the rewards as they come.
The simulation runs in this process and on one machine: nothing is sent elsewhere."""

_DEPLOY_EXAMPLES = """\
examples:
  poise deploy runs/reach/policy.safetensors --robot twin:fr3 --episodes 20 --record reach.hdf5
  poise deploy runs/reach/policy.safetensors --robot 'twin:fr3?latency=0.04&mass=1.1&gain=0.9' --realtime

The supervisor is not a safety-rated system: a real arm needs a hardware stop within reach."""


_IDENTIFY_EXAMPLES = """\
examples:
  poise identify motion.hdf5 --excite 'twin:fr3?payload=0.3' --fit payload.json --out found.json
  poise identify reach.hdf5 --fit payload.json                 from what `poise deploy --record` wrote

The motion goes through the supervisor; give the arm room: every joint moves by up to the amplitude."""


class _TrainHelp(argparse.Action):
    """`poise train --help` with every recipe, and `poise train ALGO --help` with every setting of one."""

    def __call__(self, parser, namespace, values, option_string=None):
        from .policies.recipes import RECIPES, recipe

        parser.print_help()
        algorithm = getattr(namespace, "algorithm", None)
        if not algorithm:
            print("\nrecipes (`poise train ALGO --help` lists the settings of one):")
            width = max(map(len, RECIPES))
            for name, make in RECIPES.items():
                print(f"  {name:<{width}}  {(make.__doc__ or '').strip().splitlines()[0]}")
        else:
            from .policies.settings import describe

            chosen = recipe(algorithm, getattr(namespace, "task", None))
            for title, config in ((f"settings of {algorithm}", chosen.settings), ("settings of a run", chosen.run)):
                print(f"\n{title} (--set key=value):")
                for name, default, text in describe(config):
                    print(f"  {name:<20} {default:<12} {text}")
        parser.exit()


def _version_or_help(options) -> dict[str, Any]:
    if options.version:
        from . import __version__

        print(f"poise {__version__}")
    else:
        options.parser.print_help()
    return {}


# ---- commands ----------------------------------------------------------------------------------


def _train(options) -> dict[str, Any]:
    from .policies.progress import Progress
    from .policies.recipes import RECIPES
    from .policies.settings import parse_assignments

    flags = {"num_envs": options.num_envs, "steps": options.steps, "device": options.device,
             "randomize": options.randomize, "seed": options.seed}  # fmt: skip
    flags = {k: v for k, v in flags.items() if v is not None}
    if options.resume:
        beyond = [f"--{k.replace('_', '-')}" for k in flags if k not in ("steps", "device")]
        beyond += [f"--{k}" for k in ("config", "out", "task", "mjcf") if getattr(options, k)]
        beyond += ["--set"] * bool(options.set)
        if beyond:
            raise UsageError(f"--resume goes on with the run as it was; leave out {', '.join(beyond)}")
        from .policies.run_folder import read_config
        from .policies.train import resume

        with Progress() as progress:
            read_config(Path(options.resume))
            result = resume(options.resume, options.steps, options.device, progress)
    else:
        if not options.algorithm:
            raise UsageError(f"poise train needs an algorithm: {', '.join(sorted(RECIPES))}")
        if options.algorithm not in RECIPES:
            raise unknown_name("algorithm", options.algorithm, RECIPES)
        if not options.task:
            raise UsageError("poise train needs --task, such as reach/fr3 or gym:Pendulum-v1")
        settings = {**_config_settings(options), **flags, **parse_assignments(options.set)}
        from .policies.train import train

        with Progress() as progress:
            task = _with_mjcf(options.task, options.mjcf)
            result = train(options.algorithm, task, options.out, settings=settings, progress=progress)
    print(f"trained {result.steps:,} steps in {result.seconds:.0f} s: {result.policy}")
    if result.eval is not None:
        _print_eval(result.eval.to_json())
    print(f"curves: {result.run_dir / 'curves.png'}\nnext:   poise eval {result.policy}")
    return {"run_dir": str(result.run_dir), "policy": str(result.policy), "steps": result.steps,
            "eval": result.eval.to_json() if result.eval else None}  # fmt: skip


def _with_mjcf(task: str, mjcf: str | None) -> str:
    """The task with another model of its arm, by its absolute path: a run may be resumed from another folder."""
    if not mjcf:
        return task
    if ":" in task.partition("?")[0] and not task.startswith("py:"):
        raise UsageError(f"--mjcf is another model of a native task's arm, and {task} is no native task")
    return with_option(task, "mjcf", str(Path(mjcf).resolve()))


def _config_settings(options) -> dict[str, Any]:
    """Settings of --config FILE: a run's config.json, or a plain object of settings."""
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
    return {**config["run"], **config["settings"]} if "run" in config and "settings" in config else config


def _eval(options) -> dict[str, Any]:
    if options.grid:
        return _eval_grid(options)
    if options.out:
        raise UsageError("--out is where the report of --grid goes")
    episodes, seed = options.episodes or 100, 1000 if options.seed is None else options.seed
    from .policies.evaluate import evaluate
    from .policies.policy import load_policy
    from .policies.progress import Progress
    from .policies.statistics import aggregate

    if options.video and len(options.policy) > 1:
        raise UsageError("--video films one policy; leave out the others")
    policies = [_expert(options.task) if path == "expert" else load_policy(path) for path in options.policy]
    tasks = [options.task or policy.provenance.get("task") for policy in policies]
    if not (task := tasks[0]):
        raise UsageError(f"{options.policy[0]} does not say what it was trained on; name it with --task")
    for path, other in zip(options.policy, tasks, strict=True):
        if other != task:
            raise UsageError(f"{path} was trained on {other}, {options.policy[0]} on {task}: one score needs one task; "
                             f"name it with --task")  # fmt: skip
    trained = policies[0].provenance.get("randomize") if task == policies[0].provenance.get("task") else "default"
    randomize, task = options.randomize or trained or "none", _with_mjcf(task, options.mjcf)
    with Progress() as progress:
        ended = progress.episodes(episodes * len(policies))
        results = [evaluate(policy, task, episodes, seed, randomize, ended) for policy in policies]
    scores = [result.to_json(options.returns) for result in results]
    if len(policies) > 1:
        together = aggregate([result.returns for result in results], seed).to_json()
        for path, e in zip(options.policy, scores, strict=True):
            print(f"{path}: {_return_line(e)}")
        _print_aggregate(together, options.policy)
        return {"policies": options.policy, "task": task, "evals": scores, "aggregate": together}
    _print_eval(scores[0])
    video = None
    if options.video:
        from .policies.film import film

        video = str(film(policies[0], task, options.video, options.video_episodes, seed, randomize))
        print(f"video:        {video}")
    return {"policy": options.policy[0], "task": task, "eval": scores[0], "video": video}


def _expert(task: str | None) -> Any:
    """The scripted expert of the task, in a policy's place."""
    if not task:
        raise UsageError("an expert needs its task, such as lift/fr3: poise eval expert --task lift/fr3")
    from .policies.expert_policy import ExpertPolicy

    return ExpertPolicy(task)


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


def _return_line(e: dict[str, Any]) -> str:
    return f"{e['return_mean']:.2f} ± {e['return_std']:.2f} (worst {e['return_min']:.2f})"


def _print_eval(e: dict[str, Any]) -> None:
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


def _view(options) -> dict[str, Any]:
    from .policies.policy import load_policy
    from .policies.view import view

    policy = None
    if options.policy:
        policy = _expert(options.task) if options.policy == "expert" else load_policy(options.policy)
    task = options.task or (policy.provenance.get("task") if policy else None)
    if not task:
        raise UsageError("poise view needs a task, such as reach/fr3 or gym:HalfCheetah-v5, or --policy POLICY")
    task = _with_mjcf(task, options.mjcf)
    return view(task, policy, seed=options.seed, episodes=options.episodes, host=options.host, port=options.port,
                randomize=options.randomize or "none", name=options.policy or "")  # fmt: skip


def _deploy(options) -> dict[str, Any]:
    from .policies.progress import Progress
    from .real_robot.deploy import deploy

    with Progress() as progress:
        summary = deploy(options.policy, options.robot, episodes=options.episodes, duration=options.duration,
                         seed=options.seed, realtime=options.realtime, record=options.record,
                         progress=progress.episodes(options.episodes or 10))  # fmt: skip
    for name, value in summary.items():
        print(f"{name.replace('_', ' '):<14} {value:.3f}" if isinstance(value, float) else
              f"{name.replace('_', ' '):<14} {value}")  # fmt: skip
    return summary


def _identify(options) -> dict[str, Any]:
    from .policies.progress import Progress
    from .real_robot.drivers import address_robot
    from .real_robot.motion_log import read_motions, record_motion
    from .sim.identify import identify
    from .sim.randomization import Randomization

    terms = Randomization.load(options.fit)
    if options.excite:
        with Progress() as progress:
            ticks = round(options.duration / address_robot(options.excite).servo_dt)
            record_motion(options.excite, options.log, options.duration, options.amplitude, options.seed,
                          progress=progress.episodes(ticks, "servo period"))  # fmt: skip
    robot, motions = read_motions(options.log, options.robot, options.episode)
    found = identify(robot, motions, terms, options.mjcf, options.physics_dt, options.threads, options.seed)
    width = max(len(p.name) for p in found.parameters)
    print(f"{'':<{width}}  {'estimate':>10}  {'deviation':>10}  searched")
    for p in found.parameters:
        print(f"{p.name:<{width}}  {p.estimate:>10.5g}  {p.std:>10.2g}  {p.low:g} to {p.high:g}")
    print(f"left of the motion: {1e3 * found.rms:.3g} mrad, of the model as it is {1e3 * found.rms_before:.3g} mrad "
          f"(root mean square over {found.rows:,} readings)")  # fmt: skip
    for line in found.warnings:
        print(f"warning: {line}")
    if options.out:
        Path(options.out).write_text(json.dumps(found.randomization().to_json(), indent=2) + "\n")
        print(f"randomization: {options.out}")
    return {"log": options.log, "robot": robot.name, "out": options.out, **found.to_json()}


def _export(options) -> dict[str, Any]:
    from .policies.onnx_export import export_onnx

    exported = export_onnx(options.policy, options.out)
    for title, values in (("input", exported.inputs), ("output", exported.outputs)):
        for name, kind in values.items():
            print(f"{title:<8}{name:<20} {kind}")
    if exported.difference is None:
        print("not checked: that needs onnxruntime, pip install 'poise[export]'")
    else:
        print(f"checked against torch: actions and states differ by {exported.difference:.1g} at most")
    print(f"exported: {exported.path}")
    return {"policy": options.policy, "onnx": str(exported.path), "inputs": exported.inputs,
            "outputs": exported.outputs, "difference": exported.difference}  # fmt: skip


def _robot(options) -> dict[str, Any]:
    from .robots import ROBOTS

    rows = []
    for name, robot in sorted(ROBOTS.items()):
        print(f"{name}: {robot.num_joints} joints, commands every {1e3 * robot.servo_dt:g} ms, address twin:{name}")
        print(f"  {'joint':<20}{'low [rad]':>10}{'high':>9}{'rad/s':>8}{'rad/s²':>8}{'N m':>7}")
        for row in zip(robot.joints, robot.position_low, robot.position_high, robot.velocity,
                       robot.acceleration, robot.effort, strict=True):  # fmt: skip
            print(f"  {row[0]:<20}{row[1]:>10.4f}{row[2]:>9.4f}{row[3]:>8.2f}{row[4]:>8.1f}{row[5]:>7.1f}")
        rows.append({"name": name, "joints": list(robot.joints)})
    return {"robots": rows}


def _bench(options) -> dict[str, Any]:
    path = Path(__file__).parent / "tests" / "benchmarks" / f"bench_{options.what}.py"
    if not path.exists():
        raise UsageError(f"benchmarks live in the repository, not in the installed package: expected {path.name} "
                         f"in tests/benchmarks; run poise bench from a clone")  # fmt: skip
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    wishes = {k: v for k, v in (("only", options.only), ("seconds", options.seconds)) if v is not None}
    if wishes and options.what == "checkpoint":
        raise UsageError(f"poise bench {options.what} takes neither --only nor --seconds")
    rows = module.rows(**wishes)
    _print_rows(rows)
    return {"rows": rows}


def _print_rows(rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names] + [
        [f"{v:.4g}" if isinstance(v := row.get(n, ""), float) else str(v) for n in names] for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
