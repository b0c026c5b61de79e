"""An FR3 by the vendor's own library, against franka-sim in an environment of its own.

franka-sim keeps the wall clock, and stops as the robot does when answers miss it for 20 ms, which a busy machine may
do to anybody: what only that has ended is tried again. Its verdicts on limits count at every try.
"""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from conformance_robot import check_driver, check_robot
from poise.errors import LimitViolatedError, NotConnectedError, RobotError, UsageError
from poise.real_robot.drivers import driver_at
from poise.real_robot.emulators.launch import start_emulator
from poise.real_robot.robot import Robot
from poise.robots import FR3

HOME = np.array(FR3.home)
SWING = 0.5 * (1.0 - np.cos(np.arange(201) / 50 * np.pi))  # at standstill before 0 and every 50
TRIES = 5


@pytest.fixture(scope="module")
def promptly():
    """This process writes every 5 ms like a control process, beside other tests."""
    usual = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))
    yield
    os.sched_setscheduler(0, *usual)


@pytest.fixture(scope="module")
def device(promptly):
    with start_emulator("fr3", host="127.0.0.31") as running:
        yield running


def unless_late(test):
    """Try again where the machine, and nothing else, has made the robot stop."""

    @functools.wraps(test)
    def run(device, *args, **kwargs):
        for attempt in range(TRIES):
            lost = device.side_line.ask("counters")["lost"]
            try:
                return test(device, *args, **kwargs)
            except (AssertionError, RobotError):
                counters = device.side_line.ask("counters")
                device.side_line.ask("clear")
                if attempt == TRIES - 1 or counters["lost"] == lost:
                    raise
        return None

    return run


class opened:
    """A driver whose robot is recovered, and no command of which may leave the limits."""

    def __init__(self, device, legal=True):
        self.device, self.legal = device, legal

    def __enter__(self):
        self.driver = driver_at(self.device.address)
        self.driver.open()
        self.driver.clear_fault()
        self.before = self.device.side_line.counters()["out_of_limit"]
        return self.driver

    def __exit__(self, kind, *_):
        self.driver.close()
        self.device.side_line.ask("clear")
        if self.legal:
            counters = self.device.side_line.ask("counters")
            assert counters["out_of_limit"] == self.before, counters["told"]


def swing(driver, periods, by=0.1):
    """Move the first joint out and back; the readings."""
    start = driver.read().joint_pos_target
    readings = []
    for k in range(periods):
        driver.write(start + by * SWING[k] * (np.arange(7) == 0))
        readings.append(driver.read())
    return readings


@unless_late
def test_it_does_what_a_driver_must(device):
    check_driver(lambda: driver_at(device.address))


@unless_late
def test_it_does_what_a_robot_must(device):
    check_robot(lambda: Robot(device.address))


@unless_late
def test_it_follows_one_and_a_half_periods_behind_at_a_thousand_commands_a_second(device):
    with opened(device) as driver:
        arrived, began = driver.counters()["arrived"], driver.read().device_time
        readings = swing(driver, 200)
        assert not readings[-1].fault
        device_time = np.array([r.device_time for r in readings])
        assert driver.counters()["arrived"] - arrived == pytest.approx(1e3 * (device_time[-1] - began), rel=0.1)
        assert np.median(np.diff(device_time)) == pytest.approx(0.005, abs=1e-6)
        assert driver._state.success > 0.8, "answers in time, of a hundred"
        assert np.abs(readings[-1].joint_pos - HOME)[0] < 0.2
        assert np.isfinite(readings[-1].joint_effort).all() and readings[-1].gripper_pos == pytest.approx(0.04)


@unless_late
def test_where_commands_stop_coming_the_arm_comes_to_a_standstill(device):
    with opened(device) as driver:
        readings = swing(driver, 30)
        assert np.abs(readings[-1].joint_vel).max() > 0.2
        time.sleep(0.3)
        reading = driver.read()
        assert np.abs(reading.joint_vel).max() < 0.01 and not reading.fault


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        ("joint_reflex", "joint_reflex"),
        ("cartesian_reflex", "cartesian_reflex"),
        ("self_collision_avoidance_violation", "self_collision_avoidance_violation"),
        ("power_limit_violation", "power_limit_violation"),
        ("tau_j_range_violation", "tau_J_range_violation"),
        ("instability_detected", "instability_detected"),
        ("user_stopped", "user_stopped"),
        ("deaf", "communication_constraints_violation"),
    ],
)
@unless_late
def test_a_fault_of_the_robot_has_its_name_until_it_is_cleared(device, fault, name):
    with opened(device) as driver:
        swing(driver, 20)
        device.side_line.inject(fault, 0.2)
        for _ in range(20):
            driver.write(driver.read().joint_pos_target)
        assert driver.read().fault == name
        if fault == "user_stopped":
            with pytest.raises(RobotError, match="still stopped by user_stopped"):
                driver.clear_fault()
        time.sleep(0.2)
        assert driver.read().fault, "it stays latched"
        driver.clear_fault()
        assert not driver.read().fault
        assert not swing(driver, 20)[-1].fault, "it follows again"


