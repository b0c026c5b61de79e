"""An xArm7 by the vendor's own client, against the emulated control box in a process of its own."""

import socket
import struct
import sys
import time

import numpy as np
import pytest

from conformance_robot import check_driver, check_robot
from emulated_arm import kill_in_motion, opened, swing_shape
from poise.errors import NotConnectedError, RobotError, UsageError
from poise.real_robot.drivers import driver_at, with_option
from poise.real_robot.emulators.launch import start_emulator
from poise.real_robot.robot import Robot
from poise.real_robot.xarm import XArm
from poise.robots import XARM7

HOME, DT = np.array(XARM7.home), XARM7.servo_dt
SWING = swing_shape(60)


@pytest.fixture(scope="module")
def device():
    """On its own clock: nothing here depends on how busy the machine is."""
    with start_emulator("xarm7", host="127.0.7.21", virtual=True) as running:
        yield running


@pytest.fixture(scope="module")
def on_the_wall():
    """On the clock on the wall, for what has to do with lines that are slow or dead."""
    with start_emulator("xarm7", host="127.0.7.22") as running:
        yield running


@pytest.fixture
def driver(device):
    yield from opened(device)


@pytest.fixture
def slow(on_the_wall):
    yield from opened(on_the_wall)


def swing(driver, periods, by=0.1):
    """Move the first joint; the readings."""
    start = driver.read().joint_pos_target
    readings = []
    for k in range(periods):
        driver.write(start + by * SWING[k] * (np.arange(7) == 0))
        readings.append(driver.read())
    return readings


# ---- what every driver and robot does ----------------------------------------------------------


def test_it_does_what_a_driver_and_a_robot_must(device):
    check_driver(lambda: driver_at(device.address))
    check_robot(lambda: Robot(device.address, in_process=True))
    assert device.side_line.counters()["out_of_limit"] == 0


def test_it_follows_on_the_wall_clock_too(slow):
    for _ in range(5):  # where this process was kept waiting in the middle of the motion, the box has stopped the arm
        began = time.monotonic()
        readings = swing(slow, 61)
        if not readings[-1].fault:
            break
        slow.clear_fault()
    assert 0.2 < time.monotonic() - began < 3.0
    assert readings[-1].joint_pos_target[0] - readings[0].joint_pos_target[0] == pytest.approx(0.1, abs=1e-3)
    assert all(r.fault == "" for r in readings)


def test_the_control_process_drives_it(device):
    with Robot(device.address) as robot:
        robot.move_to(HOME + 0.1)
        assert np.abs(robot.truth()["joint_pos"] - HOME - 0.1).max() < 0.02
        robot.move_to(HOME)
        assert robot.status()["counts"]["out_of_limit"] == 0


def test_a_random_walk_through_the_supervisor_keeps_every_limit(device):
    """Steps from nothing to absurd, and what no command is: the box judges what arrives in float32."""
    rng = np.random.default_rng(0)
    with Robot(device.address, in_process=True) as robot:
        before = robot.status()["counts"]["out_of_limit"]
        for k in range(400):
            target = robot.read().joint_pos_target + rng.normal(size=7) * 10.0 ** rng.uniform(-5, 1)
            if k % 50 == 49:
                target[rng.integers(7)] = rng.choice([np.nan, np.inf, -np.inf])
            if robot.command(target).rule == "stopped":
                robot.clear_fault()
        robot.clear_fault()
        robot.move_to(HOME)
        assert robot.status()["counts"]["out_of_limit"] == before, device.side_line.ask("counters")["told"]


def drive(robot, periods):
    """Speed the last joint up to 0.5 rad/s, and keep it there until the robot is stopped; how many periods that took."""
    position, velocity, dt = robot.read().joint_pos_target, 0.0, robot.spec.servo_dt
    for k in range(periods):
        velocity = min(velocity + 2.5 * dt, 0.5)
        position = position + velocity * dt * (np.arange(7) == 6)
        robot.command(position)
        if robot.fault:
            return k
    return periods


@pytest.mark.parametrize(("fault", "told"), [
    ("emergency_stop", "device error 1: The Emergency Stop Button"),
    ("stopped", "device stopped (state 4)"),
])  # fmt: skip
def test_a_robot_latches_what_the_box_tells_stands_and_moves_again_when_a_person_says_so(device, fault, told):
    with Robot(device.address, in_process=True) as robot:
        before = robot.status()["counts"]["out_of_limit"]
        assert drive(robot, 60) == 60
        device.side_line.inject(fault)
        assert drive(robot, 60) == 0, "at once"
        assert told in robot.fault and np.abs(robot.truth()["joint_vel"]).max() < 0.01
        device.side_line.ask("clear")
        robot.clear_fault()
        robot.move_to(HOME)
        assert robot.fault == "" and robot.status()["counts"]["out_of_limit"] == before


# ---- units and the wire ------------------------------------------------------------------------


