"""Driver: one device behind a handful of verbs, opened only inside the control process.

A driver speaks its device's protocol and hides its quirks (degrees, ticks, servo gains): what passes here
is SI units and the joint order of the RobotSpec. It keeps no limits: the supervisor is the only caller of
`write`. Legend: n joints.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np

from ..robots import RobotSpec


class Reading(NamedTuple):
    """What the device said last."""

    time: float  # when it arrived, on the driver's clock `now()` [s]
    device_time: float  # the device's own stamp [s]
    joint_pos: np.ndarray  # (n,) float64, measured [rad]
    joint_vel: np.ndarray  # (n,) float64, measured [rad/s]
    joint_pos_target: np.ndarray  # (n,) float64, the pose that the device is holding or following [rad]
    gripper_pos: float = math.nan  # measured [unit of RobotSpec.gripper]; NaN where there is none
    joint_effort: np.ndarray | None = None  # (n,) float64 [N m], where the device tells
    fault: str = ""  # the device's own latched fault by the device's name for it; "" none


class Driver(Protocol):
    """One arm. `tests/conformance_robot.py: check_driver` says in code what every driver must do.

    The driver's own cycle paces the control loop: `read` or `write` waits for the device's next period.
    A device on simulated time does not wait: each `write` advances its clock by one `servo_dt`.
    """

    robot: RobotSpec
    realtime: bool  # False: time stands still between writes

    def open(self) -> None:
        """Connect, and arm the device's own watchdog where it has one; the arm holds its present pose.

        Raises NotConnectedError.
        """
        ...

    def now(self) -> float:
        """The clock that readings and commands are stamped with [s]: monotonic, or simulated."""
        ...

    def read(self) -> Reading:
        """The newest reading; its arrays belong to the caller. Raises NotConnectedError."""
        ...

    def write(self, joint_pos_target: np.ndarray, gripper_target: float | None = None) -> None:
        """Send the joint positions (n,) [rad] for the next servo period, and where given the gripper's command.

        Raises NotConnectedError.
        """
        ...

    def brake(self) -> None:
        """Come to a standstill by the device's own means and hold; safe at any time, also after a fault."""
        ...

    def clear_fault(self) -> None:
        """Release the device's own latched fault, where it has one."""
        ...

    def truth(self) -> dict[str, np.ndarray]:
        """What only a simulated device knows: joint_pos, joint_vel (n,) and tool_pos (3,) [m, base]. Else empty."""
        ...

    def counters(self) -> dict[str, int]:
        """The device's own counts; `out_of_limit` where it judges commands that arrive. Else empty."""
        ...

    def close(self) -> None:
        """Brake, hold and disconnect; a second call does nothing."""
        ...
