"""`poise data`: what is in demonstration files, and making them. Functions that return; this file parses and prints."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from .cli_help import needs_action
from .errors import PoiseError, UsageError

EXAMPLES = """\
examples:
  poise data collect lift.hdf5 --task lift/fr3 --episodes 200          the task's scripted expert
  poise data collect hop.hdf5 --task Hopper-v5 --policy runs/hop/policy.safetensors --noise 0.1"""

COLLECT_EXAMPLES = """\
examples:
  poise data collect lift.hdf5 --task lift/fr3 --episodes 200 --randomize default
  poise data collect noisy.hdf5 --task push/fr3 --noise 0.2 --only-success
  poise data collect lift.hdf5 --task lift/fr3 --episodes 100 --randomize default --append     now 300
  poise data collect hop.hdf5 --task Hopper-v5 --policy runs/hop/policy.safetensors
  poise data collect any.hdf5 --task HalfCheetah-v5 --policy random

The file has robomimic's layout. With --noise, `actions` holds what was executed and `actions_asked` what the policy
put out: to imitate the latter shows how to come back from mistakes."""

FROM_RUN_EXAMPLES = """\
examples:
  poise data from-run runs/hop hop-replay.hdf5
  poise data from-run runs/hop hop-medium-replay.hdf5 --first 100000

Every transition is the replay's, true successors included. Episodes that were still going on are marked cut and
truncated; the filter `whole` (hop-replay.hdf5:whole) leaves them out."""


CHECK_EXAMPLES = """\
examples:
  poise data check lift.hdf5
  poise data check *.hdf5 --ignore action-range --strict
  poise data check --rules

Exit code 0: no error was found (with --strict, nothing at all); 1: some were; 2: wrong usage."""

INFO_EXAMPLES = """\
examples:
  poise data info lift.hdf5
  poise data info hopper-medium-v2.hdf5 lerobot-folder --json"""

CONVERT_EXAMPLES = """\
examples:
  poise data convert hopper-medium-v2.hdf5 hopper.hdf5 --to robomimic
  poise data convert lift.hdf5 lift-d4rl.hdf5 --to d4rl --filter train

Arrays come out as they went in; what the target has no place for is kept beside it where that is possible, and each
such thing is named in a line."""

SPLIT_EXAMPLES = """\
examples:
  poise data split lift.hdf5 --valid 0.1            filters train and valid: poise fit bc --data lift.hdf5:train
  poise data split human.hdf5 --best 0.2            the fifth with the highest returns, as filter top_20
  poise data split human.hdf5 --by success          filters success and failure, by the episodes' attribute
  poise data split human.hdf5 --by length --parts 4 filters length_1 (the shortest) to length_4
  poise data split lift.hdf5 --valid 0.1 --filter success --out lift-split.hdf5"""

REPLAY_EXAMPLES = """\
examples:
  poise data replay lift.hdf5                        every state again: rewards and success by the task itself
  poise data replay lift.hdf5 --mode actions         open loop from where each episode began, and how far it parts
  poise data replay door.hdf5 --task gym:AdroitHandDoor-v1 --episode demo_0 --video door.mp4
  poise data replay led.hdf5 --robot twin:fr3        on an arm: first slowly to where it began, then as it was sent