def request(function, data=b"", host="127.0.7.21"):
    """One request by hand, as the protocol has it; state byte and data of the answer."""
    with socket.create_connection((host, 502), 2.0) as line:
        line.sendall(struct.pack(">HHHB", 7, 2, 1 + len(data), function) + data)
        head = line.recv(8, socket.MSG_WAITALL)
        transaction, protocol, length, answered, state = struct.unpack(">HHHBB", head)
        assert (transaction, protocol, answered) == (7, 2, function)
        return state, line.recv(length - 2, socket.MSG_WAITALL) if length > 2 else b""


def test_angles_travel_in_radians_as_little_endian_floats(driver):
    command = np.array([0.0001, -0.4385, 0.0, 0.9509, 0.0, 1.3894, 0.0])
    driver.write(command)
    state, data = request(42)
    assert state == 0 and data == struct.pack("<7f", *command)
    np.testing.assert_allclose(np.frombuffer(request(42, b"\x01")[1], "<f4"), driver.read().joint_pos, atol=1e-3)
    assert len(request(42, b"\x03")[1]) == 3 * 28
    assert request(99)[0] & 0x08, "no such request"
    assert request(29, b"\0\0")[0] & 0x08, "seven joints and not fewer"


@pytest.mark.parametrize(("port", "size"), [(30001, 145), (30002, 288), (30003, 135)])
def test_reports_have_the_layout_that_the_vendor_s_client_reads(driver, port, size):
    with socket.create_connection(("127.0.7.21", port), 2.0) as line:
        report = line.recv(size, socket.MSG_WAITALL)
    assert struct.unpack(">I", report[:4])[0] == size
    assert report[4] == 1 << 4 | 2  # servo mode, standing
    np.testing.assert_allclose(struct.unpack("<7f", report[7:35]), HOME, atol=0.02)
    x, _, z = struct.unpack("<3f", report[35:47])  # [mm]
    tool = driver.truth()["tool_pos"]
    assert x == pytest.approx(1000 * tool[0], abs=0.1) and z == pytest.approx(1000 * tool[2], abs=0.1)
    if port != 30003:
        assert tuple(report[87:91]) == (255, 255, 0, 0)  # brakes, motors, error, warning


def test_a_reading_holds_velocity_and_effort(driver):
    readings = swing(driver, 61)
    true = driver.truth()
    np.testing.assert_allclose(readings[-1].joint_pos, true["joint_pos"], atol=1e-6)
    np.testing.assert_allclose(readings[-1].joint_vel, true["joint_vel"], atol=1e-5)
    assert 0.3 < max(r.joint_vel[0] for r in readings) < 0.1 * 2 / (60 * DT)  # it lags
    assert readings[-1].joint_effort.shape == (7,) and np.abs(readings[-1].joint_effort).max() > 1.0
    assert np.isnan(readings[-1].gripper_pos)


def test_the_gripper_s_counts_stay_inside(device):
    driver = XArm("127.0.7.21", {"emulator": device.side_line.address, "virtual": "1", "gripper": "1"})
    driver.open()
    held = driver.read().joint_pos_target
    for target in (0.0425, 0.0):
        for _ in range(300):
            driver.write(held, target)
            reading = driver.read()
        assert reading.gripper_pos == pytest.approx(target, abs=2e-4) and reading.fault == ""
    driver.close()


# ---- the box's own faults ----------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "told"), [
    ("emergency_stop", "error 1: The Emergency Stop Button"),
    ("servo_error", "error 13: Servo motor 3 error"),
    ("speed", "error 24: Speed Exceeds Limit"),
    ("planning", "error 25: Planning Error"),
    ("collision", "error 31: Collision Caused Abnormal Current"),
    ("boundary", "error 35: Safety Boundary Limit"),
    ("stopped", "stopped (state 4)"),
    ("paused", "paused (state 3)"),
    ("mode_changed", "not ready after a change of mode (state 5)"),
])  # fmt: skip
def test_a_fault_of_the_box_is_named_stops_the_arm_and_is_released_by_clear_fault(device, driver, fault, told):
    swing(driver, 30)  # at full speed
    device.side_line.inject(fault)
    stopped = driver.read()
    held = stopped.joint_pos_target
    for _ in range(5):
        driver.write(held + 0.01)  # refused, and not followed
        reading = driver.read()
        assert reading.fault.startswith(told) and np.abs(reading.joint_vel).max() < 0.05
    np.testing.assert_array_equal(reading.joint_pos_target, held)
    device.side_line.ask("clear")  # the button is released
    driver.clear_fault()
    assert driver.read().fault == ""
    moved = swing(driver, 61)[-1]
    assert moved.joint_pos_target[0] - held[0] == pytest.approx(0.1) and moved.joint_pos[0] - held[0] > 0.05


def test_a_stop_button_that_stays_pressed_is_not_cleared(device, driver):
    device.side_line.inject("emergency_stop")
    assert "Emergency" in driver.read().fault
    with pytest.raises(RobotError, match=r"still reports error 1: .*clear the fault again"):
        driver.clear_fault()
    device.side_line.ask("clear")
    driver.clear_fault()
    assert driver.read().fault == ""


def test_a_warning_stops_nothing(device, driver):
    device.side_line.inject("warning")
    assert all(r.fault == "" for r in swing(driver, 61))


