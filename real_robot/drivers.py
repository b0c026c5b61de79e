"""From an address to a driver: `FAMILY:DEVICE?option=value&…`, for instance `twin:fr3?latency=0.04&mass=1.1`.

A driver of your own is `py:module:attribute?option=value` (docs/write-a-driver.md). Whatever the family, `lowest=0.01`
says how low commands may bring the tool [m, base frame]: to a table, once somebody has seen that it is there.

A driver's module is imported when its address is opened, so nobody needs another vendor's library.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..address import own_attribute, split_options
from ..errors import UsageError, unknown_name
from ..robots import RobotSpec, robot_spec
from .driver import Driver
from .supervisor import down_to


def _twin(device: str, options: dict[str, str]) -> Driver:
    from .twin import Twin, options_from

    return Twin(robot_spec(device), options_from(options))


def _franka(device: str, options: dict[str, str]) -> Driver:
    from .franka import Franka

    return Franka(device, options)


def _xarm(device: str, options: dict[str, str]) -> Driver:
    from .xarm import XArm

    return XArm(device, options)


def _servos(name: str) -> Callable[[str, dict[str, str]], Driver]:
    def make(path: str, options: dict[str, str]) -> Driver:
        from .servo_driver import servo_driver

        return servo_driver(name, path, options)

    return make


def _ros2(device: str, options: dict[str, str]) -> Driver:
    from .ros2 import Ros2

    return Ros2(device, options)


def _ur(device: str, options: dict[str, str]) -> Driver:
    from .ur import UR, options_from

    return UR(device, options_from(options))


def _own(device: str, options: dict[str, str]) -> Driver:
    """`py:module:attribute`: somebody's own, a function of the options' texts that returns a Driver."""
    return own_attribute(f"py:{device}")(options)


FAMILIES: dict[str, Callable[[str, dict[str, str]], Driver]] = {
    "franka": _franka,
    "py": _own,
    "twin": _twin,
    "so101": _servos("so101"),
    "vx300s": _servos("vx300s"),
    "xarm": _xarm,
    "ros2": _ros2,
    "ur": _ur,
}


def split_address(address: str) -> tuple[str, str, dict[str, str]]:
    """Family, device and options of an address.

    Raises:
        UsageError: no such family, or not of the form.
    """
    head, options = split_options(address)
    family, colon, device = head.partition(":")
    if not (colon and device):
        raise UsageError(f"a robot address looks like twin:fr3?latency=0.04, not {address!r}")
    if family not in FAMILIES:
        raise unknown_name("robot family", family, FAMILIES)
    return family, device, options


def address_robot(address: str) -> RobotSpec:
    """The arm at an address, without opening it; the options are checked all the same."""
    return driver_at(address).robot


def driver_at(address: str) -> Driver:
    """The driver for an address, not yet open."""
    family, device, options = split_address(address)
    text = options.pop("lowest", None)
    driver = FAMILIES[family](device, options)
    if text is not None:
        driver.robot = down_to(driver.robot, _height(text))
    return driver


def _height(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= 2.0:
        raise UsageError(f"lowest={text}: expected a height of the tool in the base frame, within 2 m")
    return value


def with_option(address: str, name: str, value: str) -> str:
    """The address with one more option, which wins over the same one in the address."""
    family, device, options = split_address(address)
    options[name] = value
    return f"{family}:{device}?" + "&".join(f"{k}={v}" for k, v in options.items())
