"""`poise deploy`, `poise identify` and `poise robot`: what has to do with an arm."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_calibrate import CALIBRATE_EXAMPLES, add_calibrate, calibrate_command
from .cli_help import needs_action
from .errors import UsageError

if TYPE_CHECKING:
    from .real_robot.leader import Leader

DEPLOY_EXAMPLES = """\
examples:
  poise deploy runs/reach/policy.safetensors --robot twin:fr3 --episodes 20 --record reach.hdf5
  poise deploy runs/reach/policy.safetensors --robot 'twin:fr3?latency=0.04&mass=1.1&gain=0.9' --realtime
  poise deploy runs/lift/policy.safetensors --robot twin:fr3          a cube in the twin's scene to be lifted

The supervisor is not a safety-rated system: a real arm needs a hardware stop within reach."""


IDENTIFY_EXAMPLES = """\
examples:
  poise identify motion.hdf5 --excite 'twin:fr3?payload=0.3' --fit payload.json --out found.json
  poise identify reach.hdf5 --fit payload.json                 from what `poise deploy --record` wrote

The motion goes through the supervisor; give the arm room: every joint moves by up to the amplitude."""


def deploy_command(options) -> dict[str, Any]:
    """Run a policy on an arm, and print what came of it."""
    from .policies.progress import Progress
    from .real_robot.deploy import deploy

    with Progress() as progress:
        summary = deploy(options.policy, options.robot, episodes=options.episodes, duration=options.duration,
                         seed=options.seed, realtime=options.realtime, record=options.record, apart=options.apart,
                         ensemble=options.ensemble, delay=options.delay, view=_live(options),
                         cameras=_cameras(options.camera),
                         progress=progress.episodes(options.episodes or 10))  # fmt: skip
    for name, value in summary.items():
        print(f"{name.replace('_', ' '):<14} {value:.3f}" if isinstance(value, float) else
              f"{name.replace('_', ' '):<14} {value}")  # fmt: skip
    return summary


def _live(options) -> Any:
    """What opens the live view, where it was asked for."""
    if not options.view:
        return None
    from .real_robot.live_view import LiveView

    def open_page(arm: Any) -> LiveView:
        page = LiveView(arm, options.policy, options.host, options.port)
        print(f"{arm.spec.name} is at {page.url}", flush=True)
        return page

    return open_page


def _cameras(texts: list[str]) -> dict[str, str]:
    if wrong := [text for text in texts if not all(text.partition("=")[::2])]:
        raise UsageError(f"--camera {wrong[0]}: expected NAME=ADDRESS, such as front=v4l2:/dev/video0")
    return {name: address for name, _, address in (text.partition("=") for text in texts)}


def identify_command(options) -> dict[str, Any]:
    """Fit a model to a recording, made first where asked for, and print the parameters."""
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


# ---- poise robot -------------------------------------------------------------------------------

ROBOT_EXAMPLES = """\
examples:
  poise robot list                              the arms, their joints and limits
  poise robot check twin:fr3                    look at an arm as it stands
  poise robot home twin:fr3                     move an arm to its home pose, slowly
  poise robot emulate so101 --link /tmp/so101   an arm to try things on, by its vendor's protocol
  poise robot calibrate so101:/dev/ttyACM0 --out so101.json
                                                where the servos of an arm stand, shown by hand
  poise robot emulate camera --set port=8090    a camera to try things on: mjpeg:http://127.0.0.1:8090/stream

Moving an arm goes through the supervisor. It is not a safety-rated system: a real arm needs a hardware stop within
reach."""

HOME_EXAMPLES = """\
examples:
  poise robot home twin:fr3
  poise robot home so101:/dev/ttyACM0 --speed 0.1

Straight in joint space, or first back as the arm came, at a fraction of its limits of velocity and acceleration."""


TELEOP_EXAMPLES = """\
examples:
  poise robot teleop twin:fr3 --record led.hdf5
  poise robot teleop 'so101:/dev/ttyACM0?calibration=so101.json' --leader 'so101:/dev/ttyACM1?calibration=leader.json'
  poise robot teleop ur:192.168.1.11 --host 0.0.0.0        from a headset or phone in this network

