"""ServoArm: which servos make an arm, and how its gripper's servo turns into what the RobotSpec calls its unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ..errors import UsageError
from ..robots import RobotSpec
from .calibration import Calibration, load_calibration, nominal


@dataclass(frozen=True)
class Servo:
    """One servo as it must be found on the line."""

    id: int
    model: int  # the maker's model number
    torque: float  # [N m] of its joint at full load (Feetech), or for every ampere (Dynamixel)
    drive_mode: int = 0  # Dynamixel: bit 0 turns its direction
    shadow_of: int | None = None  # Dynamixel: the servo that this one follows


@dataclass(frozen=True)
class ServoArm:
    """An arm whose joints and gripper are servos of one line."""

    robot: RobotSpec
    servos: Mapping[str, Servo]  # joints in the RobotSpec's order, then "gripper"
    shadows: Mapping[str, Servo] = field(default_factory=dict)
    zeros: Mapping[str, int] = field(default_factory=dict)  # [ticks] where the nominal calibration has other than 2048
    turning: tuple[str, ...] = ()  # joints without stops
    to_angle: Callable[[float], float] = float  # from the gripper's unit to its servo's angle [rad]
    from_angle: Callable[[float], float] = float  # and back

    @property
    def ids(self) -> dict[str, int]:
        return {name: servo.id for name, servo in self.servos.items()}

    @property
    def gripper_angles(self) -> tuple[float, float]:
        """Of its servo, closed and open [rad]."""
        gripper = self.robot.gripper
        assert gripper is not None
        return self.to_angle(gripper.closed), self.to_angle(gripper.open)

    def nominal(self) -> Calibration:
        """Every joint's zero at 2048 ticks, or where `zeros` says."""
        return nominal(self.ids, self.robot, self.gripper_angles, self.zeros)

    def calibration(self, path: str, is_leader: bool = False) -> Calibration:
        """The calibration in a file, or for the path "nominal" the nominal one. Raises UsageError, RobotError."""
        if path == "nominal":
            return self.nominal()
        if not path:
            raise UsageError(
                f"{self.robot.name} needs a calibration: poise robot calibrate {self.robot.name}:PORT --out FILE, "
                f"then {self.robot.name}:PORT?calibration=FILE (or calibration=nominal, see docs/robot-so101.md)"
            )
        return load_calibration(path, self.robot, None if is_leader else self.gripper_angles, self.ids)


def crank(radius: float, rod: float, closed: float) -> tuple[Callable[[float], float], Callable[[float], float]]:
    """A gripper whose servo turns a horn that pushes its fingers: (from finger travel to angle, and back).

    With the horn's radius r, the rod's length l and the angle a, a finger stands from the middle

        x = r sin a + sqrt(l^2 - r^2 cos^2 a),    cos(pi/2 - a) = (r^2 + x^2 - l^2) / (2 r x)

    closed: x where the fingers meet; travel counts from there [m].
    """

    def to_angle(travel: float) -> float:
        x = travel + closed
        return math.pi / 2 - math.acos((radius**2 + x**2 - rod**2) / (2.0 * radius * x))

    def from_angle(angle: float) -> float:
        return radius * math.sin(angle) + math.sqrt(rod**2 - (radius * math.cos(angle)) ** 2) - closed

    return to_angle, from_angle
