"""A leader arm in somebody's hand, and calibrations made by hand: emulated servos that a test moves."""

import numpy as np
import pytest

from poise.errors import NotConnectedError, RobotError, UsageError
from poise.real_robot.calibrate import calibrate
from poise.real_robot.leader import Leader, LeaderSource
from poise.real_robot.servo_driver import ARMS
from poise.robots import SO101, UR5E
from servo_emulator import emulated

DT = 0.02


@pytest.fixture
def leading():
    """A leader with its handle half open, its source, and the emulator that is its body."""
    with emulated("so101") as device, Leader(device.whole_address) as leader:
        times = iter(np.arange(0.0, 1e4, DT))
        source = LeaderSource(leader, SO101, clock=lambda: float(next(times)))
        yield device, leader, source


def hand(device, joint_pos, grip):
    """Put the leader somewhere."""
    with device.lock:
        device.by_hand(np.array(joint_pos), -0.17 + grip * 1.07)


def row(q):
    return {"joint_pos_target": list(q)}


def begin(device, source, at, follower):
    """Close the handle and open it."""
    hand(device, at, 0.0)
    assert source.aim(row(follower), DT) is None
    hand(device, at, 0.9)
    return source.aim(row(follower), DT)


def test_a_leader_is_limp_and_tells_its_joints_and_its_handle(leading):
    device, leader, _ = leading
    assert [servo.get((40, 1)) for servo in device.servos.values()] == [0] * 6
    hand(device, [0.1, 0.2, -0.3, 0.4, -0.5], 0.5)
    pose = leader.read()
    assert np.abs(pose.joint_pos - [0.1, 0.2, -0.3, 0.4, -0.5]).max() <= np.pi / 4096 + 1e-9, "to half a tick"
    assert pose.grip == pytest.approx(0.5, abs=0.01)


def test_nothing_moves_until_the_handle_was_closed_and_opened(leading):
    device, _, source = leading
    hand(device, SO101.home, 0.9)
    assert source.aim(row(SO101.home), DT) is None
    aim = begin(device, source, SO101.home, SO101.home)
    assert aim is not None and np.abs(aim.joint_pos_target - SO101.home).max() < 0.002
    assert aim.gripper_target == pytest.approx(-0.17 + 0.9 * 1.07, abs=0.01)


def test_the_follower_comes_to_the_leader_slowly_and_then_follows_at_once(leading):
    device, _, source = leading
    at = np.array(SO101.home) + 0.5
    at[3] -= 0.6
    aim, follower = begin(device, source, at, SO101.home), np.array(SO101.home)
    for _ in range(1000):
        assert np.abs(aim.joint_pos_target - follower).max() <= 0.1 * 4.7 * DT + 1e-9, "a tenth of its speed"
        follower = aim.joint_pos_target
        if source._is_there:
            break
        aim = source.aim(row(follower), DT)
    assert np.abs(follower - at).max() < 0.05
    hand(device, at + 0.04, 0.9)
    assert np.abs(source.aim(row(follower), DT).joint_pos_target - at - 0.04).max() < 0.002


def test_a_closed_handle_grips_and_ends_the_leading_only_where_the_arm_rests(leading):
    device, _, source = leading
    begin(device, source, SO101.home, SO101.home)
    for k in range(150):  # carries something for three seconds
        hand(device, np.array(SO101.home) + 0.002 * k * np.array([1, 0, 0, 0, 0]), 0.05)
        assert source.aim(row(SO101.home), DT) is not None
    aims = [source.aim(row(SO101.home), DT) for _ in range(150)]
    assert aims[50] is not None and aims[-1] is None and not source.is_leading


def test_a_stop_ends_the_leading_until_the_handle_says_so_again(leading):
    device, _, source = leading
    assert begin(device, source, SO101.home, SO101.home) is not None
    source.stopped()
    assert source.aim(row(SO101.home), DT) is None
    assert begin(device, source, SO101.home, SO101.home) is not None


