"""An arm by ros2_control's topics, through rclpy, against an emulated one in a process of its own."""

import contextlib
import os
import sys
import threading
import time

import numpy as np
import pytest

import poise.real_robot.ros2 as ros2
from conformance_robot import check_driver, check_robot
from emulated_arm import kill_in_motion, swing_shape
from poise.errors import NotConnectedError, RobotError, UsageError
from poise.real_robot.drivers import driver_at
from poise.real_robot.emulators.launch import start_emulator
from poise.real_robot.robot import Robot
from poise.real_robot.ros2 import Ros2
from poise.real_robot.ros2_node import RosNode
from poise.robots import FR3

HOME, DT = np.array(FR3.home), FR3.servo_dt
SWING = swing_shape(60)
SPACE = f"/poise_{os.getpid()}"  # of topics: other tests, and other people, may be on this machine


@pytest.fixture(scope="module")
def device():
    with start_emulator("ros2:fr3", link=f"{SPACE}_virtual", virtual=True) as running:
        yield running


@pytest.fixture(scope="module")
def on_the_wall():
    with start_emulator("ros2:fr3", link=f"{SPACE}_wall") as running:
        yield running


@pytest.fixture(scope="module")
def virtual_driver(device):
    yield from opened(device)


@pytest.fixture(scope="module")
def wall_driver(on_the_wall):
    yield from opened(on_the_wall)


@pytest.fixture
def driver(device, virtual_driver):
    yield from judged(device, virtual_driver)


@pytest.fixture
def slow(on_the_wall, wall_driver):
    yield from judged(on_the_wall, wall_driver)


def opened(running):
    """One for many tests, since it takes seconds until nodes have found each other."""
    driver = driver_at(running.address)
    driver.open()
    yield driver
    driver.close()


def judged(running, driver):
    driver._fault = "between tests"  # another client may have moved the arm
    driver.clear_fault()
    before = running.side_line.counters()["out_of_limit"]
    yield driver
    running.side_line.ask("clear")
    driver.clear_fault()
    driver.brake()
    assert running.side_line.counters()["out_of_limit"] == before, running.side_line.ask("counters")["told"]


def swing(driver, periods, by=0.1, joint=0):
    """Move a joint; the readings."""
    start = driver.read().joint_pos_target
    readings = []
    for k in range(periods):
        driver.write(start + by * SWING[k] * (np.arange(7) == joint))
        readings.append(driver.read())
    return readings


def test_it_does_what_a_driver_and_a_robot_must(device):
    check_driver(lambda: driver_at(device.address))
    check_robot(lambda: Robot(device.address, in_process=True))
    assert device.side_line.counters()["out_of_limit"] == 0


def test_it_follows_on_the_wall_clock_too(slow):
    for _ in range(5):  # where this process was kept waiting in the middle of the motion, the arm was stopped
        began = time.monotonic()
        readings = swing(slow, 61)
        if not readings[-1].fault:
            break
        slow.clear_fault()
    assert 0.2 < time.monotonic() - began < 3.0
    assert readings[-1].joint_pos_target[0] - readings[0].joint_pos_target[0] == pytest.approx(0.1, abs=1e-3)
    assert all(r.fault == "" for r in readings) and abs(slow.now() - readings[-1].time) < 0.2


def test_a_reading_is_the_newest_of_those_that_waited(slow):
    ages = []
    for _ in range(5):  # a busy machine may be late with all of them, now and then
        time.sleep(0.1)  # 20 joint states arrive, of which ten wait
        now = float(slow._side.ask("truth")["time"])
        ages.append(now - slow.read().device_time)
    assert min(ages) < 0.012


def test_the_control_process_drives_it(device):
    with Robot(device.address) as robot:
        robot.move_to(HOME + 0.1)
        assert np.abs(robot.truth()["joint_pos"] - HOME - 0.1).max() < 0.02
        robot.move_to(HOME)
        assert robot.status()["counts"]["out_of_limit"] == 0


def test_a_random_walk_through_the_supervisor_keeps_every_limit(device):
    rng = np.random.default_rng(0)
    with Robot(device.address, in_process=True) as robot:
        for k in range(400):
            target = robot.read().joint_pos_target + rng.normal(size=7) * 10.0 ** rng.uniform(-5, 1)
            if k % 50 == 49:
                target[rng.integers(7)] = rng.choice([np.nan, np.inf, -np.inf])
            if robot.command(target).rule == "stopped":
                robot.clear_fault()
        robot.clear_fault()
        robot.move_to(HOME)
        assert robot.status()["counts"]["out_of_limit"] == 0, device.side_line.ask("counters")["told"]


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


