"""A UR5e by `ur-rtde`, against the emulated controller in a process of its own."""

import os
import signal
import socket
import struct
import time

import numpy as np
import pytest

from conformance_robot import check_driver, check_robot
from emulated_arm import opened, swing_shape
from poise.errors import LimitViolatedError, NotConnectedError, RobotError, UsageError
from poise.real_robot.drivers import driver_at
from poise.real_robot.emulators.launch import start_emulator
from poise.real_robot.robot import Robot
from poise.real_robot.supervisor import Supervisor
from poise.real_robot.ur import UR
from poise.real_robot.ur_process import State
from poise.robots import UR5E

HOME, DT = np.array(UR5E.home), UR5E.servo_dt
SWING = swing_shape(150)


@pytest.fixture(scope="module")
def device():
    """On its own clock: nothing here depends on how busy the machine is."""
    with start_emulator("ur5e", host="127.0.0.41", virtual=True) as running:
        yield running


@pytest.fixture(scope="module")
def on_the_wall():
    """On the clock on the wall, for what has to do with lines that are slow or dead."""
    with start_emulator("ur5e", host="127.0.0.42") as running:
        yield running


@pytest.fixture
def driver(device):
    yield from opened(device)


@pytest.fixture
def slow(on_the_wall):
    yield from opened(on_the_wall)


def swing(driver, by=0.1):
    """Move the first joint; the last reading."""
    start = driver.read().joint_pos_target
    for share in SWING:
        driver.write(start + by * share * (np.arange(6) == 0))
    return driver.read()


def test_it_does_what_a_driver_and_a_robot_must(device):
    check_driver(lambda: driver_at(device.address))
    check_robot(lambda: Robot(device.address))
    assert device.side_line.counters()["out_of_limit"] == 0


def test_a_random_walk_through_the_supervisor_keeps_every_limit(device):
    """Steps from nothing to absurd, and what no command is: the controller judges what arrives in its registers."""
    rng = np.random.default_rng(0)
    with Robot(device.address, in_process=True) as robot:
        for k in range(1500):
            target = robot.read().joint_pos_target + rng.normal(size=6) * 10.0 ** rng.uniform(-5, 1)
            if k % 100 == 99:
                target[rng.integers(6)] = rng.choice([np.nan, np.inf, -np.inf])
            if robot.command(target).rule == "stopped":
                robot.clear_fault()
        robot.clear_fault()
        robot.move_to(HOME)
        counts = device.side_line.ask("counters")
    assert counts["out_of_limit"] == 0 and counts["arrived"] > 1500, counts["told"]


def test_it_follows_on_the_wall_clock_and_leaves_no_process_behind(slow):
    process = slow._process
    for _ in range(5):  # where this process was kept waiting in the middle of the motion, the watchdog stops the arm
        last = swing(slow)
        if not last.fault:
            break
        slow.clear_fault()
    for _ in range(100):  # it lags by its lookahead
        slow.write(last.joint_pos_target)
    assert last.fault == "" and slow.truth()["joint_pos"][0] - HOME[0] == pytest.approx(0.1, abs=0.03)
    slow.brake()
    slow.close()
    assert process.poll() is not None


# ---- the wire ----------------------------------------------------------------------------------


def ask(port: int, data: bytes, host: str = "127.0.0.41") -> bytes:
    with socket.create_connection((host, port), 2.0) as line:
        line.sendall(data)
        return line.recv(4096)


def test_the_controller_speaks_rtde_by_the_guide(device):
    """Version 2 is accepted; names get their types, in order; what it does not know is NOT_FOUND."""
    assert ask(30004, struct.pack(">HBH", 5, ord("V"), 2)) == struct.pack(">HBB", 4, ord("V"), 1)
    names = b"timestamp,actual_q,robot_mode,gripper_colour"
    answer = ask(30004, struct.pack(">HBd", 11 + len(names), ord("O"), 125.0) + names)
    assert answer[2:4] == b"O\x01" and answer[4:] == b"DOUBLE,VECTOR6D,INT32,NOT_FOUND"
    with pytest.raises(ConnectionResetError):  # a package of one byte
        ask(30004, b"\x00\x01V")


def test_the_dashboard_says_what_the_controller_is_at(device):
    with socket.create_connection(("127.0.0.41", 29999), 2.0) as line:
        file = line.makefile("rw")
        assert file.readline() == "Connected: Universal Robots Dashboard Server\n"
        for said, answer in (("robotmode", "Robotmode: RUNNING"), ("SafetyStatus", "Safetystatus: NORMAL"),
                             ("is in remote control", "true"), ("sing", "could not understand: 'sing'")):  # fmt: skip
            file.write(said + "\n")
            file.flush()
            assert file.readline().strip() == answer


def test_a_state_survives_its_message():
    state = State(1.5, 2.5, (0.1,) * 6, (0.2,) * 6, (0.3,) * 6, (4.0,) * 6, 7, 1, 2, 1.0)
    assert State.unpack(state.pack()) == state


