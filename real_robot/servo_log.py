"""What the control process says of every servo period, over a ring: readings, what was asked and sent, the verdict.

Whoever wants to know reads along: the recorder, a live view. Legend: n joints.

    t_mono         when the reading came, on the driver's clock [s]: the machine's monotonic one, or simulated
    t_device       the device's own stamp [s]
    t_host         the machine's monotonic clock when this was written [s]
    joint_pos, joint_vel, joint_effort   (n,) measured [rad, rad/s, N m]; NaN where the device does not tell
    gripper_pos    measured [the gripper's unit]; NaN where there is none
    asked          (n,) the command that was judged [rad]; NaN while nobody asks and the arm brakes or holds
    sent           (n,) the command that was sent [rad]
    gripper_asked  the gripper's command that was judged with it; NaN where nobody asks
    gripper_sent   and that was sent; NaN where it was left alone
    verdict, rule  0 PASS, 1 CLIP, 2 REJECT, and the rule that clipped or rejected
    fault          the rule of the stop that is latched here, device_fault the device's own; "" none
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from ..robots import RobotSpec
from .driver import Reading
from .gripper_guard import is_number
from .ring import RingWriter, make_ring

SECONDS, AT_LEAST = 30.0, 16384  # of rows that a ring holds; simulated time may run faster than the wall's


def servo_dtype(joints: int) -> np.dtype:
    """One servo period of an arm with so many joints."""
    vectors = [(name, "<f8", (joints,)) for name in ("joint_pos", "joint_vel", "joint_effort", "asked", "sent")]
    numbers = [
        (name, "<f8") for name in ("t_mono", "t_device", "t_host", "gripper_pos", "gripper_asked", "gripper_sent")
    ]
    return np.dtype([*numbers, *vectors, ("verdict", "u1"), ("rule", "S24"), ("fault", "S24"), ("device_fault", "S48")])


def servo_ring(robot: RobotSpec) -> int:
    """Descriptor of a new ring for this arm."""
    return make_ring(servo_dtype(robot.num_joints), max(round(SECONDS / robot.servo_dt), AT_LEAST))


class ServoLog:
    """The control process's end of it. A write costs microseconds."""

    def __init__(self, ring: RingWriter):
        self.ring = ring
        self._unknown = np.full(ring.dtype["sent"].shape, np.nan)

    def write(self, reading: Reading, asked: Any, sent: np.ndarray, asked_gripper: Any, gripper: float | None,
              verdict: int, rule: str, fault: str) -> None:  # fmt: skip
        """One servo period. `asked` is whatever somebody asked for; what is no joint positions counts as unknown."""
        fits = isinstance(asked, np.ndarray) and asked.shape == sent.shape and asked.dtype.kind in "fiu"
        effort = reading.joint_effort
        self.ring.write(t_mono=reading.time, t_device=reading.device_time, t_host=time.monotonic(),
                        joint_pos=reading.joint_pos, joint_vel=reading.joint_vel,
                        joint_effort=self._unknown if effort is None else effort, gripper_pos=reading.gripper_pos,
                        gripper_asked=float(asked_gripper) if is_number(asked_gripper) else math.nan,
                        gripper_sent=math.nan if gripper is None else gripper, asked=asked if fits else self._unknown,
                        sent=sent, verdict=verdict, rule=rule.encode(), fault=fault.encode(),
                        device_fault=reading.fault.encode())  # fmt: skip
