"""The `poise` command: a thin skin over the Python functions of the same names.

Exit code 0 worked, 2 wrong usage, 1 failure: one clear message on standard error, no traceback unless --debug.
With --json the last line on standard output is one JSON object, also when the command failed. Here are the commands'
options and what becomes of errors; what a command does and prints stands in the cli_*.py beside this file. All of them
import the rest of the package late, so that `poise --help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
import traceback
from typing import Any

from .cli_bench import bench_command
from .cli_data import add_data
from .cli_eval import EVAL_EXAMPLES, eval_command, expert, with_mjcf
from .cli_fit import FIT_EXAMPLES, add_fit_options, fit_command
from .cli_robot import DEPLOY_EXAMPLES, IDENTIFY_EXAMPLES, add_robot, deploy_command, identify_command
from .cli_train import TRAIN_EXAMPLES, TrainHelp, train_command
from .errors import PoiseError, UsageError

DESCRIPTION = """\
From simulation to a real arm, by one path:

  poise train ppo --task reach/fr3 --out runs/reach      train in randomized MuJoCo worlds
  poise eval runs/reach/policy.safetensors               score it on fresh episodes
  poise view reach/fr3 --policy runs/reach/policy.safetensors
                                                         watch it in a browser
  poise deploy runs/reach/policy.safetensors --robot twin:fr3 --record out.hdf5
                                                         run it on an arm, behind the supervisor
  poise data collect lift.hdf5 --task lift/fr3           write an expert's episodes to a file
  poise fit bc --data lift.hdf5 --task lift/fr3          learn from demonstrations
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
    told = getattr(error, "result", {})  # by a command that found what it was to look for
    return {**told, "error": {"type": type(error).__name__, "message": message}}


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

    p = add("train", train_command, "train a policy in simulation", TRAIN_EXAMPLES, add_help=False)
    p.add_argument("-h", "--help", action=TrainHelp, nargs=0, help="this, or with ALGO every setting of it")
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
    p.add_argument("--demos", nargs="+", default=[], metavar="FILE",
                   help="demonstrations to learn from too, FILE or FILE:FILTER; for sac and its variants")  # fmt: skip
    p.add_argument("--config", metavar="FILE", help="take settings from a config.json, such as another run's")
    p.add_argument("--set", nargs="+", action="extend", default=[], metavar="key=value", help="change settings")

    add_fit_options(add("fit", fit_command, "fit a policy to demonstrations", FIT_EXAMPLES, add_help=False))

    p = add(
        "eval", eval_command, "score a policy on fresh episodes, or several as the seeds of one training", EVAL_EXAMPLES
    )
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

    add_data(commands, common)

    p = add("deploy", deploy_command, "run a policy on an arm, behind the supervisor", DEPLOY_EXAMPLES)
    p.add_argument("policy", metavar="POLICY", help="a policy file, such as RUN/policy.safetensors")
    p.add_argument("--robot", required=True, metavar="ROBOT", help="an address: twin:fr3, twin:fr3?latency=0.04")
    length = p.add_mutually_exclusive_group()
    length.add_argument("--episodes", type=int, metavar="N", help="episodes (10)")
    length.add_argument("--duration", type=float, metavar="S", help="seconds on the arm's clock instead of episodes")
    p.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the goals (0)")
    p.add_argument("--realtime", action="store_true", help="pace a simulated arm by the clock on the wall")
    p.add_argument("--record", metavar="OUT.hdf5", help="record every episode in robomimic's layout, and a servo log")
    p.add_argument("--camera", action="append", default=[], metavar="NAME=ADDRESS",
                   help="a camera to look through and to record, front=v4l2:/dev/video0; repeatable")  # fmt: skip
    p.add_argument("--apart", choices=("numpy", "torch"), default="", help="run the policy in a process of its own")
    p.add_argument(
        "--ensemble", type=float, default=0.0, metavar="M", help="weigh overlapping plans by exp(-M i) (0: off)"
    )
    p.add_argument("--delay", type=float, default=0.0, metavar="S", help="seconds added to the policy's thinking (0)")
    p.add_argument("--view", action="store_true", help="show the arm in a web browser, with a stop button")
    p.add_argument("--port", type=int, default=8080, metavar="P", help="with --view: where the page is served (8080)")
    p.add_argument("--host", default="127.0.0.1", help="with --view: by default only this machine reaches it")

    p = add("identify", identify_command, "fit a model's parameters to how an arm moved", IDENTIFY_EXAMPLES)
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

    add_robot(commands, common)

    p = add("bench", bench_command, "measure Poise against its peers, interleaved, in CPU-seconds on one thread")
    p.add_argument(
        "what",
        choices=("sim", "learners", "data", "checkpoint", "control", "faults", "gpu"),
        help="sim: the engine; learners: cost of a step; data: sampling from files; checkpoint: what saving costs; "
        "control: supervisor, deadlines, braking, seams; faults: what emulated arms are put through; "
        "gpu: worlds and learner on one device",
    )
    p.add_argument(
        "--only", metavar="NAME", help="all but checkpoint: only the rows whose name contains this; faults: one backend"
    )
    p.add_argument(
        "--seconds", type=float, metavar="S", help="seconds of measuring for every row (sim 30, learners 60, data 10)"
    )
    p.add_argument("--device", choices=("cuda", "cpu"), help="gpu: cpu runs the same rows with a few worlds")
    return parser


_VIEW_EXAMPLES = """\
examples:
  poise view reach/fr3
  poise view reach/fr3 --policy runs/reach/policy.safetensors --randomize default
  poise view gym:HalfCheetah-v5 --seed 3

The page has buttons to pause, step and restart, sliders that move the joints, and the rewards as they come.
The simulation runs in this process and on one machine: nothing is sent elsewhere."""


def _version_or_help(options) -> dict[str, Any]:
    if options.version:
        from . import __version__

        print(f"poise {__version__}")
    else:
        options.parser.print_help()
    return {}


# ---- commands ----------------------------------------------------------------------------------


def _view(options) -> dict[str, Any]:
    from .policies.policy import load_policy
    from .policies.view import view

    policy = None
    if options.policy:
        policy = expert(options.task) if options.policy == "expert" else load_policy(options.policy)
    task = options.task or (policy.provenance.get("task") if policy else None)
    if not task:
        raise UsageError("poise view needs a task, such as reach/fr3 or gym:HalfCheetah-v5, or --policy POLICY")
    task = with_mjcf(task, options.mjcf)
    return view(task, policy, seed=options.seed, episodes=options.episodes, host=options.host, port=options.port,
                randomize=options.randomize or "none", name=options.policy or "")  # fmt: skip


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


if __name__ == "__main__":
    sys.exit(main())