PAST_THE_SPLINE = """
import sys, numpy, pylibfranka
robot = pylibfranka.Robot("127.0.0.31", pylibfranka.RealtimeConfig.kIgnore)
robot.automatic_error_recovery()
control = robot.start_joint_position_control(pylibfranka.ControllerMode.JointImpedance)
state, _ = control.readOnce()
held, acceleration = numpy.array(state.q_d), float(sys.argv[1])
ramp = numpy.minimum(numpy.arange(1000) / float(sys.argv[2]), 1.0) * acceleration
path = numpy.cumsum(numpy.cumsum(ramp)) * 1e-6
try:
    for moved in path:
        control.writeOnce(pylibfranka.JointPositions((held + moved * (numpy.arange(7) == 6)).tolist()))
        control.readOnce()
except pylibfranka.ControlException as error:
    print(error)
robot.automatic_error_recovery()
"""


@pytest.mark.parametrize(
    ("acceleration", "milliseconds", "name"),
    [
        (12.0, 10, "joint_motion_generator_velocity_discontinuity"),  # the robot names a limit by the derivative below
        (9.0, 1, "joint_motion_generator_acceleration_discontinuity"),
        (9.0, 10, "joint_motion_generator_velocity_limits_violation"),
    ],
)
@unless_late
def test_what_breaks_a_limit_past_the_spline_stops_the_robot(device, acceleration, milliseconds, name):
    """By the vendor's library alone: the oracle judges acceleration, jerk and velocity."""
    before = device.side_line.counters()["out_of_limit"]
    command = [sys.executable, "-c", PAST_THE_SPLINE, str(acceleration), str(milliseconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert name in done.stdout, done.stdout + done.stderr
    assert device.side_line.counters()["out_of_limit"] == before + 1


@unless_late
def test_a_walk_at_random_through_the_supervisor_ends_in_no_reflex(device):
    told = device.side_line.ask("counters")["told"]
    rng, verdicts, farthest = np.random.default_rng(20261128), [], 0.0
    with Robot(device.address, in_process=True) as robot:
        robot.clear_fault()
        robot.move_to(HOME)
        asked = goal = HOME
        for k in range(800):
            if k % 40 == 0:
                goal = HOME + rng.uniform(-0.6, 0.6, 7)
            verdict = robot.command(asked)
            verdicts.append(int(verdict.code))
            asked = verdict.position + np.clip(goal - verdict.position, -0.03, 0.03)  # faster than the arm may
            farthest = max(farthest, np.abs(verdict.position - HOME).max())
        assert robot.status()["fault"] == "" and not robot.read().fault
        assert verdicts.count(1) > 200 and farthest > 0.3, "the supervisor has had its work"
        robot.move_to(HOME)
        assert np.abs(robot.truth()["joint_pos"] - HOME).max() < 0.01
    assert device.side_line.ask("counters")["told"] == told


@unless_late
def test_the_hand_opens_closes_and_tells_its_width(device):
    with opened(device) as driver:
        held = driver.read().joint_pos_target
        for wanted in (0.01, 0.04, 0.0, 0.03):
            for _ in range(20):
                driver.write(held, wanted)
            assert driver.read().gripper_pos == pytest.approx(wanted, abs=1e-3), "of each finger, not between them"
        assert not driver.read().fault


@unless_late
def test_a_client_that_dies_leaves_the_arm_standing_and_another_one_connects(device):
    with opened(device) as driver:
        swing(driver, 30)
        os.kill(driver._arm._process.pid, signal.SIGKILL)
        with pytest.raises(NotConnectedError, match="has ended; clear the fault"):
            for _ in range(10):
                driver.write(HOME)
        driver.clear_fault()
        assert not swing(driver, 30)[-1].fault


@unless_late
def test_a_loop_that_is_stopped_is_told_and_goes_on(device):
    with opened(device) as driver:
        held, pid = driver.read().joint_pos_target, driver._arm._process.pid
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(NotConnectedError, match=r"fallen silent \(waited 0.2 s\)"):
            driver.write(held)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.05)
        assert driver.read().fault == "communication_constraints_violation"
        driver.clear_fault()
        assert not swing(driver, 10)[-1].fault


def test_a_robot_that_goes_away_is_told_and_found_again():
    with contextlib.closing(driver_at("franka:127.0.0.32")) as driver:
        with start_emulator("fr3", host="127.0.0.32") as device:
            driver.open()
            os.kill(device.process.pid, signal.SIGKILL)
            with pytest.raises(NotConnectedError):
                for _ in range(2000):
                    driver.write(HOME)
            with pytest.raises(NotConnectedError):
                driver.clear_fault()
        with start_emulator("fr3", host="127.0.0.32"):
            driver.open()
            assert np.abs(driver.read().joint_pos - HOME).max() < 0.01


def test_what_is_wrong_with_an_address_or_a_command_is_one_clear_error(device):
    with pytest.raises(UsageError, match="unknown franka option 'grippr'; did you mean gripper"):
        driver_at("franka:127.0.0.31?grippr=1")
    with pytest.raises(UsageError, match="expected 0 or 1"):
        driver_at("franka:127.0.0.31?gripper=yes")
    with pytest.raises(NotConnectedError, match=r"franka:127\.0\.0\.99"):
        driver_at("franka:127.0.0.99").open()
    with opened(device) as driver, pytest.raises(LimitViolatedError, match="7 finite joint positions"):
        driver.write(np.full(7, np.nan))


def test_an_emulator_that_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("POISE_FRANKA_SIM", "/nowhere/python")
    with pytest.raises(NotConnectedError, match="POISE_FRANKA_SIM"), start_emulator("fr3"):
        pass
    monkeypatch.delenv("POISE_FRANKA_SIM")
    with pytest.raises(NotConnectedError, match="wall clock"), start_emulator("fr3", virtual=True):
        pass
