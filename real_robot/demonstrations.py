"""Demonstrations: what a person led an arm through, as episodes that `poise fit` learns from.

A step is `control_dt` long. It holds what the arm's own sensors told as it began, and the step of the joint target that
was led during it, as tasks have it (action_spec of sim/tasks/arm_terms.py), so that a policy learned from it plays it
back by the same mapping:

    actions = (target after - target before) / STEP, clipped to [-1, 1];  actions_asked the same, unclipped
    and where there is a gripper, its command scaled to [-1, 1] between the lower and the higher end of its range

Where the supervisor stepped in, the target after is what was sent. The reward is 1 at the end of an episode that was
called a success, else 0. Legend: n joints.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..datasets.episodes import EpisodeWriter, environment
from ..observe import add_kinematics, observe
from ..robots import RobotSpec
from ..sim.tasks.arm_terms import TOOL_ROT, arm_action, arm_obs
from ..spec import ActionTerm, ObsTerm, Spec

STEP, LEAD = 0.1, 0.35  # [rad] of a target in a step, at most; before the measured angle: as in reach/ROBOT


def demonstration_spec(robot: RobotSpec, control_dt: float, gripper: bool) -> Spec:
    """What a demonstration by this arm shows and does."""
    seen, actions = [*arm_obs(robot), TOOL_ROT], [arm_action(robot, STEP, LEAD)]
    if gripper and (hand := robot.gripper) is not None:
        seen.insert(3, ObsTerm("gripper_pos", (1,), "robot", hand.unit))
        low, high = sorted((hand.closed, hand.open))
        actions.append(ActionTerm("gripper", "control", (hand.actuator,), (low,), (high,), unit=hand.unit))
    return Spec({"state": tuple(seen)}, tuple(actions), control_dt, robot=robot.name)


class Demonstrations:
    """Writes episodes to one file, from the rows of `Robot.follow`."""

    def __init__(self, path: str | os.PathLike[str], robot: RobotSpec, address: str, control_dt: float, period: float,
                 gripper: bool = True):  # fmt: skip
        """Raises DatasetError where the file exists."""
        self.robot, self._every = robot, round(control_dt / period)
        self.spec = demonstration_spec(robot, control_dt, gripper and robot.gripper is not None)
        origin = {"robot": address, "source": "teleoperation"}
        self._writer = EpisodeWriter(path, self.spec, environment("teleoperation", robot=address), origin)
        self.open = False  # whether an episode is being recorded
        self._clear()

    @property
    def steps(self) -> int:
        """Of the open episode."""
        return len(self._begun)

    @property
    def episodes(self) -> int:
        """That are in the file."""
        return self._writer.count

    def request(self, what: str) -> None:
        """record: begin an episode; success, failure: end and keep it; discard: forget it."""
        if what == "record" and not self.open:
            self._clear()
            self.open = True
        elif what in ("success", "failure") and self.open:
            self._end(what == "success")
        elif what == "discard":
            self.stop()

    def stop(self) -> None:
        """Forget the open episode: what a latched stop cut off is no demonstration."""
        self.open = False
        self._clear()

    def close(self) -> None:
        self._writer.close()

    def row(self, row: Mapping[str, Any]) -> None:
        """One more row of the arm."""
        if not self.open:
            return
        if self._rows % self._every == 0:
            self._begun.append(dict(row))
            self._worst.append(0)
        self._rows += 1
        self._worst[-1] = max(self._worst[-1], int(row["verdict"]))
        self._ended[len(self._begun) - 1 :] = [dict(row)]

    # ---- an episode --------------------------------------------------------------------------

    def _clear(self) -> None:
        self._rows = 0
        self._begun: list[dict[str, Any]] = []  # the first row of every step
        self._ended: list[dict[str, Any]] = []  # and its last so far
        self._worst: list[int] = []  # verdict of every step

    def _end(self, success: bool) -> None:
        """Write the whole steps but the last, which has no successor."""
        steps = (self._rows - 1) // self._every
        if steps > 0:
            self._writer.add(self._episode(steps, success), ("success" if success else "failure",), success=success)
        self.stop()

    def _episode(self, steps: int, success: bool) -> dict[str, Any]:
        begun, ended = self._begun, self._ended
        seen = np.stack([self._seen(row) for row in begun[: steps + 1]])
        target = np.array([row["target"] for row in begun[: steps + 1]])  # (T + 1, n)
        sent = np.array([row["joint_pos_target"] for row in ended[:steps]])
        verdict = np.array(self._worst[:steps])
        after = np.where(verdict[:, None] > 0, sent, target[1:])
        asked, done = ((to - target[:-1]) / STEP for to in (target[1:], after))
        if len(self.spec.actions) > 1:
            grip = self._gripper(begun[: steps + 1])[1:, None]
            asked, done = np.hstack([asked, grip]), np.hstack([done, grip])
        last = np.arange(steps) == steps - 1
        return {
            "obs": {"state": seen[:-1]}, "next_obs": {"state": seen[1:]},
            "actions": np.clip(done, -1.0, 1.0), "actions_asked": asked, "joint_pos_target": sent, "verdict": verdict,
            "rewards": last * float(success), "terminations": last * success, "truncations": last * (not success),
            "t_mono": [row["time"] for row in begun[:steps]],
            "t_device": [row["device_time"] for row in begun[:steps]],
        }  # fmt: skip

    def _seen(self, row: Mapping[str, Any]) -> np.ndarray:
        joint_pos = np.asarray(row["joint_pos"])
        readings = {"joint_pos": joint_pos, "joint_vel": np.asarray(row["joint_vel"]),
                    "target_error": np.asarray(row["target"]) - joint_pos,
                    "gripper_pos": np.array([row["gripper_pos"]])}  # fmt: skip
        return observe(self.spec, add_kinematics(readings, self.robot))["state"]

    def _gripper(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """The gripper's command (T,) in [-1, 1]; before the first one, where it stands."""
        hand = self.robot.gripper
        assert hand is not None
        low, high = sorted((hand.closed, hand.open))
        told = [row["gripper_pos"] if row["gripper_target"] is None else row["gripper_target"] for row in rows]
        return np.clip(2.0 * (np.array(told) - low) / (high - low) - 1.0, -1.0, 1.0)
