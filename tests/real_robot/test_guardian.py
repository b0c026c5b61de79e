"""What stops an arm of servos when the process that commands it dies or hangs: guardian, and Dynamixel's bus watchdog."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from poise.errors import NotConnectedError
from poise.real_robot.drivers import driver_at
from poise.real_robot.emulators.launch import start_emulator
from poise.real_robot.guardian import Page, watch

MOVE = """
import sys, numpy as np
from poise.real_robot.drivers import driver_at
driver = driver_at(sys.argv[1])
driver.open()
goal = driver.read().joint_pos_target.copy()
speed = 0.0
for k in range(1000):
    speed = min(speed + 0.05, 0.6)  # [rad/s] by 5 rad/s^2
    goal[0] += speed * driver.robot.servo_dt
    driver.write(goal)
    if k == 30:
        print("moving", flush=True)
"""


def moving(address):
    """A process that moves the first joint."""
    process = subprocess.Popen([sys.executable, "-P", "-c", MOVE, address], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "moving\n"
    process.stdout.close()
    return process


def stands(side, within=3.0):
    """Wait for the arm to stand; where."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        before = side.truth()["joint_pos"]
        time.sleep(0.15)
        if np.abs(side.truth()["joint_pos"] - before).max() < 1e-3:
            return before
    raise AssertionError("the arm still moves")


@pytest.mark.parametrize("name", ["so101", "vx300s"])
@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_killed_or_stopped_leaves_an_arm_that_brakes_within_limits(name, way):
    with start_emulator(name) as device:
        side = device.side_line
        process = moving(device.address)
        os.kill(process.pid, way)
        at = side.truth()["joint_pos"][0]
        rest = stands(side)[0]
        # it stops from 0.6 rad/s within the servo's lag, a ramp of 0.06 s or the watchdog's 0.2 s and that
        assert 0.0 <= rest - at < 0.6 * (0.2 + 0.06 + 0.3)
        counters = side.ask("counters")
        assert counters["out_of_limit"] == 0, counters["told"]
        process.kill()
        process.wait()
        driver = driver_at(device.address)
        driver.open()  # and the arm can be used again
        assert np.abs(driver.read().joint_pos_target[0] - rest) < 0.05
        driver.close()
        assert side.counters()["out_of_limit"] == 0


@pytest.mark.parametrize("name", ["so101", "vx300s"])
def test_a_driver_that_was_silent_while_the_arm_moved_is_told_and_goes_on_after_clear_fault(name):
    with start_emulator(name) as device:
        driver = driver_at(device.address)
        driver.open()
        goal = driver.read().joint_pos_target.copy()
        for k in range(30):
            goal[0] += 0.0001 * k
            driver.write(goal)
        time.sleep(0.6)
        if name == "so101":
            with pytest.raises(NotConnectedError, match=r"guardian has stopped it; clear_fault\(\)"):
                driver.write(goal)
        else:
            assert driver.read().fault == "bus watchdog: the line was silent"
        driver.clear_fault()
        reading = driver.read()
        assert reading.fault == ""
        driver.write(reading.joint_pos_target)
        assert device.side_line.counters()["out_of_limit"] == 0
        driver.close()


def test_an_arm_that_stands_needs_no_guardian(tmp_path):
    memory = os.memfd_create("page")
    os.ftruncate(memory, 4096)
    page, stops = Page(memory), []
    assert page.read() is None
    page.write(np.array([2000.0, 100.0]), np.zeros(2), np.zeros(2))
    stamp, rows = page.read()
    assert rows.tolist() == [[2000.0, 100.0], [0.0, 0.0], [0.0, 0.0]] and abs(stamp - time.monotonic()) < 1.0
    ours, theirs = os.pipe()
    time.sleep(0.05)
    os.write(theirs, b".")  # an end in order
    watch(page, ours, 0.01, stops.append)
    assert stops == [] and not page.taken
    page.write(np.zeros(2), np.array([1.0, 0.0]), np.zeros(2))
    os.close(theirs)  # death
    watch(page, ours, 10.0, stops.append)
    assert stops == [page] and not page.taken
    os.close(ours)


def test_who_was_silent_while_the_arm_moved_finds_it_taken():
    memory = os.memfd_create("page")
    os.ftruncate(memory, 4096)
    page = Page(memory)
    page.write(np.zeros(2), np.array([1.0, 0.0]), np.zeros(2))
    ours, theirs = os.pipe()
    thread = threading.Thread(target=watch, args=(page, ours, 0.05, lambda page: None))
    thread.start()
    time.sleep(0.2)
    assert page.taken
    os.write(theirs, b".")
    thread.join()
    os.close(ours)
    os.close(theirs)
    os.close(memory)


def test_the_guardian_ends_with_the_driver():
    with start_emulator("so101") as device:
        driver = driver_at(device.address)
        driver.open()
        process = driver._guardian._process
        assert process.poll() is None
        driver.close()
        assert process.poll() == 0
