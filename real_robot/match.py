"""Whether a policy fits an arm: every difference between its Spec and the robot, found before anything moves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..errors import SpecError
from ..robots import RobotSpec
from ..spec import UNKNOWN, ActionTerm, ObsTerm, Spec, same_lens
from .camera import CameraOptions, small_intrinsics
from .gripper_guard import is_gripper


def readings_of(robot: RobotSpec) -> dict[str, ObsTerm]:
    """The quantities that the control loop of this arm measures or computes, by name."""
    n = robot.num_joints
    terms = [
        ObsTerm("joint_pos", (n,), "robot", "rad"),
        ObsTerm("joint_vel", (n,), "robot", "rad/s"),
        ObsTerm("target_error", (n,), "robot", "rad"),
        ObsTerm("tool_pos", (3,), "kinematics", "m", frame="base"),
        ObsTerm("tool_rot", (6,), "kinematics", "1", frame="base"),
    ]
    if robot.gripper is not None:
        terms.append(ObsTerm("gripper_pos", (1,), "robot", robot.gripper.unit))
    return {term.name: term for term in terms}


def check_match(spec: Spec, robot: RobotSpec, goals: Mapping[str, ObsTerm] | None = None) -> None:
    """Refuse a policy that this arm cannot run.

    Args:
        goals: what is provided from outside the arm, by name: goal and external terms.

    Raises:
        SpecError: with the list of differences.
    """
    if lines := differences(spec, robot, goals):
        raise SpecError(f"this policy does not fit {robot.name}:\n" + "\n".join(f"  - {line}" for line in lines))


def offered(spec: Spec, cameras: Mapping[str, CameraOptions]) -> dict[str, ObsTerm]:
    """The pictures that cameras give, by name, in the size that the policy asks for, with their intrinsics."""
    wanted = {spec.observations[group][0].name: spec.observations[group][0] for group in spec.images}
    return {name: ObsTerm(name, (*wanted[name].shape[:2], 3), "camera", wanted[name].unit, "uint8",
                          intrinsics=small_intrinsics(options, (wanted[name].shape[0], wanted[name].shape[1])))
            for name, options in cameras.items() if name in wanted}  # fmt: skip


def seen_through(spec: Spec, cameras: Mapping[str, CameraOptions]) -> Spec:
    """The Spec of a recording by these cameras: with their intrinsics, where they are known."""
    found, groups = offered(spec, cameras), dict(spec.observations)
    for group in spec.images:
        (term,) = spec.observations[group]
        if term.name in found and found[term.name].intrinsics:
            groups[group] = (replace(term, intrinsics=found[term.name].intrinsics),)
    return replace(spec, observations=groups)


def differences(spec: Spec, robot: RobotSpec, goals: Mapping[str, ObsTerm] | None = None) -> list[str]:
    """Every reason why a policy of this Spec must not run on this arm, one line each; empty where it may."""
    return [
        *_robot_and_timing(spec, robot),
        *_observations(spec, {**readings_of(robot), **(goals or {})}),
        *_actions(spec, robot),
    ]


def _robot_and_timing(spec: Spec, robot: RobotSpec) -> Iterator[str]:
    if spec.robot != robot.name:
        yield f"robot: the policy is for {spec.robot or 'none'!r}, this is {robot.name!r}"
    if spec.notes.get("control_dt") == UNKNOWN:
        yield "control_dt: unknown, since the data does not say how long its steps are; state it in the policy's spec"
    ratio = spec.control_dt / robot.servo_dt
    if not (math.isfinite(ratio) and ratio >= 1.0 - 1e-6 and abs(ratio - round(ratio)) <= 1e-6):
        yield f"control_dt: {spec.control_dt:g} s is no whole multiple of the arm's servo period {robot.servo_dt:g} s"


def _observations(spec: Spec, offered: Mapping[str, ObsTerm]) -> Iterator[str]:
    for group, terms in spec.observations.items():
        for term in terms:
            where = f"observation {group}/{term.name}"
            if (mine := offered.get(term.name)) is None:
                yield f"{where}: not available here; there are {', '.join(sorted(offered))}"
                continue
            for name in ("shape", "source", "unit", "frame", "dtype"):
                wanted, given = getattr(term, name), getattr(mine, name)
                if wanted == UNKNOWN and not (name == "unit" and term.source == "camera"):
                    yield f"{where}: its {name} is unknown; state it in the policy's spec (here it is {given!r})"
                elif wanted != given:
                    yield f"{where}: {name} expected {wanted!r}, here it is {given!r}"
            yield from _lens(where, term, mine)


def _lens(where: str, term: ObsTerm, mine: ObsTerm) -> Iterator[str]:
    """A policy that was shown pictures of one lens sees other distances through another."""
    if not term.intrinsics or term.shape != mine.shape:
        return
    told = ", ".join(f"{x:.4g}" for x in term.intrinsics)
    if not mine.intrinsics:
        yield (f"{where}: its camera had fx, fy, cx, cy = {told} pixels, and of the one here they are not known; "
               "calibrate it, and write ?intrinsics=fx,fy,cx,cy of its whole picture after its address")  # fmt: skip
    elif not same_lens(term.intrinsics, mine.intrinsics):
        here = ", ".join(f"{x:.4g}" for x in mine.intrinsics)
        yield f"{where}: fx, fy, cx, cy expected {told} pixels of the policy's picture, here they are {here}"


def _actions(spec: Spec, robot: RobotSpec) -> Iterator[str]:
    hands = [term for term in spec.actions if is_gripper(term)]
    arms = [term for term in spec.actions if not is_gripper(term)]
    if len(arms) != 1 or len(hands) > 1:
        yield (f"action: expected one term for the joints of {robot.name} and at most one for its gripper, "
               f"found {', '.join(term.name for term in spec.actions) or 'none'}")  # fmt: skip
        return
    yield from _arm_action(arms[0], robot)
    if hands:
        yield from _gripper_action(hands[0], robot)


def _arm_action(term: ActionTerm, robot: RobotSpec) -> Iterator[str]:
    where = f"action {term.name!r}"
    if term.kind not in robot.modes:
        kind = "its kind is unknown" if term.kind == UNKNOWN else f"kind {term.kind!r}"
        yield f"{where}: {kind}, the arm takes {', '.join(robot.modes)}"
        return
    if term.joints != robot.joints:
        yield f"{where}: joints {', '.join(term.joints)}; expected, in this order, {', '.join(robot.joints)}"
        return
    if term.unit != "rad":
        yield f"{where}: unit expected 'rad', found {term.unit!r}"
    yield from _limits(where, term, robot)


def _gripper_action(term: ActionTerm, robot: RobotSpec) -> Iterator[str]:
    """Every arm's gripper has the same convention (gripper_guard.py); a policy's bounds say which one it has."""
    where, hand = f"action {term.name!r}", robot.gripper
    if hand is None:
        yield (f"{where}: the policy moves a gripper, and this {robot.name} has none to command "
               "(a gripper that is mounted may have to be named in its address)")  # fmt: skip
        return
    if term.joints != (hand.actuator,):
        yield f"{where}: moves {', '.join(term.joints) or 'what it does not name'}; expected {hand.actuator}"
    if term.unit != hand.unit:
        yield f"{where}: unit expected {hand.unit!r}, found {term.unit!r}"
    low, high = sorted((hand.closed, hand.open))
    if not low - 1e-9 <= term.low[0] < term.high[0] <= high + 1e-9:
        yield (f"{where}: commands [{term.low[0]:g}, {term.high[0]:g}] are no part of [{low:g}, {high:g}] {hand.unit}: "
               f"this gripper is closed at {hand.closed:g} and open at {hand.open:g}")  # fmt: skip


def _limits(where: str, term: ActionTerm, robot: RobotSpec) -> Iterator[str]:
    """What the policy may ask for, against what the arm allows; comparisons that a NaN fails."""
    for i, joint in enumerate(robot.joints):
        low, high = robot.position_low[i], robot.position_high[i]
        if not low <= term.low[i] < term.high[i] <= high:
            yield f"{where}, {joint}: bounds [{term.low[i]:g}, {term.high[i]:g}] rad leave [{low:g}, {high:g}]"
        if term.reference == "home" and not low <= term.home[i] <= high:
            yield f"{where}, {joint}: home {term.home[i]:g} rad leaves [{low:g}, {high:g}]"
        if not 0 < term.max_velocity[i] <= robot.velocity[i]:
            yield f"{where}, {joint}: max_velocity {term.max_velocity[i]:g} rad/s, the arm allows {robot.velocity[i]:g}"
        if not 0 < term.max_acceleration[i] <= robot.acceleration[i]:
            yield (f"{where}, {joint}: max_acceleration {term.max_acceleration[i]:g} rad/s^2, "
                   f"the arm allows {robot.acceleration[i]:g}")  # fmt: skip
        if not 0 < abs(term.scale[i]) < math.inf:
            yield f"{where}, {joint}: scale {term.scale[i]:g} rad is no finite step"
        if not term.lead[i] > 0:
            yield f"{where}, {joint}: lead {term.lead[i]:g} rad must be positive"