def test_a_box_that_has_an_error_when_one_comes_tells_it_and_moves_after_clear_fault(device):
    device.side_line.inject("collision")
    driver = driver_at(device.address)
    driver.open()
    assert driver.read().fault.startswith("error 31")
    driver.clear_fault()
    assert driver.read().fault == ""
    driver.close()


def test_a_command_beyond_the_joint_range_or_none_at_all_stops_the_box(device):
    """What the supervisor never sends; the vendor's client passes NaN on."""
    before = device.side_line.counters()["out_of_limit"]
    driver = driver_at(device.address)
    driver.open()
    bad = driver.read().joint_pos_target
    bad[3] = np.nan
    driver.write(bad)
    assert driver.read().fault == "error 23: Joints Angle Exceed Limit"
    assert device.side_line.counters()["out_of_limit"] == before + 1
    driver.clear_fault()
    assert driver.read().fault == ""
    driver.close()


# ---- the line's faults -------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "told", "seconds"), [
    ("half_open", "did not tell", 1.0),
    ("late", "did not tell", 1.0),
    ("reset", "did not tell", 1.0),
    ("report_silent", "no report for", 3.0),
])  # fmt: skip
def test_a_dead_line_is_told_in_time_and_comes_back_by_clear_fault(on_the_wall, slow, fault, told, seconds):
    swing(slow, 10, by=0.0)
    began = time.monotonic()
    on_the_wall.side_line.inject(fault)
    with pytest.raises(NotConnectedError, match=told):
        while time.monotonic() - began < 5.0:
            swing(slow, 10, by=0.0)
    assert time.monotonic() - began < seconds
    with pytest.raises(NotConnectedError, match="clear the fault"):
        slow.read()
    with pytest.raises(NotConnectedError):
        slow.write(HOME)
    on_the_wall.side_line.ask("clear")
    slow.clear_fault()
    assert slow.read().fault == ""
    swing(slow, 10, by=0.0)


@pytest.mark.parametrize("fault", ["drop", "corrupt", "delay", "report_corrupt"])
def test_a_poor_line_is_asked_again_and_no_command_comes_twice(on_the_wall, slow, fault):
    """It goes on, or is told and comes back; the oracle, by the fixture, sees every command once and in order."""
    on_the_wall.side_line.inject(fault)
    try:
        swing(slow, 61, by=0.02)
    except NotConnectedError:
        on_the_wall.side_line.ask("clear")
        slow.clear_fault()
        swing(slow, 61, by=0.02)


def test_a_client_that_is_killed_leaves_an_arm_that_brakes_and_can_be_taken_again(on_the_wall):
    side = on_the_wall.side_line
    before = side.counters()["out_of_limit"]
    kill_in_motion(on_the_wall)
    driver = driver_at(on_the_wall.address)
    driver.open()
    if driver.read().fault:  # the child was kept waiting while the arm moved
        driver.clear_fault()
    swing(driver, 10, by=0.0)
    driver.close()
    assert side.counters()["out_of_limit"] == before


# ---- around it ---------------------------------------------------------------------------------


def test_the_vendor_s_client_is_kept_quiet_and_leaves_no_timeouts_behind(device, capfd):
    driver = driver_at(device.address)
    driver.open()
    time.sleep(0.2)
    device.side_line.inject("servo_error")
    driver.read()
    device.side_line.ask("clear")
    driver.clear_fault()
    driver.close()
    assert capfd.readouterr() == ("", "")
    assert socket.getdefaulttimeout() is None


def test_what_is_missing_or_wrong_is_one_clear_error(monkeypatch, device):
    with pytest.raises(NotConnectedError, match=r"no xArm answers at 127.0.7.99, port 502"):
        XArm("127.0.7.99").open()
    with pytest.raises(NotConnectedError, match="no such host"):
        XArm("nowhere.invalid").open()
    with pytest.raises(UsageError, match="unknown xarm option 'griper'; did you mean gripper"):
        XArm("127.0.7.21", {"griper": "1"})
    with pytest.raises(UsageError, match="expected 0 or 1"):
        XArm("127.0.7.21", {"gripper": "yes"})
    with pytest.raises(UsageError, match="needs emulator=HOST:PORT"):
        driver_at(with_option("xarm:127.0.7.21", "virtual", "1"))
    with pytest.raises(NotConnectedError, match=r"127.0.7.21, port 502: .*in use.*another address"), \
            start_emulator("xarm7", host="127.0.7.21"):  # fmt: skip
        pass
    for name in [name for name in sys.modules if name == "xarm" or name.startswith("xarm.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "xarm", None)
    with pytest.raises(UsageError, match=r"pip install 'poise\[xarm\]'"):
        XArm("127.0.7.21").open()


def test_something_that_accepts_and_never_answers_is_not_waited_for_long(monkeypatch):
    import poise.real_robot.xarm_sdk as sdk

    monkeypatch.setattr(sdk, "CONNECT_WAIT", 0.5)
    with socket.create_server(("127.0.7.23", 502)) as server:
        began = time.monotonic()
        with pytest.raises(NotConnectedError, match="has not said its version"):
            XArm("127.0.7.23").open()
        assert time.monotonic() - began < 2.0
        assert server.getsockname()[1] == 502