def test_numbers_that_are_none_never_reach_the_wire(driver, device):
    before = device.side_line.counters()["arrived"]
    for bad in (np.full(6, np.nan), np.where(np.arange(6) == 2, np.inf, HOME), HOME[:5]):
        with pytest.raises(LimitViolatedError, match="expected 6 finite joint positions"):
            driver.write(bad)
    assert device.side_line.counters()["arrived"] == before


def test_efforts_are_the_moments_that_the_controller_tells(driver):
    """At home the shoulder carries the arm by some 30 N m, the base nothing; and the supervisor looks at them."""
    effort = driver.read().joint_effort
    assert effort.shape == (6,) and abs(effort[0]) < 1.0 and 10.0 < abs(effort[1]) < 100.0
    supervisor = Supervisor(driver.robot)
    strained = driver.read()._replace(joint_effort=0.99 * np.array(driver.robot.effort))
    supervisor.position = supervisor._mean.value = strained.joint_pos
    for _ in range(501):
        supervisor.observe(strained)
    assert supervisor.fault and supervisor.fault.rule == "effort"


def test_a_gripper_that_is_not_there_is_not_driven(driver):
    assert np.isnan(driver.read().gripper_pos)
    with pytest.raises(UsageError, match="no gripper"):
        driver.write(HOME, 0.02)


@pytest.mark.parametrize(("address", "message"), [
    ("ur:127.0.0.41?gain=9", "expected a number between 100 and 2000"),
    ("ur:127.0.0.41?lookahead=x", "expected a number between 0.03 and 0.2"),
    ("ur:127.0.0.41?gian=300", "did you mean gain"),
])  # fmt: skip
def test_options_that_make_no_sense_are_refused(address, message):
    with pytest.raises(UsageError, match=message):
        driver_at(address)


def test_nobody_there_is_told_in_a_line():
    with pytest.raises(NotConnectedError, match=r"127\.0\.0\.99"):
        UR("127.0.0.99").open()


# ---- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["protective_stop", "program_stopped", "robot_mode_power_off"])
def test_a_fault_of_the_controller_is_told_by_name_stops_the_arm_and_is_released(device, fault):
    with Robot(device.address) as robot:
        device.side_line.inject(fault)
        robot.read()
        robot.command(HOME)
        status = robot.status()
        assert f"device {fault}" in status["fault"] and status["state"] in ("FAULT", "STOPPING")
        assert np.abs(robot.read().joint_vel).max() < 0.1, "it stood, and has not leapt"
        robot.clear_fault()
        robot.move_to(HOME + 0.05)
        robot.move_to(HOME)
        assert robot.status()["fault"] == "" and robot.status()["counts"]["out_of_limit"] == 0


@pytest.mark.parametrize("fault", ["emergency_stop", "safeguard_stop"])
def test_a_pressed_button_is_not_cleared_from_here_until_it_is_released(driver, device, fault):
    device.side_line.inject(fault)
    driver.write(HOME)
    assert driver.read().fault == fault
    with pytest.raises(RobotError, match="release the button or the gate"):
        driver.clear_fault()
    device.side_line.ask("clear")
    deadline = time.monotonic() + 5.0
    while driver.read().fault == fault and time.monotonic() < deadline:
        time.sleep(0.02)
    driver.clear_fault()
    assert driver.read().fault == ""
    assert swing(driver).fault == ""


@pytest.mark.parametrize("fault", ["half_open", "reset", "corrupt"])
def test_a_lost_line_is_told_and_connected_anew(slow, on_the_wall, fault):
    held = slow.read().joint_pos_target
    on_the_wall.side_line.inject(fault)
    with pytest.raises(NotConnectedError, match="does not answer"):
        for _ in range(2000):
            slow.read()
            slow.write(held)
    on_the_wall.side_line.ask("clear")
    slow.clear_fault()
    assert slow.read().fault == ""


@pytest.mark.parametrize("fault", ["delay", "drop_packets"])
def test_a_bad_line_is_lived_with(slow, on_the_wall, fault):
    on_the_wall.side_line.inject(fault)
    held = slow.read().joint_pos_target
    for _ in range(100):
        slow.write(held)
        slow.read()
    on_the_wall.side_line.ask("clear")


def test_a_client_that_dies_leaves_an_arm_that_the_watchdog_has_stopped(on_the_wall):
    driver = driver_at(on_the_wall.address)
    driver.open()
    start = driver.read().joint_pos_target
    for share in SWING[:75]:  # killed at full speed
        driver.write(start + 0.1 * share * (np.arange(6) == 0))
    os.kill(driver._process.pid, signal.SIGKILL)
    time.sleep(1.0)
    truth = on_the_wall.side_line.truth()
    assert np.abs(truth["joint_vel"]).max() < 0.02
    with pytest.raises(NotConnectedError):
        driver.read()
    driver.clear_fault()
    assert driver.read().fault == ""
    driver.close()
    assert on_the_wall.side_line.counters()["out_of_limit"] == 0
