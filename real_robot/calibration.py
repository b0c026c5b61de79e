"""Between ticks of servos and angles of joints: a small file per arm, made by moving each joint through its range.

    angle = sign (ticks - zero) 2 pi / 4096                                                                  (1)

A file, as `poise robot calibrate` writes it (JSON; low and high are the ticks at the ends of the joint's range):

    {"format": "poise servo calibration 1", "robot": "so101",
     "servos": {"shoulder_pan": {"id": 1, "sign": 1, "zero": 2048, "low": 800, "high": 3300}, …, "gripper": {…}}}

Legend: m servos: the arm's joints in the RobotSpec's order, then the gripper.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RobotError, UsageError
from ..robots import RobotSpec
from .servo_bus import TICKS

FORMAT = "poise servo calibration 1"
RAD = 2.0 * math.pi / TICKS  # [rad] a tick
SHORT, LONG = 0.1, 0.5  # [rad] that a measured range may be shorter, or longer, than the published one
ASKEW = 0.35  # [rad] that the middle pose shown by hand may differ from the middle of a measured range


@dataclass(frozen=True)
class Joint:
    """One servo's place on the arm."""

    id: int
    sign: int  # 1: ticks grow with the joint's angle; -1: they fall
    zero: int  # [ticks] at the angle zero
    low: int  # [ticks] the range's lower end
    high: int  # [ticks] and its upper end

    def angle(self, ticks: float) -> float:
        """[rad], by (1)."""
        return self.sign * (ticks - self.zero) * RAD


