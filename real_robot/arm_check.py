"""What to know of an arm before a policy runs on it: whether it stands well, how its loop keeps time, how late it is.

Looking moves nothing: the control process holds the arm, and its servo log tells periods and readings. The delay from a
command to its effect is not typed by hand: a small motion about home is recorded, and of all latencies and gains of the
arm's model the pair that explains it best is found (sim/identify.py). What comes of it is a range to train in.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..robots import RobotSpec
from ..sim.randomization import Randomization, Term
from .drivers import address_robot
from .robot import Robot

MOST_LATENCY = 0.3  # [s] that is looked for
DURATION = 8.0  # [s] of the motion
FASTEST_ORDINARY = 125.0  # [Hz] of a loop without real-time scheduling


@dataclass(frozen=True)
class ArmCheck:
    """What was seen while the arm stood."""

    robot: str
    scheduling: str  # of the control process
    rate: float  # servo periods a second
    wanted: float  # of them
    late: float  # share of periods that took half as long again
    noise: float  # [rad] largest standard deviation of a joint's readings
    away: float  # [rad] largest distance of a joint from the pose that it is to hold
    room: float  # [rad] least distance of a joint from the end of its range
    fault: str
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def check_arm(address: str, seconds: float = 3.0, in_process: bool = False) -> ArmCheck:
    """Hold the arm for so long, and look. Raises NotConnectedError, LimitViolatedError."""
    with Robot(address, in_process) as arm:
        log = arm.servo_log()
        log.read()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if arm.status()["scheduling"] == "simulated time":  # it stands still unless somebody commands
                arm.command(arm.read().joint_pos_target)
            else:
                time.sleep(0.05)
        rows, status = log.read().records, arm.status()
        log.close()
    return _judged(arm.spec, rows, status)


def _judged(robot: RobotSpec, rows: np.ndarray, status: dict[str, Any]) -> ArmCheck:
    wanted = 1.0 / robot.servo_dt
    periods = np.diff(rows["t_mono"]) if len(rows) > 1 else np.zeros(1)
    rate = float(1.0 / periods.mean()) if periods.any() else 0.0
    measured = rows["joint_pos"]
    noise = float(measured.std(axis=0).max())
    away = float(np.abs(measured - rows["sent"]).mean(axis=0).max())
    last = measured[-1]
    room = float(np.minimum(last - robot.position_low, np.array(robot.position_high) - last).min())
    late = float((periods > 1.5 * robot.servo_dt).mean())
    warnings = []
    if status["scheduling"] == "ordinary" and wanted > FASTEST_ORDINARY:
        warnings.append(f"the control process has no real-time scheduling, and this arm wants {wanted:.0f} commands a "
                        "second: on a busy machine it will be late by milliseconds; run as root, or raise "
                        "RLIMIT_RTPRIO")  # fmt: skip
    if late > 0.001:
        warnings.append(f"{100.0 * late:.2f} % of the periods took half as long again")
    if room < 0.05:
        warnings.append(f"a joint stands {room:.3f} rad from the end of its range")
    if away > 0.05:
        warnings.append(f"a joint stands {away:.3f} rad from where it is to be: payload or gains are not the model's")
    return ArmCheck(
        robot.name, status["scheduling"], rate, wanted, late, noise, away, room, status["fault"], tuple(warnings)
    )


def motion_periods(address: str) -> int:
    """Servo periods that the motion of `find_latency` takes."""
    return round(DURATION / address_robot(address).servo_dt)


def find_latency(address: str, duration: float = DURATION, amplitude: float = 0.15, seed: int = 0,
                 in_process: bool = False,
                 progress: Callable[[int], None] | None = None) -> tuple[Term, Any]:  # fmt: skip
    """Move the arm a little about its home, and find its latency: a term to train with, and the whole result.

    Raises:
        LimitViolatedError: the supervisor stopped the motion.
    """
    from ..sim.identify import identify
    from .motion_log import read_motions, record_motion

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "motion.hdf5"
        record_motion(address, os.fspath(path), duration, amplitude, seed, in_process, progress)
        robot, motions = read_motions(path)
    sought = Randomization((
        Term("latency", "action_latency", "", range=(0.0, MOST_LATENCY), operation="set"),
        Term("gain", "actuator_gain", "*", range=(0.3, 3.0), operation="scale", distribution="loguniform", shared=True),
    ))  # fmt: skip
    found = identify(robot, motions, sought, seed=seed)
    latency = next(p for p in found.parameters if p.term.what == "action_latency")
    spread = max(
        latency.interval[1] - latency.estimate, robot.servo_dt
    )  # the loop's own grid is the least that one can be sure of
    kept = (max(0.0, latency.estimate - spread), latency.estimate + spread)
    return Term("latency", "action_latency", "", range=kept, operation="set"), found
