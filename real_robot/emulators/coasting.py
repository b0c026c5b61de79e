"""An emulated device that notices, on a wall clock, that the stream of commands stops while the arm moves.

From the third servo period without a command it brakes under the limits, from where the last one was; a command that
comes yet is followed. After WATCHDOG seconds of silence it gives up, once it stands.
"""

from __future__ import annotations

import numpy as np

from ...robots import RobotSpec
from .arm import ArmOptions
from .emulator import WATCHDOG, Emulator

LATE = 3  # servo periods without a command, after which the device does not count on the next
STILL, SETTLE = 0.005, 100  # [rad/s] that counts as standing, and servo periods for it


class CoastingEmulator(Emulator):
    """What follows a stream of commands with gaps."""

    def __init__(self, robot: RobotSpec, options: ArmOptions, virtual: bool, tick: float = 0.0):
        super().__init__(robot, options, virtual, tick)
        self._since = 0  # servo periods since the last command
        self._coast: list[np.ndarray] = []  # poses still to come while the next command is late

    def obeys(self) -> bool:
        """Whether a command would be followed now."""
        raise NotImplementedError

    def given_up(self) -> None:
        """Called once commands have stayed away and the arm has braked; the oracle starts anew."""

    def come_to_rest(self) -> None:
        """The device's own ramp to standstill; on a virtual clock until the joints stand, too."""
        self.brake()
        for _ in range(SETTLE if self.virtual else 0):
            if np.abs(self.arm.joint_vel).max() < STILL:
                break
            self._advance()

    def follow(self, joint_pos_target: np.ndarray) -> None:
        self._since = 0
        super().follow(joint_pos_target)

    def tick(self) -> None:
        self._since += 1
        if self.virtual or self._since < LATE or not self.oracle.velocity.any() or not self.obeys():
            return
        if self._since == LATE:
            self._coast = list(self.oracle.braking())
        if self._coast:
            self.held = self._coast.pop(0)
        elif self._since * self.dt > WATCHDOG:
            self.oracle.restart(self.held)
            self.given_up()
