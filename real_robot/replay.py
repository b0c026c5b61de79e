"""Replaying a recording on an arm: to where it began, slowly, then the targets that were sent, at the times they were.

    move_to(first pose, speed) → waypoints (t_mono + control_dt, joint_pos_target) → supervisor → Driver.write

Divergence is the largest difference between the joint positions that were recorded and those that are measured now, at
the same times: model error, a payload, another gain, something in the way. A latched stop ends the replay.

Legend: T recorded steps, R rows of the arm now, n joints.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..action import action_slices, control_value
from ..datasets.episodes import Episode, EpisodeFile
from ..errors import DatasetError, UsageError
from ..robots import RobotSpec
from ..spec import Spec
from .gripper_guard import gripper_term
from .robot import Robot

SPEED = 0.15  # of the arm's limits, on the way to the first pose
PERIOD = 0.02  # [s] between two looks at the arm, about
AHEAD = 0.1  # [s] from the first waypoint's sending to its time
BATCH = 50  # waypoints sent in one go: a long message would hold up the control loop
SETTLE = 0.3  # [s] watched after the last waypoint


@dataclass(frozen=True)
class Motion:
    """What an episode holds of the arm."""

    time: np.ndarray  # (T,) [s] from 0, when joint_pos was measured
    joint_pos: np.ndarray  # (T, n) [rad]
    first: np.ndarray  # (n,) [rad] the command that it began under
    target: np.ndarray  # (T, n) [rad] sent by the end of each step
    gripper: np.ndarray | None  # (T,) its command [unit of RobotSpec.gripper]
    control_dt: float  # [s]


@dataclass(frozen=True)
class Replayed:
    """One episode on the arm, and how far it parted from the recording."""

    episode: str
    steps: int
    divergence: np.ndarray  # (n,) the largest of every joint [rad]
    rms: float  # [rad] over all joints and times
    fault: str  # that ended it; "" none


def replay_on(file: str | os.PathLike[str], robot: Robot, episodes: Sequence[str] | None = None, speed: float = SPEED,
              progress: Callable[[int], None] | None = None) -> list[Replayed]:  # fmt: skip
    """Replay episodes of a recording of such an arm on a connected one, until a stop is latched.

    Raises:
        DatasetError: no such episode, another arm's, or no recording of an arm.
        LimitViolatedError: an episode begins where the arm cannot get to.
        UsageError: speed is no fraction.
    """
    if not 0.0 < speed <= 1.0:
        raise UsageError(f"speed is a fraction of the arm's limits, above 0 and at most 1, not {speed:g}")
    with EpisodeFile(file) as recording:
        if recording.spec.robot != robot.spec.name:
            raise DatasetError(f"{file} is a recording of {recording.spec.robot or 'no arm'!r}, "
                               f"this arm is {robot.spec.name!r}")  # fmt: skip
        if unknown := sorted(set(episodes or ()) - set(recording.names)):
            raise DatasetError(f"{file} has no episode {unknown[0]}; it has {', '.join(recording.names[:10])}")
        motions = {name: _motion(f"{file}, {name}", recording[name], recording.spec, robot.spec)
                   for name in episodes or recording.names}  # fmt: skip
    done: list[Replayed] = []
    for name, motion in motions.items():
        robot.move_to(motion.first, speed)
        done.append(_replayed(name, motion, robot))
        if progress is not None:
            progress(1)
        if done[-1].fault:
            break
    return done


def _replayed(name: str, motion: Motion, robot: Robot) -> Replayed:
    servo_dt, began, sent = robot.spec.servo_dt, None, 0
    times, seen = [], []
    for row in robot.follow(max(1, round(PERIOD / servo_dt)) * servo_dt, "replay"):
        if began is None:
            began = row["now"] + AHEAD
            robot.aim(motion.first, began)
        # far enough ahead that the way between two batches is never at its end
        while sent < len(motion.time) and began + motion.time[sent] < row["now"] + 1.0:
            robot.aim_along([
                (began + motion.time[k] + motion.control_dt, motion.target[k],
                 None if motion.gripper is None else float(motion.gripper[k]))
                for k in range(sent, min(sent + BATCH, len(motion.time)))
            ])  # fmt: skip
            sent = min(sent + BATCH, len(motion.time))
        times.append(row["time"] - began)
        seen.append(row["joint_pos"])
        if row["now"] > began + motion.time[-1] + motion.control_dt + SETTLE:
            break
    at = motion.time[(motion.time >= times[0]) & (motion.time <= times[-1])]
    now = np.stack([np.interp(at, times, column) for column in np.array(seen).T], axis=1)  # (T', n)
    apart = np.abs(now - motion.joint_pos[: len(at)])
    if not len(at):
        apart = np.full((1, robot.spec.num_joints), np.nan)
    return Replayed(name, len(at), apart.max(axis=0), float(np.sqrt(np.mean(apart**2))), robot.fault)


def _motion(where: str, episode: Episode, spec: Spec, robot: RobotSpec) -> Motion:
    groups = [g for g, terms in spec.observations.items() if any(t.name == "joint_pos" for t in terms)]
    for name in ("joint_pos_target", "t_mono"):
        if name not in episode or not groups:
            raise DatasetError(f"{where}: {name if groups else 'an observed joint_pos'} is missing; "
                               "only a recording of an arm can be replayed on one")  # fmt: skip
    columns, seen = spec.slices(groups[0]), episode["obs"][groups[0]].astype(np.float64)
    joint_pos, target = seen[:, columns["joint_pos"]], np.asarray(episode["joint_pos_target"])
    time = np.asarray(episode["t_mono"]) - episode["t_mono"][0]
    if joint_pos.shape != target.shape or target.shape != (len(time), robot.num_joints):
        raise DatasetError(f"{where}: {robot.name} has {robot.num_joints} joints, the recording's positions have shape "
                           f"{joint_pos.shape} and its commands {target.shape}")  # fmt: skip
    if not (np.isfinite(target).all() and np.isfinite(joint_pos).all() and (np.diff(time) > 0.0).all()):
        raise DatasetError(f"{where}: expected finite positions and a t_mono that increases")
    first = joint_pos[0] + (seen[0, columns["target_error"]] if "target_error" in columns else 0.0)
    return Motion(time, joint_pos, first, target, _gripper(episode, spec, robot), spec.control_dt)


def _gripper(episode: Episode, spec: Spec, robot: RobotSpec) -> np.ndarray | None:
    """The gripper's command (T,), where the recording has one and the arm such a gripper."""
    term = gripper_term(spec)
    if term is None or robot.gripper is None or term.joints != (robot.gripper.actuator,):
        return None
    if "gripper_target" in episode:
        return np.asarray(episode["gripper_target"], np.float64)
    share = np.asarray(episode["actions"], np.float64)[:, action_slices(spec)[term.name]]
    return control_value(term, share)[:, 0]
