"""One episode of a policy in the control loop, servo period by servo period.

    Driver.read → observe → policy (thinking.py) → joint target, gripper's goal → shaped → supervisor → Driver.write

Once a control period, at the first servo period in which there is an action for it, that makes a new joint target and,
where the policy has a term for it, a new goal of the gripper; where none comes both stay, which brings the arm to rest.

Legend: n joints, A action.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..action import action_slices, control_value, joint_pos_target, shape_command
from ..observe import add_kinematics, observe
from ..spec import ActionTerm, Spec
from .driver import Reading
from .external import External
from .gripper_guard import gripper_term, is_gripper, share_of
from .states import ArmState
from .supervisor import Code, Verdict
from .thinking import Thinking

if TYPE_CHECKING:
    from .control_loop import ControlLoop

MOST_SILENT = 1.0  # [s] without an action, after which an episode is over
Row = dict[str, Any]


@dataclass(frozen=True)
class Drives:
    """Which numbers of an action move what."""

    arm: ActionTerm
    joints: slice  # of the action
    gripper: ActionTerm | None
    finger: slice  # of the action; empty where nothing moves a gripper

    @classmethod
    def of(cls, spec: Spec) -> Drives:
        """A Spec that match.py has let through: one term for the joints, and at most one for the gripper."""
        where, hand = action_slices(spec), gripper_term(spec)
        arm = next(term for term in spec.actions if not is_gripper(term))
        return cls(arm, where[arm.name], hand, slice(0, 0) if hand is None else where[hand.name])


def run_policy(loop: ControlLoop, thinking: Thinking, goal: Mapping[str, np.ndarray], steps: int,
               external: External | None = None) -> Iterator[Row]:  # fmt: skip
    """Run a policy for that many control steps: one row a step, then the last observation.

    Ends early where a stop is latched or somebody interrupts; the arm comes to a standstill in any case.

    Args:
        goal: what the task provides, by the observation term's name.
        external: what else is told from outside the arm.
    """
    driver, supervisor, spec, dt = loop.driver, loop.supervisor, thinking.spec, loop.robot.servo_dt
    drives = Drives.of(spec)
    term = drives.arm
    max_velocity, max_acceleration = np.array(term.max_velocity), np.array(term.max_acceleration)
    loop.begin(ArmState.RUN_POLICY)
    thinking.begin()
    target, position, velocity = supervisor.position, supervisor.position, supervisor.velocity
    grip: float | None = None  # the gripper's goal; None until the policy has named one
    silent = 0.0  # [s] without an action
    try:
        for _ in range(steps):
            worst = Verdict(Code.PASS, "", "", np.nan, np.nan, position, velocity, supervisor.sent)
            asked, action = np.full(spec.action_dim, np.nan), np.zeros(spec.action_dim)  # nobody has asked yet
            begun, last_target = loop.read(), target
            if why := loop.cameras.trouble(spec.images):
                supervisor.latch("camera", why)
                break
            obs, frames = _observed(loop, spec, begun, target, goal, external)
            thinking.see(obs, begun.time)
            has_acted = False
            for tick in range(round(spec.control_dt / dt)):
                reading = begun if tick == 0 else loop.read()
                if not has_acted and (row := thinking.row(begun.time)) is not None:
                    has_acted, asked = True, row.action
                    action = np.where(np.isfinite(asked), np.clip(asked, -1.0, 1.0), np.nan)  # inf is not "much"
                    target = joint_pos_target(term, action[drives.joints], reading.joint_pos, last_target)
                    if drives.gripper is not None:
                        grip = float(control_value(drives.gripper, action[drives.finger])[0])
                silent = 0.0 if has_acted else silent + dt
                asked_now, verdict = supervisor.position, _refused(loop, thinking.trouble(), silent)
                asked_grip = None if grip is None or supervisor.gripper is None else supervisor.gripper.towards(grip)
                if verdict is None:
                    position, velocity = shape_command(position, velocity, target, max_velocity, max_acceleration, dt)
                    asked_now = position
                    verdict = supervisor.check(position, driver.now(), reading.time, gripper=asked_grip)
                loop.send(reading, asked_now, verdict, asked_grip)
                if verdict.code is not Code.PASS:  # go on from what was sent, not from what was asked
                    position, velocity = verdict.position, verdict.velocity
                if verdict.code > worst.code:
                    worst = verdict
                if supervisor.fault or loop.asked_to_end():
                    break
            loop.trail.passed(supervisor.position)
            code = worst.code if has_acted else Code.REJECT
            yield {
                "obs": {group: x.tolist() for group, x in obs.items() if group not in frames},
                "frames": frames,
                "actions_asked": asked.tolist(),
                "actions": _executed(loop, drives, action, code, begun, last_target).tolist(),
                "joint_pos_target": supervisor.sent.tolist(),
                "gripper_target": None if supervisor.gripper is None else supervisor.gripper.position,
                "verdict": int(worst.code),
                "why": "" if worst.code is Code.PASS else str(worst),
                "t_mono": begun.time,
                "t_device": begun.device_time,
                "state": {name: x.tolist() for name, x in _state(loop, reading).items()},
            }
            if supervisor.fault or loop.ended:
                break
        end = np.where(np.isfinite(target), target, supervisor.position)
        obs, frames = _observed(loop, spec, driver.read(), end, goal, external)
        yield {"last_obs": {g: x.tolist() for g, x in obs.items() if g not in frames}, "frames": frames}
    finally:
        loop.over()


def _refused(loop: ControlLoop, trouble: str, silent: float) -> Verdict | None:
    """The braking command where the policy's process died, hangs, or has had nothing to say for too long."""
    supervisor = loop.supervisor
    if trouble == "died" or silent > MOST_SILENT:
        supervisor.latch("process" if trouble else "policy", trouble or "late", silent, MOST_SILENT)
    return supervisor.refuse("policy") if trouble or supervisor.fault else None


