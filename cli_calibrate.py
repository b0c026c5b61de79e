"""`poise robot calibrate`: where the servos of an arm stand, shown by hand."""

from __future__ import annotations

import argparse
import select
import sys
from typing import Any

from .errors import UsageError

CALIBRATE_EXAMPLES = """\
examples:
  poise robot calibrate so101:/dev/ttyACM0 --out so101.json
  poise robot calibrate so101:/dev/ttyACM1 --out leader.json --leader     the arm that you lead with

The arm goes limp: hold it. You put every joint at the middle of its range and press Enter, then move every joint from
one end to the other, gripper included, and press Enter again. What does not fit the arm is refused, joint by joint."""


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    """The options of `poise robot calibrate`."""
    parser.add_argument("robot", metavar="ROBOT", help="an arm of servos, such as so101:/dev/ttyACM0")
    parser.add_argument("--out", required=True, metavar="FILE.json", help="where the calibration goes")
    parser.add_argument("--leader", action="store_true", help="its gripper is a handle with a range of its own")


def calibrate_command(options) -> dict[str, Any]:
    """Lead a person through it, and print what was found."""
    from .real_robot.calibrate import calibrate

    calibration = calibrate(options.robot, _show_middle, _moving, _show, options.leader)
    calibration.save(options.out)
    print(f"\n{'servo':<16}{'id':>4}{'low':>7}{'zero':>7}{'high':>7}{'from [rad]':>12}{'to':>8}")
    for name, joint in calibration.servos.items():
        ends = sorted((joint.angle(joint.low), joint.angle(joint.high)))
        print(f"{name:<16}{joint.id:>4}{joint.low:>7}{joint.zero:>7}{joint.high:>7}{ends[0]:>12.3f}{ends[1]:>8.3f}")
    print(f"calibration: {options.out}")
    return {"robot": options.robot, "calibration": options.out}


def _show_middle() -> None:
    print("Torque is off. Put every joint at the middle of its range, then press Enter.")
    if not sys.stdin.readline():
        raise UsageError("poise robot calibrate asks questions: run it in a terminal")
    print("Now move every joint from end to end, the gripper too. Press Enter when done.")


def _moving() -> bool:
    """Whether Enter has not been pressed yet."""
    if not select.select([sys.stdin], [], [], 0.05)[0]:
        return True
    sys.stdin.readline()
    return False


def _show(rows: dict[str, tuple[int, int, int]]) -> None:
    """One line that is written over, on a terminal."""
    if sys.stdout.isatty():
        text = "  ".join(f"{name} {low}–{high}" for name, (low, _, high) in rows.items())
        print(f"\r{text}", end="", flush=True)
