"""What the tests of several vendors' drivers do to an emulated arm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from poise.real_robot.driver import Driver
from poise.real_robot.drivers import driver_at
from poise.real_robot.emulators.launch import Running


def swing_shape(periods: int) -> np.ndarray:
    """From 0 to 1 in so many servo periods, at standstill before and after: (periods + 1,)."""
    u = np.arange(periods + 1) / periods
    return u - np.sin(2.0 * np.pi * u) / (2.0 * np.pi)


def opened(running: Running) -> Iterator[Driver]:
    """A driver without a fault, no command of which may leave the limits: for a fixture to yield from."""
    driver = driver_at(running.address)
    running.side_line.ask("clear")
    driver.open()
    if driver.read().fault:
        driver.clear_fault()
    before = running.side_line.counters()["out_of_limit"]
    yield driver
    running.side_line.ask("clear")
    driver.close()
    assert running.side_line.counters()["out_of_limit"] == before, running.side_line.ask("counters")["told"]


def kill_in_motion(running: Running) -> None:
    """Kill a client while it moves the last of seven joints at 0.8 rad/s; the arm must stand 0.4 s later."""
    script = f"""
import numpy as np
from poise.real_robot.drivers import driver_at
driver = driver_at({running.address!r})
driver.open()
start, position, velocity = driver.read().joint_pos_target, 0.0, 0.0
while True:
    velocity = min(velocity + 2.5 * 0.005, 0.8)
    position += velocity * 0.005
    driver.write(start + position * (np.arange(7) == 6))
    driver.read()
    if velocity == 0.8:
        print("fast", flush=True)
"""
    child = subprocess.Popen([sys.executable, "-P", "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    while child.stdout.readline() != "fast\n":
        assert child.poll() is None
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    time.sleep(0.4)  # 0.8 rad/s at 10 rad/s^2 is 0.08 s
    assert np.abs(running.side_line.truth()["joint_vel"]).max() < 0.05
