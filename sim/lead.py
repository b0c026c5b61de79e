"""Lead: what an arm that feeds its command's velocity forward adds to its command.

A position servo of MuJoCo damps against standstill, kp (ctrl - q) - kd dq, and so follows a moving command late by
kd / kp. An arm whose controller knows the command's velocity damps against that,

    kp (q_c - q) + kd (dq_c - dq) = kp (ctrl - q) - kd dq     with ctrl = q_c + lead dq_c, lead = kd / kp

and is not late. Its lead is that of the model as it is: where gains are randomized, what is fed forward no longer fits
them, as on an arm whose controller does not know its joints exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..robots import RobotSpec

if TYPE_CHECKING:
    import mujoco


def lead(robot: RobotSpec | None, model: mujoco.MjModel, servos: np.ndarray) -> np.ndarray:
    """Seconds (n,) for these actuators of an arm; zeros where it feeds nothing forward, or there is none."""
    if robot is None or not robot.feeds_forward:
        return np.zeros(len(servos))
    return model.actuator_biasprm[servos, 2] / model.actuator_biasprm[servos, 1]  # kd / kp, both negative there