It prints the address of a page, with a token in it. One page drives at a time, while its dead-man's switch is held;
braking begins within 0.3 s of its last word. Every command passes the supervisor. That is not a safety-rated system:
keep a hardware stop within reach."""


CHECK_EXAMPLES = """\
examples:
  poise robot check twin:fr3?latency=0.04                        nothing moves but what the device moves itself
  poise robot check twin:fr3?latency=0.04 --motion --out delay.json
  poise train sac --task reach/fr3 --randomize delay.json"""


def add_robot(commands: Any, common: argparse.ArgumentParser) -> None:
    """Register `poise robot` and everything below it."""
    style = argparse.RawDescriptionHelpFormatter
    p = commands.add_parser("robot", help="look at an arm, move it, steer it, emulate one", parents=[common],
                            description=f"Look at an arm, move it, steer it, emulate one.\n\n{ROBOT_EXAMPLES}",
                            formatter_class=style)  # fmt: skip
    p.set_defaults(run=needs_action(p))
    actions = p.add_subparsers(title="actions", metavar="ACTION", parser_class=type(p))

    def add(name: str, run: Any, help: str, description: str = "") -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=help, parents=[common], formatter_class=style,
                                 description=f"{help[0].upper()}{help[1:]}.\n\n{description}")  # fmt: skip
        sub.set_defaults(run=run)
        return sub

    add("list", _list, "list the arms, their joints and limits")

    h = add("home", _home, "move an arm to its home pose, slowly, through the supervisor", HOME_EXAMPLES)
    h.add_argument("robot", metavar="ROBOT", help="an address, such as twin:fr3")
    h.add_argument("--speed", type=float, default=0.1, metavar="X", help="fraction of the arm's limits (0.1)")

    c = add("check", _check, "look at an arm before a policy runs on it, and find its delay", CHECK_EXAMPLES)
    c.add_argument("robot", metavar="ROBOT", help="an address, such as twin:fr3")
    c.add_argument("--seconds", type=float, default=3.0, metavar="S", help="how long to look (3)")
    c.add_argument("--motion", action="store_true", help="move the arm a little about its home, and find its delay")
    c.add_argument("--amplitude", type=float, default=0.15, metavar="RAD", help="of that motion (0.15)")
    c.add_argument("--out", metavar="FILE", help="with --motion: write the delay as a randomization file to train with")

    t = add("teleop", _teleop, "steer an arm from a page: pads, keys, gamepad, headset or phone", TELEOP_EXAMPLES)
    t.add_argument("robot", metavar="ROBOT", help="an address, such as twin:fr3")
    t.add_argument("--host", default="127.0.0.1", help="the interface; beyond this machine the page is HTTPS")
    t.add_argument(
        "--port", type=int, default=8090, metavar="P", help="where the page is served (8090; 0 any free one)"
    )
    t.add_argument("--record", metavar="FILE", help="write the episodes that the page marks to this new file")
    t.add_argument("--control-dt", type=float, default=0.05, metavar="S", help="a recorded step (0.05 s)")
    t.add_argument("--no-gripper", action="store_true", help="record the joints alone")
    t.add_argument("--speed", type=float, default=0.15, metavar="M/S", help="fastest tool, at most 0.25 (0.15 m/s)")
    t.add_argument("--leader", metavar="ROBOT", help="an arm of servos to lead with, such as so101:/dev/ttyACM1")

    add_calibrate(add("calibrate", calibrate_command, "show an arm of servos where its joints stand",
                      CALIBRATE_EXAMPLES))  # fmt: skip

    e = add("emulate", _emulate, "start an emulator of an arm, which runs until Ctrl-C")
    e.add_argument("name", metavar="NAME", help="the arm, such as so101; an unknown name lists them")
    e.add_argument("--host", default="127.0.0.1", help="loopback address to listen on, such as 127.0.0.5")
    e.add_argument("--link", default="", help="name to give a serial line's end, such as /tmp/so101")
    e.add_argument("--virtual", action="store_true", help="time passes with commands alone")
    e.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="model error, such as mass=1.1, "
                   "or a scene, task=lift/xarm7")  # fmt: skip


def _list(options) -> dict[str, Any]:
    """Print every arm that Poise knows."""
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


def _home(options) -> dict[str, Any]:
    """Move to the home pose, and print where the arm then stands."""
    import numpy as np

    from .real_robot.robot import Robot

    with Robot(options.robot) as arm:
        before = arm.read().joint_pos
        arm.move_to(arm.spec.home, options.speed)
        reading, home = arm.read(), np.array(arm.spec.home)
        print(f"{'joint':<20}{'was [rad]':>10}{'is':>9}{'home':>9}")
        for name, was, now, goal in zip(arm.spec.joints, before, reading.joint_pos, home, strict=True):
            print(f"{name:<20}{was:>10.4f}{now:>9.4f}{goal:>9.4f}")
        away = float(np.abs(reading.joint_pos - home).max())
    return {"robot": options.robot, "joint_pos": reading.joint_pos.tolist(), "away": away}


def _leader(address: str | None) -> Leader | None:
    from .real_robot.leader import Leader

    return None if address is None else Leader(address)


def _check(options) -> dict[str, Any]:
    """Print what was seen of an arm, and where asked for its delay."""
    import json

    from .policies.progress import Progress
    from .real_robot.arm_check import check_arm, find_latency, motion_periods
    from .sim.randomization import Randomization

    seen = check_arm(options.robot, options.seconds)
    for name, value in seen.to_json().items():
        if name != "warnings":
            print(f"{name:<12} {value:.4g}" if isinstance(value, float) else f"{name:<12} {value or '-'}")
    result = {**seen.to_json(), "latency": None, "out": options.out}
    if options.motion:
        with Progress() as progress:
            ticks = motion_periods(options.robot)
            term, found = find_latency(options.robot, amplitude=options.amplitude,
                                       progress=progress.episodes(ticks, "servo period"))  # fmt: skip
        assert term.range is not None
        low, high = term.range
        print(f"delay        {500.0 * (low + high):.1f} ms; train with {1e3 * low:.1f} to {1e3 * high:.1f} ms "
              f"(left of the motion: {1e3 * found.rms:.3g} mrad)")  # fmt: skip
        result["latency"] = [low, high]
        if options.out:
            Path(options.out).write_text(json.dumps(Randomization((term,)).to_json(), indent=2) + "\n")
            print(f"randomization: {options.out}")
    for line in seen.warnings:
        print(f"warning: {line}")
    return result


def _emulate(options) -> dict[str, Any]:
    from .real_robot.emulators.__main__ import run

    run(options.name, options.host, options.link, options.virtual, options.set)
    return {"emulated": options.name}


def _teleop(options) -> dict[str, Any]:
    """Serve the page and lead the arm until Ctrl-C."""
    from .policies.interrupts import interrupts
    from .real_robot.demonstrations import Demonstrations
    from .real_robot.desk import Desk
    from .real_robot.drivers import split_address, with_option
    from .real_robot.jog import Speeds
    from .real_robot.leader import LeaderSource, LedByArm
    from .real_robot.robot import Robot
    from .real_robot.teleop import PageSource, Teleoperation
    from .real_robot.teleop_server import TeleopServer

    if not 0.0 < options.speed <= 0.25:
        raise UsageError(f"--speed {options.speed:g}: expected above 0 and at most 0.25 m/s")
    address = options.robot
    if split_address(address)[0] == "twin":
        address = with_option(address, "realtime", "1")
    arm = Robot(address)
    desk, speeds = Desk(arm.spec, arm.stop), Speeds(linear=options.speed)
    page = PageSource(arm.spec, desk, speeds)
    leader = _leader(options.leader)
    source = page if leader is None else LedByArm(LeaderSource(leader, arm.spec), page)
    teleoperation = Teleoperation(arm, source, options.control_dt)
    server = TeleopServer(arm.spec, desk, options.host, options.port, speeds, records=options.record is not None)
    try:
        with arm, leader or contextlib.nullcontext():
            teleoperation.show = server.show
            if options.record:
                teleoperation.record = Demonstrations(options.record, arm.spec, options.robot, options.control_dt,
                                                      teleoperation.period, not options.no_gripper)  # fmt: skip
            print(f"steer {arm.spec.name} at {server.url} (Ctrl-C ends)", flush=True)
            if server.fingerprint:
                print(f"the browser will not know its certificate; SHA-256 {server.fingerprint}", flush=True)
            with interrupts() as interrupted:
                teleoperation.run(interrupted)
            counts = arm.status()["counts"]
    finally:
        server.close()
        if teleoperation.record is not None:
            teleoperation.record.close()
    episodes = 0 if teleoperation.record is None else teleoperation.record.episodes
    if options.record:
        print(f"{options.record}: {episodes} episodes")
    return {"robot": options.robot, "recording": options.record, "episodes": episodes, **counts}