@pytest.mark.parametrize(("fault", "told", "within"), [
    ("controller_gone", "device nobody listens to", 20),
    ("deaf", "does not follow commands", 40),
    ("silent", "device", 1),
])  # fmt: skip
def test_a_robot_latches_what_is_wrong_stands_and_moves_again_when_a_person_says_so(
    device, monkeypatch, fault, told, within
):
    monkeypatch.setattr(ros2, "VIRTUAL_WAIT", 0.5)
    with Robot(device.address, in_process=True) as robot:
        before = robot.status()["counts"]["out_of_limit"]
        assert drive(robot, 60) == 60
        device.side_line.inject(fault)
        with contextlib.suppress(NotConnectedError):
            assert drive(robot, 60) <= within
        assert told in robot.status()["fault"]
        device.side_line.ask("clear")
        robot.clear_fault()
        robot.move_to(HOME)
        assert robot.fault == "" and robot.status()["counts"]["out_of_limit"] == before


# ---- what travels ------------------------------------------------------------------------------


@pytest.mark.parametrize("joint", [0, 3, 6])
def test_every_joint_is_found_by_its_name_in_states_and_commands(device, driver, joint):
    """The emulator tells joints by their names' last letters, and takes commands in the reverse order."""
    start = driver.truth()["joint_pos"]
    swing(driver, 61, by=0.08, joint=joint)
    held = driver.read().joint_pos_target
    for _ in range(60):
        driver.write(held)
    moved = driver.truth()["joint_pos"] - start
    assert moved[joint] == pytest.approx(0.08, abs=0.01) and np.abs(np.delete(moved, joint)).max() < 0.01
    reading, true = driver.read(), driver.truth()
    np.testing.assert_allclose(reading.joint_pos, true["joint_pos"], atol=1e-9)
    np.testing.assert_allclose(reading.joint_vel, true["joint_vel"], atol=1e-9)
    assert np.abs(reading.joint_effort).max() > 1.0


def test_the_gripper_has_a_topic_of_its_own(device):
    driver = driver_at(f"{device.address}&gripper=gripper_controller/commands")
    driver.open()
    held = driver.read().joint_pos_target
    for _ in range(300):
        driver.write(held, 0.03)
    assert driver.read().gripper_pos == pytest.approx(0.03, abs=1e-3)
    driver.close()


def test_a_gripper_that_nobody_named_is_not_moved(driver):
    with pytest.raises(UsageError, match="gripper=/gripper_controller/commands"):
        driver.write(driver.read().joint_pos_target, 0.02)


def test_without_the_followed_pose_the_measured_one_is_held(device):
    address = device.address.replace(f"target={SPACE}_virtual/desired_joint_states&", "")
    driver = driver_at(address)
    driver.open()
    reading = driver.read()
    np.testing.assert_array_equal(reading.joint_pos_target, reading.joint_pos)
    driver.close()


def test_velocities_that_are_not_told_are_differences_by_the_stamps(driver):
    keep, message = driver._keeper("other"), driver._node.JointState(name=list(FR3.joints))
    message.position = list(HOME)
    keep(message)
    message.header.stamp.nanosec, message.position = 10_000_000, list(HOME + 0.002)
    keep(message)
    np.testing.assert_allclose(driver._states["other"].joint_vel, 0.2)
    assert driver._states["other"].effort is None


# ---- faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "told"), [
    ("silent", "no joint states of fr3 for"),
    ("slow", "no joint states of fr3 for"),
    ("frozen", "the stamp of the last stays at"),
    ("nan", "or no numbers"),
    ("missing_joint", "the last lack fr3_joint1"),
    ("short", "the last have 8 positions for 9 names"),
])  # fmt: skip
def test_states_that_stay_away_or_say_nothing_are_told_in_time(on_the_wall, slow, fault, told):
    swing(slow, 10, by=0.0)
    began = time.monotonic()
    on_the_wall.side_line.inject(fault)
    with pytest.raises(NotConnectedError, match=told):
        while time.monotonic() - began < 5.0:
            swing(slow, 10, by=0.0)
    assert time.monotonic() - began < 1.5
    with pytest.raises(NotConnectedError, match="clear the fault"):
        slow.write(HOME)
    on_the_wall.side_line.ask("clear")
    slow.clear_fault()
    assert slow.read().fault == ""
    swing(slow, 10, by=0.0)


@pytest.mark.parametrize("fault", ["jumbled", "renamed"])
def test_states_in_any_order_and_of_other_arms_do_no_harm(device, driver, fault):
    device.side_line.inject(fault)
    readings = swing(driver, 61)
    np.testing.assert_allclose(readings[-1].joint_pos, driver.truth()["joint_pos"], atol=1e-9)
    assert all(r.fault == "" for r in readings)


