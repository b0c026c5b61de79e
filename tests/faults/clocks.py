"""Clocks that jump between a reading and its command."""

from __future__ import annotations

from collections.abc import Callable

from .scene import Fault, Scene


def _jump(seconds: float, periods: int) -> Callable[[Scene], None]:
    """Readings are stamped so many seconds ago, for so many servo periods."""

    def make(scene: Scene) -> None:
        driver, read = scene.loop.driver, scene.loop.driver.read
        driver.read = lambda: (r := read())._replace(time=r.time - seconds)
        try:
            for _ in range(periods):
                scene.robot.command(scene.target())
        finally:
            del driver.read

    return make


def _device_clock(scene: Scene) -> None:
    """The device's own stamps start anew; nobody here goes by them."""
    driver, read = scene.loop.driver, scene.loop.driver.read
    driver.read = lambda: read()._replace(device_time=0.0)
    try:
        scene.stream(0.1)
    finally:
        del driver.read


CLOCKS = [
    Fault("the clock leaps 10 s ahead", ("stale",), _jump(10.0, 12), "clock"),
    Fault("the clock falls 10 s back", ("stale",), _jump(-10.0, 12), "clock"),
    Fault("the clock leaps ahead for four periods", ("",), _jump(10.0, 4), "clock"),
    Fault("readings stay 0.2 s old", ("stale",), _jump(0.2, 12), "clock"),
    Fault("the device's clock starts anew", ("",), _device_clock, "clock"),
]
