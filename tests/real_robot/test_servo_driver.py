"""Arms of servos: the makers' SDKs against emulators on a pseudo-terminal; units, refusals, faults, restarts."""

import math
import time

import numpy as np
import pytest

from conformance_robot import check_driver, check_robot
from poise.errors import LimitViolatedError, NotConnectedError, UsageError
from poise.real_robot.drivers import driver_at
from poise.real_robot.emulators.launch import start_emulator
from poise.real_robot.robot import Robot
from poise.real_robot.supervisor import Code
from servo_emulator import ARMS, emulated


@pytest.mark.parametrize("name", ARMS)
def test_drivers_do_what_drivers_must(name):
    with start_emulator(name, virtual=True) as device:
        check_driver(lambda: driver_at(device.address))


@pytest.mark.parametrize("name", ARMS)
def test_robots_do_what_robots_must(name):
    with start_emulator(name, virtual=True) as device:
        check_robot(lambda: Robot(device.address))


@pytest.mark.parametrize("name", ARMS)
def test_in_real_time_writing_waits_for_the_end_of_the_servo_period(name):
    with emulated(name, virtual=False) as device:
        driver = driver_at(device.whole_address)
        driver.open()
        held, began = driver.read().joint_pos_target, time.monotonic()
        for _ in range(50):
            driver.write(held)
        assert time.monotonic() - began > 48 * driver.robot.servo_dt
        driver.close()
        assert device.oracle.out_of_limit == 0


# ---- units ------------------------------------------------------------------------------------


def test_a_goal_at_the_end_of_a_joint_is_rounded_to_the_tick_inside():
    """By hand: the lift's low end of -1.74533 rad are -1137.78 ticks; at -1138 the arm would be held out of its range."""
    with emulated("so101") as device:
        driver = driver_at(device.whole_address)
        driver.open()
        low = driver.robot.position_low
        driver.write(np.where(np.arange(5) == 1, low, driver.read().joint_pos_target))
        driver.counters()
        assert device.joints[1].get((42, 2)) == 2048 - 1137
        driver.close()
        driver.open()
        assert low[1] <= driver.read().joint_pos_target[1] < low[1] + 0.0016
        driver.close()


def test_radians_become_ticks_and_ticks_radians():
    with emulated("so101") as device:
        driver = driver_at(device.whole_address)
        driver.open()
        held = driver.read().joint_pos_target
        driver.write(held, gripper_target=0.5)
        command = np.array([0.01, *held[1:]])  # 0.01 rad are 6.52 ticks
        driver.write(command)
        driver.counters()  # waits for the emulator
        ticks = [
            servo.get(servo_goal)
            for servo, servo_goal in zip([*device.joints, device.gripper], [(42, 2)] * 6, strict=True)
        ]
        assert ticks[0] == 2048 + 7 and ticks[5] == 1536 + round(0.5 * 4096 / math.tau) == 1862
        assert driver.read().joint_pos_target[0] == 0.01, "what was asked for, unrounded, is what it follows"
        for _ in range(200):
            driver.write(command)
        reading = driver.read()
        assert reading.joint_pos[0] == pytest.approx(0.01, abs=0.003)
        assert reading.gripper_pos == pytest.approx(0.5, abs=0.02)
        assert reading.joint_pos[0] / (2 * math.pi / 4096) == pytest.approx(
            round(reading.joint_pos[0] / (2 * math.pi / 4096))
        )
        driver.close()


def test_speeds_loads_and_currents_have_their_makers_units():
    from poise.real_robot.dynamixel import VX300S_ARM, DynamixelBus
    from poise.real_robot.feetech import FeetechBus, signed

    state = FeetechBus("x", 1_000_000, 0.1).decode([0x00, 0x08, 0x64, 0x80, 0xF4, 0x05], 0)
    assert state == (2048, -100, -0.5, 0)  # bit 15 and bit 10 are signs
    assert signed(0x8005, 15) == -5 and signed(5, 15) == 5
    state = DynamixelBus("x", 1_000_000, 0.1).decode(b"\x9c\xff\xff\xff\xff\xff\x00\x08\x00\x00", 0)
    assert state.position == 2048
    assert state.velocity == pytest.approx(-0.229 / 60 * 4096)  # one unit is 0.229 turns a minute
    assert state.torque == pytest.approx(-0.269)  # 100 units of 2.69 mA
    assert VX300S_ARM.servos["shoulder"].torque == pytest.approx(2 * 10.6 / 4.4), "two servos"


def test_the_viperx_gripper_is_told_in_metres_and_moves():
    with emulated("vx300s") as device:
        driver = driver_at(device.whole_address)
        driver.open()
        held = driver.read().joint_pos_target
        for _ in range(100):
            driver.write(held, gripper_target=0.02)
        assert driver.read().gripper_pos == pytest.approx(0.02, abs=1e-3)
        assert device.arm.gripper_pos == pytest.approx(0.02, abs=1e-3)
        driver.close()


