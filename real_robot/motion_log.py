"""Motions of an arm on disk, for identification: recorded by moving it, or read from any recording of an arm.

An exciting motion is for every joint a sum of sines about its home, faded in and out, as large as the arm's limits and
`amplitude` allow. Each servo period is a row, in the layout of datasets/episodes.py.

Legend: T servo periods, n joints.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from ..datasets.episodes import Episode, EpisodeFile, EpisodeWriter, environment
from ..errors import DatasetError, LimitViolatedError, UsageError
from ..keyed import Stream
from ..robots import RobotSpec, robot_spec
from ..sim.motion_replay import Motion
from ..spec import ActionTerm, ObsTerm, Spec
from .robot import Robot

SINES, FREQUENCIES = 3, (0.1, 1.0)  # of each joint, [Hz]
FADE = 0.5  # [s] at either end
SHARE = 0.8  # of the arm's limits of velocity and acceleration
_MARGIN = 0.05  # [rad] kept from the ends of the joints' ranges


def record_motion(address: str, out: str | os.PathLike[str], duration: float = 30.0, amplitude: float = 0.5,
                  seed: int = 0, in_process: bool = False,
                  progress: Callable[[int], None] | None = None) -> None:  # fmt: skip
    """Move the arm at an address about its home, through the supervisor, and write what it did.

    Args:
        duration: [s]; amplitude: [rad] at most, of every joint.
        progress: called with how many more servo periods are over.

    Raises:
        LimitViolatedError: the supervisor stopped the motion; a smaller amplitude leads through less room.
    """
    if not (duration >= 4.0 * FADE and amplitude > 0.0):
        raise UsageError(f"an exciting motion takes at least {4.0 * FADE:g} s and an amplitude above 0 rad, "
                         f"not {duration:g} s and {amplitude:g} rad")  # fmt: skip
    with Robot(address, in_process) as arm:
        robot = arm.spec
        commands = exciting_motion(robot, duration, amplitude, seed)
        spec = _motion_spec(robot)
        with EpisodeWriter(out, spec, environment("motion", robot=address), {"robot": address, "seed": seed}) as writer:
            arm.move_to(robot.home)
            rows: list[dict[str, Any]] = []
            for command in commands:
                reading, verdict = arm.read(), arm.command(command)
                if arm.fault:
                    raise LimitViolatedError(f"the motion was stopped: {arm.fault}; try a smaller amplitude")
                seen = np.concatenate([reading.joint_pos, reading.joint_vel])
                # as it was let through: that what is sent is a mean of a few periods is part of the arm's latency
                rows.append({"obs": seen, "joint_pos_target": verdict.position, "verdict": int(verdict.code),
                             "t_mono": reading.time, "t_device": reading.device_time})  # fmt: skip
                if progress is not None:
                    progress(1)
            last = arm.read()
            writer.add(_episode(spec, rows, np.concatenate([last.joint_pos, last.joint_vel])))


def exciting_motion(robot: RobotSpec, duration: float, amplitude: float, seed: int) -> np.ndarray:
    """Commands (T, n) [rad], which begin and end at home."""
    dt, home, n = robot.servo_dt, np.array(robot.home), robot.num_joints
    time = np.arange(round(duration / dt)) * dt
    u = Stream(seed, "motion").uniform(np.arange(n), 0, 2 * SINES)
    frequency = FREQUENCIES[0] + (FREQUENCIES[1] - FREQUENCIES[0]) * u[:, :SINES]
    wave = np.sin(2.0 * np.pi * (frequency[:, :, None] * time + u[:, SINES:, None])).sum(axis=1).T  # (T, n)
    fade = np.clip(np.minimum(time, time[-1] - time) / FADE, 0.0, 1.0)
    wave *= (fade * fade * (3.0 - 2.0 * fade))[:, None]
    speed = np.abs(np.diff(wave, axis=0, prepend=0.0)).max(axis=0) / dt
    force = np.abs(np.diff(wave, n=2, axis=0, prepend=np.zeros((2, n)))).max(axis=0) / dt**2
    room = np.minimum(home - robot.position_low, np.array(robot.position_high) - home) - _MARGIN
    by_limits = SHARE * np.minimum(np.array(robot.velocity) / speed, np.array(robot.acceleration) / force)
    size = np.minimum(by_limits, np.minimum(room, amplitude) / np.abs(wave).max(axis=0))
    return home + np.maximum(size, 0.0) * wave


def read_motions(path: str | os.PathLike[str], robot: str = "",
                 episodes: Sequence[str] = ()) -> tuple[RobotSpec, list[Motion]]:  # fmt: skip
    """The arm and the motions of a recording, such as `poise deploy --record` makes; each begins at rest.

    A recording with a row for each control period knows the last command of each: between them, commands are taken from
    a cubic spline through those.

    Args:
        robot: the arm's name, by default the recording's; episodes: names such as demo_0, by default all.

    Raises:
        DatasetError: it was not recorded from an arm.
    """
    with EpisodeFile(path) as file:
        arm = robot_spec(robot or file.spec.robot)
        groups = [g for g, terms in file.spec.observations.items() if any(t.name == "joint_pos" for t in terms)]
        if not groups or not len(file):
            raise DatasetError(f"{path} holds no observed joint_pos; an identification needs a recording of an arm")
        columns = file.spec.slices(groups[0])
        return arm, [_motion(f"{path}, {name}", file[name], arm, file.spec, groups[0], columns)
                     for name in episodes or file.names]  # fmt: skip


def _motion(
    where: str, episode: Episode, robot: RobotSpec, spec: Spec, group: str, columns: dict[str, slice]
) -> Motion:
    for name in ("joint_pos_target", "t_mono"):
        if name not in episode:
            raise DatasetError(f"{where}: {name} is missing; an identification needs a recording of an arm")
    seen = episode["obs"][group].astype(np.float64)
    joint_pos, sent, time = seen[:, columns["joint_pos"]], episode["joint_pos_target"], episode["t_mono"]
    if sent.shape != (len(time), robot.num_joints) or joint_pos.shape != sent.shape:
        raise DatasetError(f"{where}: {robot.name} has {robot.num_joints} joints, the recording's positions have shape "
                           f"{joint_pos.shape} and its commands {sent.shape}")  # fmt: skip
    if len(time) < 10 or not (np.diff(time) > 0).all():
        raise DatasetError(f"{where}: expected at least ten rows whose t_mono increases")
    time = time - time[0]
    if spec.control_dt <= 1.5 * robot.servo_dt:
        return Motion(time, joint_pos, time, sent)
    # what the arm stood under before: it may sag below that, so the measured pose does not tell
    first = joint_pos[0] + seen[0, columns["target_error"]] if "target_error" in columns else sent[0]
    knots = np.concatenate([[-robot.servo_dt], time + spec.control_dt - robot.servo_dt])
    ticks = np.arange(0.0, knots[-1], robot.servo_dt)
    return Motion(
        time, joint_pos, ticks, CubicSpline(knots, np.vstack([first, sent]), bc_type=("clamped", "not-a-knot"))(ticks)
    )


def _motion_spec(robot: RobotSpec) -> Spec:
    """Joint positions and speeds seen, joint positions commanded, at every servo period."""
    n = robot.num_joints
    home = np.array(robot.home)
    reach = np.maximum(home - robot.position_low, np.array(robot.position_high) - home)
    lead = tuple((2.0 * reach).tolist())  # never in the way
    action = ActionTerm("arm", "joint_pos", robot.joints, robot.position_low, robot.position_high,
                        tuple(reach.tolist()), "home", robot.home, lead, robot.velocity, robot.acceleration,
                        unit="rad")  # fmt: skip
    seen = (ObsTerm("joint_pos", (n,), "robot", "rad"), ObsTerm("joint_vel", (n,), "robot", "rad/s"))
    return Spec({"state": seen}, (action,), robot.servo_dt, robot=robot.name)


def _episode(spec: Spec, rows: list[dict[str, Any]], last: np.ndarray) -> dict[str, Any]:
    """Rows as the layout of datasets/episodes.py has them; nothing is rewarded."""
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    seen, term, count = columns.pop("obs"), spec.actions[0], len(rows)
    actions = (columns["joint_pos_target"] - np.array(term.home)) / np.array(term.scale)
    ends = np.arange(count) == count - 1
    return {**columns, "obs": {"state": seen}, "next_obs": {"state": np.vstack([seen[1:], last])},
            "actions": np.clip(actions, -1.0, 1.0), "rewards": np.zeros(count), "terminations": np.zeros(count),
            "truncations": ends}  # fmt: skip
