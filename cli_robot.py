"""`poise deploy`, `poise identify` and `poise robot`: what has to do with an arm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DEPLOY_EXAMPLES = """\
examples:
  poise deploy runs/reach/policy.safetensors --robot twin:fr3 --episodes 20 --record reach.hdf5
  poise deploy runs/reach/policy.safetensors --robot 'twin:fr3?latency=0.04&mass=1.1&gain=0.9' --realtime

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
                         seed=options.seed, realtime=options.realtime, record=options.record,
                         progress=progress.episodes(options.episodes or 10))  # fmt: skip
    for name, value in summary.items():
        print(f"{name.replace('_', ' '):<14} {value:.3f}" if isinstance(value, float) else
              f"{name.replace('_', ' '):<14} {value}")  # fmt: skip
    return summary


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


def robot_command(options) -> dict[str, Any]:
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