Divergence is the largest difference between an observation (or state) of the file and of the simulator."""


def add_data(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register `poise data` and everything below it."""
    style = argparse.RawDescriptionHelpFormatter
    p = commands.add_parser("data", help="make, look at and change demonstration files", parents=[common],
                            description=f"Make, look at and change demonstration files.\n\n{EXAMPLES}",
                            formatter_class=style)  # fmt: skip
    p.set_defaults(run=needs_action(p))
    actions = p.add_subparsers(title="actions", metavar="ACTION", parser_class=type(p))

    def add(name: str, run: Any, help: str, description: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=help, parents=[common], formatter_class=style,
                                 description=f"{help[0].upper()}{help[1:]}.\n\n{description}")  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    c = add("collect", _collect, "write episodes of an expert or a policy in simulation", COLLECT_EXAMPLES)
    c.add_argument("out", metavar="OUT.hdf5", help="the new file")
    c.add_argument("--append", action="store_true", help="go on with the file where it is there already")
    c.add_argument("--task", required=True, help="the task, as for poise train")
    c.add_argument("--policy", default="expert", metavar="expert|random|FILE", help="who acts (expert)")
    c.add_argument("--episodes", type=int, default=50, metavar="N", help="episodes to write (50)")
    c.add_argument("--noise", type=float, default=0.0, metavar="STD", help="of what is added to every action (0)")
    c.add_argument("--only-success", action="store_true", help="write successful episodes alone, until there are N")
    c.add_argument("--randomize", default="none", metavar="none|default|FILE", help="dynamics (none)")
    c.add_argument("--num-envs", type=int, default=0, metavar="N", help="worlds stepped together (at most 64)")
    c.add_argument("--seed", type=int, default=0, metavar="S", help="seed of starts, dynamics and noise (0)")

    r = add("from-run", _from_run, "write what an online run did as demonstrations", FROM_RUN_EXAMPLES)
    r.add_argument("run_dir", metavar="RUN", help="the run folder, of sac or another learner with a replay")
    r.add_argument("out", metavar="OUT.hdf5", help="the new file")
    r.add_argument("--first", type=int, metavar="N", help="the run's first N steps over all worlds alone")

    k = add("check", _check, "look for what would spoil learning, by named rules", CHECK_EXAMPLES)
    k.add_argument("files", metavar="FILE", nargs="*", help="files or folders of any layout")
    k.add_argument("--only", nargs="+", default=[], metavar="RULE", help="these rules alone")
    k.add_argument("--ignore", nargs="+", default=[], metavar="RULE", help="all rules but these")
    k.add_argument("--strict", action="store_true", help="warnings count as errors")
    k.add_argument("--layout", metavar="LAYOUT", help="what the files are, where it is not to be detected")
    k.add_argument("--rules", action="store_true", help="list the rules")

    i = add("info", _info, "say what is in files: columns, lengths, returns, action ranges, filters", INFO_EXAMPLES)
    i.add_argument("files", metavar="FILE", nargs="+", help="files or folders of any layout")
    i.add_argument("--layout", metavar="LAYOUT", help="what the files are, where it is not to be detected")
    i.add_argument("--plot", metavar="OUT.png", help="draw a picture of it too, of one FILE")

    c = add("convert", _convert, "write a file in another layout", CONVERT_EXAMPLES)
    c.add_argument("source", metavar="IN", help="a file or folder of any layout")
    c.add_argument("out", metavar="OUT", help="the new file or folder")
    c.add_argument("--to", required=True, metavar="LAYOUT", help="robomimic, d4rl, minari, npz, …")
    c.add_argument("--layout", metavar="LAYOUT", help="what IN is, where it is not to be detected")
    c.add_argument("--filter", default="", metavar="NAME", help="the episodes of this filter alone")

    s = add("split", _split, "divide episodes into train and valid, or pick the best", SPLIT_EXAMPLES)
    s.add_argument("file", metavar="FILE", help="a file of robomimic's layout")
    how = s.add_mutually_exclusive_group(required=True)
    how.add_argument("--valid", type=float, metavar="SHARE", help="hold out this share of the episodes")
    how.add_argument("--best", type=float, metavar="SHARE", help="pick this share of the episodes, by return")
    how.add_argument("--by", metavar="WHAT", help="divide by return, length, success, or any attribute of episodes")
    s.add_argument("--parts", type=int, default=3, metavar="N", help="with --by return or length: parts (3)")
    s.add_argument("--filter", default="", metavar="NAME", help="of the episodes of this filter alone")
    s.add_argument("--name", default="", metavar="NAME", help="with --best: what to call the filter (top_PERCENT)")
    s.add_argument("--seed", type=int, default=0, metavar="S", help="with --valid: seed of the draw (0)")
    s.add_argument("--out", default="", metavar="FILE", help="leave FILE alone and write a copy")

    r = add("replay", _replay, "play recorded episodes again in their simulator", REPLAY_EXAMPLES)
    r.add_argument("file", metavar="FILE", help="a file or folder of any layout")
    r.add_argument("--task", metavar="TASK", help="where to play them (the task that the file names)")
    r.add_argument("--episode", action="append", metavar="NAME", help="this episode alone; may be told several times")
    r.add_argument("--mode", choices=("states", "actions"), help="what is replayed (states, where the file has them)")
    r.add_argument("--layout", metavar="LAYOUT", help="what FILE is, where it is not to be detected")
    r.add_argument("--tolerance", type=float, default=1e-5, metavar="X", help="what counts as no difference (1e-5)")
    r.add_argument("--video", metavar="OUT.mp4", help="film it")
    r.add_argument("--robot", metavar="ROBOT", help="replay the commands on the arm at this address instead")
    r.add_argument("--speed", type=float, default=0.15, metavar="X",
                   help="with --robot: to the first pose, as a fraction of the arm's limits (0.15)")  # fmt: skip


