"""Calibrate an arm of servos by hand: torque off, one pose shown, then every joint moved from end to end.

A Feetech servo counts one turn only. Where a joint's range would cross the end of that turn, the servo's own position
offset (register 31) is set first, so that the pose shown reads 2048; it stays set when power goes. Legend: m servos.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import RobotError, UsageError, unknown_name
from .calibration import RAD, Calibration, fit
from .drivers import split_address
from .feetech import FeetechBus
from .roll_call import roll_call
from .servo_arm import ServoArm
from .servo_bus import TICKS, ServoBus
from .servo_driver import ARMS

PATIENCE = 0.02  # [s] for an answer
Show = Callable[[dict[str, tuple[int, int, int]]], None]  # lowest, present and highest ticks by name


def calibrate(address: str, show_middle: Callable[[], None], moving: Callable[[], bool], show: Show = lambda rows: None,
              leader: bool = False) -> Calibration:  # fmt: skip
    """The calibration of the arm at an address; the arm is limp from here on.

    Args:
        show_middle: returns once the arm has been put with every joint at the middle of its range.
        moving: asked after every look at the servos; False ends the moving through the ranges.
        show: told what has been seen.
        leader: the arm that a person leads with: its gripper may have a range of its own.

    Raises:
        UsageError: no arm of servos.
        NotConnectedError: servos are missing or set up for something else.
        RobotError: what was seen does not fit the arm, with every reason.
    """
    family, path, options = split_address(address)
    if family not in ARMS:
        raise unknown_name("arm of servos", family, ARMS)
    arm, bus_class = ARMS[family]
    try:
        bus = bus_class(path, int(options.get("baud", 1_000_000)), PATIENCE)
    except ValueError:
        raise UsageError(f"baud={options['baud']}: expected a whole number") from None
    bus.open()
    try:
        roll_call(bus, arm, arm.nominal())
        relax(bus, arm)
        show_middle()
        middle = _centred(bus, arm)
        low, high = _ranges(bus, arm, middle, moving, show)
    finally:
        bus.close()
    return fit(arm.robot, arm.gripper_angles, arm.ids, middle, low, high, arm.turning, is_leader=leader)


def relax(bus: ServoBus, arm: ServoArm) -> None:
    """Torque off, everywhere: the arm sinks unless somebody holds it."""
    for servo in (*arm.servos.values(), *arm.shadows.values()):
        bus.put(servo.id, "torque", 0)


def positions(bus: ServoBus, arm: ServoArm) -> list[int]:
    """(m,) ticks. Raises NotConnectedError."""
    return [bus.get(servo.id, "position") for servo in arm.servos.values()]


def _centred(bus: ServoBus, arm: ServoArm) -> list[int]:
    """The ticks (m,) of the pose that is shown, once no range around it crosses the end of a servo's turn."""
    closed, opened = arm.gripper_angles
    spans = [*np.subtract(arm.robot.position_high, arm.robot.position_low), abs(opened - closed)]
    middle = positions(bus, arm)
    for i, ((name, servo), span) in enumerate(zip(arm.servos.items(), spans, strict=True)):
        half = 0.5 * span / RAD
        if half <= middle[i] <= TICKS - 1 - half or half > TICKS / 2 - 2:  # nothing helps a joint of a whole turn
            continue
        if not isinstance(bus, FeetechBus):
            raise RobotError(f"{name} (id {servo.id}) reads {middle[i]} ticks in the middle of its range, which then "
                             "crosses the end of its turn; seat its horn so that it reads about 2048")  # fmt: skip
        middle[i] = bus.centre(servo.id, middle[i])
    return middle


def _ranges(bus: ServoBus, arm: ServoArm, middle: list[int], moving: Callable[[], bool], show: Show):
    """Least and greatest ticks (m,) that are seen while somebody moves the joints."""
    low, high = list(middle), list(middle)
    while moving():
        now = [min(max(ticks, 0), TICKS - 1) for ticks in positions(bus, arm)]  # the end of a whole turn
        low, high = (
            [min(a, b) for a, b in zip(low, now, strict=True)],
            [max(a, b) for a, b in zip(high, now, strict=True)],
        )
        show(dict(zip(arm.servos, zip(low, now, high, strict=True), strict=True)))
    return low, high
