"""The states of an arm, as the control process tells them.

    DISCONNECTED -> HOLD <-> RUN_POLICY, RUN_REPLAY, RUN_TELEOP, RUN_MOVE
         ^           ^             |
         |           |             v
      the device   RECOVERY      STOPPING -> FAULT, ESTOP -> RECOVERY
      went away

DISCONNECTED leads to HOLD through two checks that `open` makes at once or fails: the device answers, and it stands
inside its limits, where it says it stands. In HOLD, commands keep it there. STOPPING brakes, and ends in a latched
FAULT (a rule, the device, a lost process) or ESTOP (somebody said stop); only a person's clear_fault leads out of
these, by way of RECOVERY, in which the arm is led to where it is measured.
"""

from __future__ import annotations

from enum import StrEnum


class ArmState(StrEnum):
    """What the arm is doing."""

    DISCONNECTED = "DISCONNECTED"
    HOLD = "HOLD"
    RUN_POLICY = "RUN_POLICY"
    RUN_REPLAY = "RUN_REPLAY"
    RUN_TELEOP = "RUN_TELEOP"
    RUN_MOVE = "RUN_MOVE"
    STOPPING = "STOPPING"
    FAULT = "FAULT"
    ESTOP = "ESTOP"
    RECOVERY = "RECOVERY"