def _collect(options) -> dict[str, Any]:
    from .policies.collect import collect
    from .policies.progress import Progress

    with Progress() as progress:
        done = collect(options.task, options.out, options.policy, options.episodes, noise=options.noise,
                       randomize=options.randomize, only_success=options.only_success, num_envs=options.num_envs,
                       seed=options.seed, append=options.append,
                       progress=progress.episodes(options.episodes))  # fmt: skip
    rate = "" if done.success_rate is None else f", {100 * done.success_rate:.1f} % of {done.tried} tried succeeded"
    print(f"{done.out}: {done.episodes} episodes, {done.steps:,} steps, mean return {done.return_mean:.2f}{rate}")
    return {"out": str(done.out), "episodes": done.episodes, "tried": done.tried, "steps": done.steps,
            "return_mean": done.return_mean, "success_rate": done.success_rate}  # fmt: skip


def _from_run(options) -> dict[str, Any]:
    from .policies.run_replay import write_run

    done = write_run(options.run_dir, options.out, options.first)
    mean = "" if done.return_mean is None else f", mean return {done.return_mean:.2f}"
    print(f"{done.out}: {done.episodes} episodes, {done.steps:,} steps{mean}")
    for note in done.notes:
        print(f"note: {note}")
    return {"out": str(done.out), "episodes": done.episodes, "steps": done.steps, "return_mean": done.return_mean,
            "notes": list(done.notes)}  # fmt: skip


def _info(options) -> dict[str, Any]:
    from .datasets.open_log import open_log
    from .datasets.summary import summarize

    if options.plot and len(options.files) > 1:
        raise UsageError(f"--plot draws one file, and {len(options.files)} were named")
    found = []
    for file in options.files:
        with open_log(file, options.layout) as log:
            found.append(summarize(log))
            _print_summary(found[-1])
            if options.plot:
                from .datasets.picture import draw

                print(f"  picture       {draw(log, options.plot)}")
    return {"files": [asdict(summary) for summary in found], "plot": options.plot}


def _print_summary(s: Any) -> None:
    print(f"{s.path} ({s.layout}): {s.episodes} episodes, {s.steps:,} steps")
    print(f"  size          {s.bytes:,} bytes")
    if s.environment:
        print(f"  environment   {s.environment}")
    for name, value in s.provenance.items():
        print(f"  {name:<13} {value}")
    if s.lengths:
        print(f"  lengths       {s.lengths[0]} to {s.lengths[2]}, median {s.lengths[1]:g}")
    if s.returns:
        print(f"  returns       {s.returns[0]:.2f} to {s.returns[2]:.2f}, mean {s.returns[1]:.2f}")
    if s.success_rate is not None:
        print(f"  success       {100 * s.success_rate:.1f} % of episodes")
    for c in s.columns:
        some = "" if c.episodes == s.episodes else f"  in {c.episodes} episodes"
        print(f"  {c.name:<27} {c.dtype:<8} {c.shape!s:<16}{some}".rstrip())
        if c.terms:
            print(f"  {'':<28}{c.terms}")
    for k, (low, high) in enumerate(zip(s.action_low, s.action_high, strict=True)):
        print(f"  action {k:<6} {low:.4g} to {high:.4g}")
    for name, count in s.filters.items():
        print(f"  filter {name}: {count} episodes")
    for note in s.notes:
        print(f"  note: {note}")


def _convert(options) -> dict[str, Any]:
    from .datasets.convert import convert

    lost = convert(options.source, options.out, options.to, of=options.layout, filter=options.filter)
    for line in lost:
        print(f"note: {line}")
    print(f"{options.out}: written as {options.to}")
    return {"out": options.out, "layout": options.to, "notes": lost}


def _split(options) -> dict[str, Any]:
    from .datasets.open_log import open_log
    from .datasets.split import best, grouped, split, write_filters

    with open_log(options.file) as log:
        if options.by:
            filters = grouped(log, options.by, options.filter, options.parts)
        elif options.best is not None:
            filters = best(log, options.best, options.filter, options.name)
        else:
            filters = split(log, options.valid, options.seed, options.filter)
    written = write_filters(options.file, filters, options.out)
    for name, members in filters.items():
        print(f"{name}: {len(members)} episodes")
    print(f"{written}: use one as {written}:{next(iter(filters))}")
    return {"out": str(written), "filters": {name: len(members) for name, members in filters.items()}}