@dataclass(frozen=True)
class Calibration:
    """One arm's servos, m of them."""

    robot: str
    servos: Mapping[str, Joint]

    @property
    def zeros(self) -> np.ndarray:
        """(m,) [ticks]"""
        return np.array([joint.zero for joint in self.servos.values()], np.float64)

    @property
    def signs(self) -> np.ndarray:
        """(m,)"""
        return np.array([joint.sign for joint in self.servos.values()], np.float64)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file."""
        servos = {name: asdict(joint) for name, joint in self.servos.items()}
        document = {"format": FORMAT, "robot": self.robot, "servos": servos}
        Path(path).write_text(json.dumps(document, indent=2) + "\n")


def nominal(ids: Mapping[str, int], robot: RobotSpec, gripper: tuple[float, float], zeros: Mapping[str, int],
            ) -> Calibration:  # fmt: skip
    """The calibration of an arm whose joints stand at the tick `zeros` (2048 where none is named) when straight.

    gripper: the angles [rad] of its servo at the ends of its range.
    """
    ranges = [*zip(robot.position_low, robot.position_high, strict=True), (min(gripper), max(gripper))]
    servos = {}
    for (name, servo), (low, high) in zip(ids.items(), ranges, strict=True):
        zero = zeros.get(name, TICKS // 2)
        ends = (max(zero + math.floor(low / RAD), 0), min(zero + math.ceil(high / RAD), TICKS - 1))
        servos[name] = Joint(servo, 1, zero, *ends)
    return Calibration(robot.name, servos)


def load_calibration(path: str, robot: RobotSpec, gripper: tuple[float, float] | None,
                     ids: Mapping[str, int]) -> Calibration:  # fmt: skip
    """The calibration in a file, checked against the arm; with gripper None its gripper may have any range.

    Raises:
        UsageError: no such file, or it is no calibration.
        RobotError: it does not fit the arm, with every reason.
    """
    try:
        document = json.loads(Path(path).read_text())
    except OSError as error:
        raise UsageError(f"calibration {path}: {error.strerror}; make one: poise robot calibrate") from None
    except ValueError:
        raise UsageError(f"calibration {path} is not JSON; make one: poise robot calibrate") from None
    calibration = _parsed(document, path)
    refuse_misfit(calibration, robot, gripper, ids, f"calibration {path}")
    return calibration


def refuse_misfit(calibration: Calibration, robot: RobotSpec, gripper: tuple[float, float] | None,
                  ids: Mapping[str, int], what: str) -> None:  # fmt: skip
    """Raise RobotError with every reason why a calibration does not fit the arm."""
    lines = []
    if calibration.robot != robot.name:
        lines.append(f"it is for {calibration.robot!r}, this is {robot.name!r}")
    elif tuple(calibration.servos) != tuple(ids):
        lines.append(f"it has {', '.join(calibration.servos)}; expected, in this order, {', '.join(ids)}")
    else:
        ranges = [*zip(robot.position_low, robot.position_high, strict=True), gripper and sorted(gripper)]
        for (name, joint), published in zip(calibration.servos.items(), ranges, strict=True):
            lines += [f"{name}: {reason}" for reason in _misfits(joint, published)]
        numbers = [joint.id for joint in calibration.servos.values()]
        if len(set(numbers)) != len(numbers):
            lines.append(f"ids {numbers} are not all different")
    if lines:
        raise RobotError(f"{what} does not fit {robot.name}:\n" + "\n".join(f"  - {line}" for line in lines))


def fit(robot: RobotSpec, gripper: tuple[float, float], ids: Mapping[str, int], middle: Sequence[int],
        low: Sequence[int], high: Sequence[int], turning: Sequence[str] = (),
        signs: Mapping[str, int] | None = None, is_leader: bool = False) -> Calibration:  # fmt: skip
    """The calibration from what was seen while each joint was moved through its range.

    Args:
        middle: (m,) ticks at the pose that was shown first, every joint at the middle of its range.
        low, high: (m,) least and greatest ticks that were seen.
        turning: joints without stops: their middle is where they were shown.
        signs: of servos whose ticks fall with the angle, -1.
        is_leader: the gripper is a handle with a range of its own.

    Raises:
        RobotError: it does not fit the arm, with every reason.
    """
    ranges = [*zip(robot.position_low, robot.position_high, strict=True), (min(gripper), max(gripper))]
    servos, askew = {}, []
    for i, ((name, servo), (start, end)) in enumerate(zip(ids.items(), ranges, strict=True)):
        centre = middle[i] if name in turning else round(0.5 * (low[i] + high[i]))
        sign = (signs or {}).get(name, 1)
        servos[name] = Joint(servo, sign, round(centre - sign * 0.5 * (start + end) / RAD), low[i], high[i])
        if abs(centre - middle[i]) * RAD > ASKEW and name != "gripper":
            askew.append(f"{name}: the middle of its range is {abs(centre - middle[i]) * RAD:.2f} rad from where "
                         "the arm was shown first")  # fmt: skip
    if askew:
        raise RobotError("what was seen does not fit:\n" + "\n".join(f"  - {line}" for line in askew))
    result = Calibration(robot.name, servos)
    refuse_misfit(result, robot, None if is_leader else gripper, ids, "what was seen")
    return result


def _misfits(joint: Joint, published: Sequence[float] | None) -> list[str]:
    if joint.sign not in (-1, 1):
        return [f"sign {joint.sign} is neither 1 nor -1"]
    if joint.low == joint.high:
        return [f"it stood at {joint.low} ticks all the time; move it from one end to the other"]
    if not (0 <= joint.low < joint.high < TICKS and 0 <= joint.id <= 252):
        return [f"id {joint.id} or range {joint.low} to {joint.high}: expected 0 to 252, 0 <= low < high < {TICKS}"]
    if published is None:
        return []
    reasons = []
    ends = sorted((joint.angle(joint.low), joint.angle(joint.high)))
    for end, here, there, short in (
        ("lower", *_pair(ends, published, 0), 1),
        ("upper", *_pair(ends, published, 1), -1),
    ):
        missing = short * (here - there)  # positive: the joint does not get there
        if missing > SHORT:
            reasons.append(f"its {end} end is at {here:.3f} rad, {missing:.2f} rad short of the published {there:.3f}; "
                           "move it through its whole range")  # fmt: skip
        elif missing < -LONG:
            reasons.append(f"its {end} end is at {here:.3f} rad, {-missing:.2f} rad beyond the published {there:.3f}; "
                           "is the horn one tooth off, or is this another joint's servo?")  # fmt: skip
    return reasons


def _pair(ends: Sequence[float], published: Sequence[float], i: int) -> tuple[float, float]:
    return ends[i], published[i]


def _parsed(document: Any, path: str) -> Calibration:
    names = [field.name for field in fields(Joint)]
    try:
        if document["format"] != FORMAT:
            raise UsageError(f"calibration {path}: format {document['format']!r}, expected {FORMAT!r}")
        servos = {}
        for name, entry in document["servos"].items():
            if sorted(entry) != sorted(names) or not all(type(value) is int for value in entry.values()):
                raise UsageError(
                    f"calibration {path}, {name}: expected whole numbers {', '.join(names)}, found {entry}"
                )
            servos[name] = Joint(**entry)
        return Calibration(str(document["robot"]), servos)
    except (KeyError, TypeError, AttributeError):
        raise UsageError(f"calibration {path}: expected format, robot and servos; see docs/robot-so101.md") from None