def _observed(loop: ControlLoop, spec: Spec, reading: Reading, target: np.ndarray, goal: Mapping[str, np.ndarray],
              external: External | None) -> tuple[dict[str, Any], dict[str, int]]:  # fmt: skip
    """Observation groups, and the numbers of the frames that are among them."""
    told = {} if external is None else external.readings(loop.driver.truth(), reading, target)
    readings = {
        "joint_pos": reading.joint_pos,
        "joint_vel": reading.joint_vel,
        "target_error": target - reading.joint_pos,
        "gripper_pos": np.array([reading.gripper_pos]),
        **told,
        **goal,
    }
    frames, numbers = loop.cameras.newest() if spec.images else ({}, {})
    return observe(spec, add_kinematics(readings, loop.robot), frames), numbers


def _executed(loop: ControlLoop, drives: Drives, action: np.ndarray, code: Code, begun: Reading,
              last_target: np.ndarray) -> np.ndarray:  # fmt: skip
    """The action (A,) in [-1, 1] that was carried out: where the supervisor stepped in, the one nearest to it."""
    if code is Code.PASS:
        return action
    done, term = action.copy(), drives.arm
    reference = {"measured": begun.joint_pos, "last_target": last_target, "home": np.array(term.home)}
    steps = (loop.supervisor.position - reference[term.reference]) / np.array(term.scale)
    done[drives.joints] = np.clip(steps, -1.0, 1.0)
    if drives.gripper is not None and loop.supervisor.gripper is not None and code is Code.REJECT:
        there = loop.supervisor.gripper.position
        done[drives.finger] = share_of(drives.gripper, there) if np.isfinite(there) else 0.0
    return done


def _state(loop: ControlLoop, reading: Reading) -> dict[str, np.ndarray]:
    """Joint positions and velocities (n,) as they truly are, where the device knows that, else as measured."""
    return loop.driver.truth() or {"joint_pos": reading.joint_pos, "joint_vel": reading.joint_vel}