def _check(options) -> dict[str, Any]:
    from .datasets.check import RULES, check, chosen

    if options.rules:
        for one in sorted(chosen(), key=lambda r: (r.severity, r.name)):
            print(f"{one.severity:<8}{one.name:<22}{one.meaning}")
        return {"rules": [{"name": r.name, "severity": r.severity, "meaning": r.meaning} for r in RULES.values()]}
    if not options.files:
        raise UsageError("poise data check needs files; --rules lists what it looks for")
    reports = [check(file, options.layout, options.only, options.ignore) for file in options.files]
    for report in reports:
        _print_report(report)
    bad = [report.path for report in reports if report.worst(options.strict)]
    result = {"reports": [asdict(report) for report in reports]}
    if bad:
        raise CheckFailed(f"{len(bad)} of {len(reports)} files are not sound: {', '.join(bad[:5])}", result)
    return result


class CheckFailed(PoiseError):
    """Something was found; all of it has been told."""

    def __init__(self, message: str, result: dict[str, Any]):
        super().__init__(message)
        self.result = result


def _print_report(report: Any) -> None:
    from .datasets.check import RULES

    state = "sound" if not report.counts else f"{sum(report.counts.values())} findings"
    print(f"{report.path}: {report.episodes} episodes, {report.steps:,} steps: {state}")
    for name, count in sorted(report.counts.items(), key=lambda item: RULES[item[0]].severity):
        one = RULES[name]
        print(f"  {one.severity} {name} ({count}): {one.meaning} {one.advice[0].upper()}{one.advice[1:]}.")
        for finding in [f for f in report.findings if f.rule == name][:3]:
            place = finding.episode + (f", step {finding.row}" if finding.row is not None else "")
            print(f"    {place + ': ' if place else ''}{finding.message}")
        if count > 3:
            print(f"    and {count - 3} more")


def _replay_on_robot(options) -> dict[str, Any]:
    from .real_robot.drivers import split_address, with_option
    from .real_robot.replay import replay_on
    from .real_robot.robot import Robot

    if chosen := [name for name in ("task", "mode", "layout", "video") if getattr(options, name)]:
        raise UsageError(f"--robot replays what an arm was sent, as it was: without --{chosen[0]}")
    address = options.robot
    if split_address(address)[0] == "twin":
        address = with_option(address, "realtime", "1")
    with Robot(address) as arm:
        done = replay_on(options.file, arm, options.episode, options.speed)
        counts = arm.status()["counts"]
    for r in done:
        worst = int(r.divergence.argmax())
        print(f"{r.episode}: {r.steps} steps, parts by {1e3 * r.divergence[worst]:.2f} mrad at most "
              f"({arm.spec.joints[worst]}), {1e3 * r.rms:.2f} mrad root mean square"
              f"{', stopped: ' + r.fault if r.fault else ''}")  # fmt: skip
    rows = [{"episode": r.episode, "steps": r.steps, "divergence": r.divergence.tolist(), "rms": r.rms,
             "fault": r.fault} for r in done]  # fmt: skip
    return {"file": options.file, "robot": options.robot, "episodes": rows, **counts}


def _replay(options) -> dict[str, Any]:
    if options.robot:
        return _replay_on_robot(options)
    from .policies.replay_file import replay

    done = replay(options.file, options.task, options.episode, options.mode, layout=options.layout,
                  tolerance=options.tolerance, video=options.video)  # fmt: skip
    notes = list(dict.fromkeys(note for one in done for note in one.notes))
    for one in done:
        print(f"{one.episode}: {_replayed(one)}")
    for note in notes:
        print(f"note: {note}")
    if options.video:
        print(f"{options.video}: filmed")
    return {"episodes": [{"episode": one.episode, "mode": one.mode, "steps": len(one.rewards),
                          "return_recorded": one.returns[0], "return_replayed": one.returns[1],
                          "first_success": one.first_success, "diverges_at": one.beyond, "divergence": one.largest}
                         for one in done], "notes": notes}  # fmt: skip


def _replayed(one: Any) -> str:
    told, found = (f"{x:.2f}" if x is not None else "unknown" for x in one.returns)
    parts = [f"{len(one.rewards)} steps by {one.mode}", f"return {told} recorded, {found} replayed"]
    if one.success is not None:
        parts.append(f"success first at step {one.first_success}" if one.first_success else "no success")
    if one.largest:
        key = max(one.largest, key=one.largest.__getitem__)
        where = "never beyond tolerance" if one.beyond is None else f"beyond tolerance from step {one.beyond}"
        parts.append(f"divergence at most {one.largest[key]:.3g} ({key}), {where}")
    return "; ".join(parts)