@pytest.mark.parametrize(("fault", "told"), [
    ("controller_gone", "nobody listens to"),
    ("deaf", "does not follow commands"),
])  # fmt: skip
def test_a_controller_that_does_not_follow_is_a_fault_and_is_taken_again_from_its_pose(device, driver, fault, told):
    swing(driver, 30)  # at full speed
    device.side_line.inject(fault)
    start, reading, periods = driver.read().joint_pos_target, driver.read(), 0
    while not reading.fault and periods < 100:
        driver.write(start + np.array([0.02, 0, 0, 0, 0, 0, 0]))
        reading, periods = driver.read(), periods + 1
    assert told in reading.fault and periods < 100
    assert np.abs(reading.joint_vel).max() < 0.2
    arrived = device.side_line.counters()["arrived"]
    for _ in range(5):
        driver.write(start)
    assert device.side_line.counters()["arrived"] == arrived, "nothing is sent to a controller that may come back"
    device.side_line.ask("clear")
    driver.clear_fault()
    held = driver.read().joint_pos_target
    np.testing.assert_allclose(held, driver.truth()["joint_pos"], atol=0.02)
    assert driver.read().fault == ""
    assert swing(driver, 61)[-1].joint_pos_target[0] - held[0] == pytest.approx(0.1)


def test_a_client_that_is_killed_leaves_an_arm_that_brakes_and_can_be_taken_again(on_the_wall):
    side = on_the_wall.side_line
    before = side.counters()["out_of_limit"]
    kill_in_motion(on_the_wall)
    driver = driver_at(on_the_wall.address)
    driver.open()
    swing(driver, 61)
    driver.close()
    assert side.counters()["out_of_limit"] == before


# ---- what is missing or wrong ------------------------------------------------------------------


def test_what_is_missing_or_wrong_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(ros2, "FOUND_WAIT", 0.3)
    with pytest.raises(NotConnectedError, match="nobody publishes joint states on /nobody/joint_states"):
        Ros2("fr3", {"namespace": "/nobody"}).open()
    with pytest.raises(UsageError, match="unknown ros2 option 'namespaces'; did you mean namespace"):
        Ros2("fr3", {"namespaces": "/x"})
    with pytest.raises(UsageError, match="domain is a whole number"):
        Ros2("fr3", {"domain": "left"})
    with pytest.raises(UsageError, match="needs emulator=HOST:PORT"):
        Ros2("fr3", {"virtual": "1"})
    with pytest.raises(UsageError, match="unknown robot 'fr4'"):
        Ros2("fr4")
    monkeypatch.setitem(sys.modules, "rclpy", None)
    with pytest.raises(UsageError, match=r"pip install 'poise\[ros2\]', or source a ROS 2"):
        Ros2("fr3").open()


@pytest.mark.parametrize(("joints", "told"), [
    (None, "does not tell its parameter `joints`"),
    (["left", "right"], "commands left, right; expected those of fr3: fr3_joint1"),
])  # fmt: skip
def test_a_controller_of_other_joints_is_refused(monkeypatch, joints, told):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setattr(ros2, "FOUND_WAIT", 2.0)
    space = f"{SPACE}_{'none' if joints is None else 'other'}"
    node, ended = RosNode("other" if joints is None else "forward_position_controller", space), threading.Event()
    if joints:
        node.declare("joints", joints)
    states = node.publisher(node.JointState, f"{space}/joint_states")
    node.subscribe(node.Float64MultiArray, f"{space}/forward_position_controller/commands", lambda _: None, 1)

    def serve():
        message = node.JointState(name=list(FR3.joints), position=list(HOME))
        while not ended.is_set():
            message.header.stamp.nanosec += 1_000_000
            states.publish(message)
            node.spin(0.01)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with pytest.raises(NotConnectedError, match=told):
            Ros2("fr3", {"namespace": space}).open()
    finally:
        ended.set()
        thread.join()
        node.close()


def test_a_controller_that_stays_away_is_not_cleared(device, driver, monkeypatch):
    monkeypatch.setattr(ros2, "FOUND_WAIT", 0.5)
    device.side_line.inject("controller_gone")
    end = time.monotonic() + 3.0
    while not driver.read().fault and time.monotonic() < end:
        time.sleep(0.02)
    with pytest.raises(RobotError, match=r"nobody listens to .* is the controller active"):
        driver.clear_fault()
    with pytest.raises(NotConnectedError):
        driver.read()
    assert driver.now() > 0.0
    device.side_line.ask("clear")
    driver.clear_fault()
    assert driver.read().fault == ""