def test_a_velocity_of_minus_one_before_a_position_that_looks_like_a_header_is_stuffed_and_read():
    with emulated("vx300s") as device:
        driver = driver_at(device.whole_address)
        driver.open()
        device.refresh = lambda: None
        device.joints[0].put((128, 4), -1)  # FF FF FF FF, then the position's FD: a header inside
        device.joints[0].put((132, 4), 0x07FD)
        reading = driver.read()
        assert reading.joint_pos[0] == pytest.approx((0x07FD - 2048) * math.tau / 4096)
        assert reading.joint_vel[0] == pytest.approx(-0.229 / 60 * math.tau)
        driver.close()


def test_what_is_no_command_is_refused_before_the_wire():
    with emulated("so101") as device:
        driver = driver_at(device.whole_address)
        driver.open()
        held = driver.read().joint_pos_target
        driver.counters()
        before = device.oracle.arrivals
        for command, gripper in ((held * math.nan, None), (held[:3], None), (held, math.inf), (held + 9.0, None)):
            with pytest.raises(LimitViolatedError):
                driver.write(command, gripper)
        assert device.oracle.arrivals == before
        driver.close()


# ---- what is refused in open ------------------------------------------------------------------

WRONG = {
    "a missing servo": ("so101", lambda d: d.servos.pop(4), r"no answer from wrist_flex \(id 4\); answering: 1, 2, 3, 5, 6"),
    "a dead line": ("so101", lambda d: d.servos.clear(), "answering: nobody"),
    "another model": ("so101", lambda d: d.servos[2].put((3, 2), 1029), r"shoulder_lift \(id 2\) is model 1029, expected 777"),
    "a wheel": ("so101", lambda d: d.servos[5].put((33, 1), 1), r"wrist_roll \(id 5\) is in operating mode 1, expected 0"),
    "a model of another size": ("vx300s", lambda d: d.servos[8].put((0, 2), 1120), r"wrist_rotate \(id 8\) is model 1120"),
    "current control": ("vx300s", lambda d: d.servos[1].put((11, 1), 0), r"waist \(id 1\) is in operating mode 0, expected 3"),
    "not turned": ("vx300s", lambda d: d.servos[4].put((10, 1), 0), r"elbow \(id 4\) has drive mode 0, expected 1"),
    "a shadow on its own": ("vx300s", lambda d: d.servos[3].put((12, 1), 255), r"shoulder shadow \(id 3\) follows none, expected id 2"),
    "a missing shadow": ("vx300s", lambda d: d.servos.pop(5), r"no answer from elbow shadow \(id 5\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_an_arm_that_is_not_as_it_should_be_is_one_clear_error(case, monkeypatch):
    name, spoil, message = WRONG[case]
    monkeypatch.setattr("poise.real_robot.servo_driver.PATIENCE_VIRTUAL", 0.05)
    with emulated(name) as device:
        spoil(device)
        driver = driver_at(device.whole_address)
        with pytest.raises(NotConnectedError, match=message):
            driver.open()
        with pytest.raises(NotConnectedError):
            driver.read()


def test_a_wrong_rate_is_found_and_told(monkeypatch):
    monkeypatch.setattr("poise.real_robot.servo_driver.PATIENCE_VIRTUAL", 0.05)
    with emulated("so101", baud=115_200) as device:
        with pytest.raises(NotConnectedError, match="At 115200 baud they do: add baud=115200"):
            driver_at(device.whole_address).open()
        driver = driver_at(device.whole_address + "&baud=115200")
        driver.open()
        assert driver.read().fault == ""
        driver.close()


@pytest.mark.parametrize(
    "address, message",
    [
        ("so101:/dev/none", "needs a calibration: poise robot calibrate"),
        ("so101:/dev/none?calibration=nominal&bauds=3", "did you mean baud"),
        ("so101:/dev/none?calibration=nominal&baud=1234567", "these servos know 1000000"),
        ("so101:/dev/none?calibration=nominal&baud=fast", "expected a number"),
    ],
)
def test_an_address_that_cannot_be_is_refused_at_once(address, message):
    with pytest.raises(UsageError, match=message):
        driver_at(address)


def test_a_port_that_is_not_there_or_taken_is_said():
    with pytest.raises(NotConnectedError, match="no such port; plugged in"):
        driver_at("vx300s:/dev/ttyNONE").open()
    with emulated("so101") as device:
        first, second = driver_at(device.whole_address), driver_at(device.whole_address)
        first.open()
        with pytest.raises(NotConnectedError, match="in use by another program"):
            second.open()
        first.close()
        second.open()
        second.close()


# ---- faults -----------------------------------------------------------------------------------


def wave(robot, ticks, centre):
    """Commands that swing the first joint; the verdicts."""
    dt, amplitude = robot.spec.servo_dt, 0.1
    return [robot.command(centre + np.eye(len(centre))[0] * amplitude * (1 - math.cos(2.0 * k * dt)))
            for k in range(1, ticks + 1)]  # fmt: skip


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("fault", ["drop", "duplicate", "corrupt", "delay"])
def test_a_lost_or_damaged_answer_is_asked_for_again_and_nothing_else_happens(name, fault, monkeypatch):
    monkeypatch.setattr("poise.real_robot.servo_driver.PATIENCE_VIRTUAL", 0.015 if fault == "delay" else 0.05)
    with emulated(name) as device, Robot(device.whole_address, in_process=True) as robot:
        centre = robot.read().joint_pos_target
        device._until[fault] = math.inf
        verdicts = wave(robot, 30, centre)
        counts = robot.status()["counts"]
        assert counts["out_of_limit"] == 0
        assert sum(v.code is not Code.PASS for v in verdicts) == 0
        assert counts["retries"] >= 10 or fault == "duplicate"
        assert robot.fault == ""


@pytest.mark.parametrize("name", ARMS)
def test_lost_commands_are_judged_as_sent_and_the_arm_comes_where_it_should(name):
    with emulated(name) as device, Robot(device.whole_address, in_process=True) as robot:
        centre = robot.read().joint_pos_target
        device._until["deaf"] = math.inf
        last = wave(robot, 100, centre)[-1]
        device._until.clear()
        for _ in range(30):
            robot.command(last.position)
        assert device.oracle.out_of_limit == 0
        assert np.abs(robot.read().joint_pos - last.position).max() < 0.02


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize(
    "fault, told", [("overload", "overload"), ("overheating", "overheating"), ("voltage", "input voltage")]
)
def test_what_a_servo_has_latched_is_read_and_released(name, fault, told):
    with emulated(name) as device:
        driver = driver_at(device.whole_address)
        driver.open()
        device.inject(fault)
        reading = driver.read()
        elbow = device.robot.joints[2]
        assert reading.fault.startswith(f"{told} of {elbow} (id ")
        driver.brake()
        driver.clear_fault()
        reading = driver.read()
        assert reading.fault == ""
        assert np.abs(reading.joint_pos - reading.joint_pos_target).max() < 0.01, "it holds where it is"
        driver.write(reading.joint_pos_target)
        assert device.oracle.out_of_limit == 0
        driver.close()


def test_a_fault_whose_cause_lasts_is_not_released():
    with emulated("vx300s") as device:
        driver = driver_at(device.whole_address)
        driver.open()
        device._until["overheating"] = math.inf
        device.inject("overheating")
        with pytest.raises(NotConnectedError, match="refuses torque"):
            driver.clear_fault()
        device._until.clear()
        driver.clear_fault()
        assert driver.read().fault == ""
        driver.close()


@pytest.mark.parametrize("name", ARMS)
@pytest.mark.parametrize("fault", ["silent", "unplugged"])
def test_a_servo_or_a_port_that_goes_is_named_and_comes_back(name, fault, monkeypatch):
    monkeypatch.setattr("poise.real_robot.servo_driver.PATIENCE_VIRTUAL", 0.01)
    with emulated(name) as device, Robot(device.whole_address, in_process=True) as robot:
        centre = robot.read().joint_pos_target
        wave(robot, 20, centre)
        device._until[fault] = math.inf
        time.sleep(0.05)
        with pytest.raises(NotConnectedError, match="elbow" if fault == "silent" else "gone"):
            wave(robot, 60, centre)
        assert "device" in robot._link._loop.status()["fault"] if fault == "silent" else True
        device._until.clear()
        time.sleep(0.1)
        robot.clear_fault()
        robot.move_to(centre)
        assert robot.fault == "" and device.oracle.out_of_limit == 0


def test_a_stuck_joint_ends_in_overload():
    with emulated("so101") as device:
        driver = driver_at(device.whole_address)
        driver.open()
        goal = driver.read().joint_pos_target.copy()
        device._until["stuck"] = math.inf
        fault = ""
        for _ in range(200):
            goal[2] -= 0.002
            driver.write(goal)
            if fault := driver.read().fault:
                break
        assert fault == "overload of elbow_flex (id 3)"
        driver.close()


# ---- random walk --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARMS)
def test_a_random_walk_through_the_supervisor_never_leaves_the_limits(name):
    rng = np.random.default_rng(5)
    with emulated(name) as device, Robot(device.whole_address, in_process=True) as robot:
        for _ in range(1500):
            ask = robot._link._loop.supervisor.position + rng.normal(size=robot.spec.num_joints) * 10.0 ** rng.uniform(
                -4, 0
            )
            robot.command(ask)
            if robot.fault:
                robot._link._loop.come_to_rest()
                robot.clear_fault()
        assert device.oracle.arrivals >= 1500
        assert device.oracle.out_of_limit == 0, device.oracle.told