def test_a_leader_beyond_the_followers_range_leads_to_its_end(leading):
    device, _, source = leading
    begin(device, source, SO101.home, SO101.home)
    source._is_there = True
    device.joints[0].put((56, 2), 4000)  # 2.99 rad
    device.refresh = lambda: None
    assert source.aim(row(SO101.home), DT).joint_pos_target[0] == SO101.position_high[0]


def test_a_leader_that_goes_silent_is_an_error(leading):
    device, _, source = leading
    begin(device, source, SO101.home, SO101.home)
    device._until["silent"] = np.inf
    with pytest.raises(NotConnectedError, match="the leader at so101:"):
        for _ in range(10):
            source.aim(row(SO101.home), DT)


def test_another_kind_of_arm_cannot_be_led_and_what_is_no_arm_of_servos_cannot_lead():
    with emulated("so101") as device, pytest.raises(UsageError, match="a so101 cannot lead a ur5e"):
        LeaderSource(Leader(device.whole_address), UR5E)
    with pytest.raises(UsageError, match="unknown leader arm"):
        Leader("twin:so101")
    with pytest.raises(UsageError, match="needs a calibration"):
        Leader("so101:/dev/none")
    with pytest.raises(UsageError, match="unknown leader option"):
        Leader("so101:/dev/none?watchdog=3")


# ---- calibrating ------------------------------------------------------------------------------


def by_hand(device, spoil=lambda q: q, ends=(0.0, 1.0)):
    """What somebody does: show the middle, then move every joint from end to end."""
    low, high = np.array(device.robot.position_low), np.array(device.robot.position_high)
    closed, opened = sorted((device.robot.gripper.closed, device.robot.gripper.open))
    steps = iter([ends[0] + (ends[1] - ends[0]) * k / 8 for k in range(9)])

    def put(share):
        with device.lock:
            device.by_hand(spoil(low + share * (high - low)), closed + share * (opened - closed))

    def moving():
        share = next(steps, None)
        if share is not None:
            put(share)
        return share is not None

    return lambda: put(0.5), moving


@pytest.mark.parametrize("horns", [(0,) * 6, (150, -200, 100, -60, 40, 300), (0, 0, 0, 0, 1400, 0)])
def test_a_calibration_by_hand_finds_how_the_horns_sit(tmp_path, horns):
    with emulated("so101", horns=horns) as device:
        calibration = calibrate(device.whole_address, *by_hand(device))
        calibration.save(tmp_path / "so101.json")
        with Leader(f"{device.whole_address}&calibration={tmp_path / 'so101.json'}") as leader:
            hand(device, SO101.home, 0.5)
            pose = leader.read()
    assert np.abs(pose.joint_pos - SO101.home).max() < 0.004, "two ticks"
    if horns[4] == 1400:  # the range crosses the end of the turn: the servo's own offset was set
        assert device.joints[4].get((31, 2)) != 0 and calibration.servos["wrist_roll"].high < 4096


def test_who_does_not_move_a_joint_to_its_ends_is_told(tmp_path):
    with emulated("so101") as device, pytest.raises(RobotError, match=r"shoulder_pan: its lower end .* short"):
        calibrate(device.whole_address, *by_hand(device, ends=(0.2, 0.8)))


def test_a_leaders_handle_may_have_a_range_of_its_own():
    with emulated("so101") as device:
        middle, moving = by_hand(device)
        place = device.by_hand
        device.by_hand = lambda q, grip: place(q, 0.3 + 0.1 * grip)
        with pytest.raises(RobotError, match="gripper: its lower end"):
            calibrate(device.whole_address, *by_hand(device))
        calibration = calibrate(device.whole_address, middle, moving, leader=True)
    assert calibration.servos["gripper"].high - calibration.servos["gripper"].low < 100


def test_the_viperx_is_calibrated_too():
    with emulated("vx300s") as device:
        seen = []
        calibration = calibrate(device.whole_address, *by_hand(device), show=seen.append)
    nominal = ARMS["vx300s"][0].nominal()
    for name, joint in calibration.servos.items():
        assert abs(joint.zero - nominal.servos[name].zero) <= 12, name  # the gripper's shown middle is rounder
    assert set(seen[-1]) == set(calibration.servos)
