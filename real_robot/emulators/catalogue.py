"""The emulators by name; the module of each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import UsageError, unknown_name
from ...robots import ROBOTS, RobotSpec
from .arm import RANGES, ArmOptions, options_from
from .emulator import Emulator

Maker = Callable[[str, str, ArmOptions, bool], Emulator]  # host, link, options, virtual


def _fr3(host: str, link: str, options: ArmOptions, virtual: bool) -> Emulator:
    from .fr3 import FrankaSim

    return FrankaSim(host, options, virtual)  # type: ignore[return-value]


def _xarm7(host: str, link: str, options: ArmOptions, virtual: bool) -> Emulator:
    from .xarm import XArmEmulator

    return XArmEmulator(host, options, virtual)


def _ur5e(host: str, link: str, options: ArmOptions, virtual: bool) -> Emulator:
    from .ur import URController

    return URController(host, options, virtual)


def _so101(host: str, link: str, options: ArmOptions, virtual: bool) -> Emulator:
    from .feetech import FeetechEmulator

    return FeetechEmulator(link, options, virtual)


def _vx300s(host: str, link: str, options: ArmOptions, virtual: bool) -> Emulator:
    from .dynamixel import DynamixelEmulator

    return DynamixelEmulator(link, options, virtual)


def _ros2(robot: RobotSpec) -> Maker:
    def make(host: str, link: str, options: ArmOptions, virtual: bool) -> Emulator:
        from .ros2 import Ros2Emulator

        return Ros2Emulator(robot, link, options, virtual)

    return make


EMULATORS: dict[str, Maker] = {
    "fr3": _fr3,
    "so101": _so101,
    "ur5e": _ur5e,
    "vx300s": _vx300s,
    "xarm7": _xarm7,
    **{f"ros2:{name}": _ros2(robot) for name, robot in ROBOTS.items()},
}


def make(name: str, host: str, link: str, virtual: bool, settings: Sequence[str]) -> Emulator:
    """The emulator of that name, not yet open.

    Raises:
        UsageError: no such emulator, or a setting that is not NAME=VALUE.
    """
    if name not in EMULATORS:
        raise unknown_name("emulator", name, EMULATORS)
    if wrong := [text for text in settings if "=" not in text]:
        raise UsageError(f"--set {wrong[0]}: expected NAME=VALUE, such as mass=1.1")
    texts = dict(text.split("=", 1) for text in settings)
    return EMULATORS[name](host, link, options_from(texts, ArmOptions, RANGES, "emulator"), virtual)
