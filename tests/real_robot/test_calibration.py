"""Ticks and angles: the equation by hand, files that fit and files that do not."""

import json
import math

import pytest

from poise.errors import RobotError, UsageError
from poise.real_robot.calibration import Calibration, Joint, fit
from poise.real_robot.dynamixel import VX300S_ARM
from poise.real_robot.feetech import SO101_ARM
from poise.robots import SO101


def fitted(middle=None, low=None, high=None):
    """An SO-101 whose servos were centred when it was built, moved through its range."""
    ends = zip((*SO101.position_low, -0.17), (*SO101.position_high, 0.9), strict=True)
    zeros = [2048] * 5 + [1536]
    lows, highs = zip(
        *(
            (math.floor(z + a * 4096 / math.tau), math.ceil(z + b * 4096 / math.tau))
            for z, (a, b) in zip(zeros, ends, strict=True)
        ),
        strict=True,
    )
    middle = middle or [2048, 2048, 2048, 2048, 2080, 1774]
    return fit(SO101, SO101_ARM.gripper_angles, SO101_ARM.ids, middle, low or lows, high or highs, SO101_ARM.turning)


def test_a_tick_is_a_4096th_of_a_turn_from_zero_in_the_direction_of_the_sign():
    assert Joint(1, 1, 2048, 0, 4095).angle(3072) == pytest.approx(math.pi / 2)
    assert Joint(1, -1, 2048, 0, 4095).angle(3072) == pytest.approx(-math.pi / 2)
    assert Joint(1, 1, 1000, 0, 4095).angle(0) == pytest.approx(-1000 * 2 * math.pi / 4096)


def test_the_nominal_calibrations_fit_their_arms_and_have_the_makers_ids():
    for arm, ids in ((SO101_ARM, [1, 2, 3, 4, 5, 6]), (VX300S_ARM, [1, 2, 4, 6, 7, 8, 9])):
        calibration = arm.nominal()
        assert [joint.id for joint in calibration.servos.values()] == ids
        assert all(0 <= joint.low < joint.high <= 4095 for joint in calibration.servos.values())
    assert SO101_ARM.nominal().servos["shoulder_pan"].low == 2048 - 1252  # 1.9199 rad are 1251.6 ticks


def test_a_calibration_is_written_and_read_again(tmp_path):
    path = tmp_path / "so101.json"
    fitted().save(path)
    assert SO101_ARM.calibration(str(path)) == fitted()
    assert json.loads(path.read_text())["servos"]["elbow_flex"]["id"] == 3


def test_the_zero_lies_in_the_middle_of_the_range_or_where_a_joint_without_stops_was_shown():
    servos = fitted().servos
    assert abs(servos["shoulder_pan"].zero - 2048) <= 1
    middle = 0.5 * (SO101.position_low[4] + SO101.position_high[4])  # 0.0487 rad, 32 ticks
    assert servos["wrist_roll"].zero == round(2080 - middle * 4096 / math.tau) == 2048


def test_horns_that_sit_elsewhere_move_the_zero():
    base = fitted().servos
    shifted = fit(SO101, SO101_ARM.gripper_angles, SO101_ARM.ids, [2148, 1948, 2048, 2048, 2080, 1774],
                  [base["shoulder_pan"].low + 100, base["shoulder_lift"].low - 100, *(j.low for j in list(base.values())[2:])],
                  [base["shoulder_pan"].high + 100, base["shoulder_lift"].high - 100, *(j.high for j in list(base.values())[2:])],
                  SO101_ARM.turning)  # fmt: skip
    assert shifted.servos["shoulder_pan"].zero == base["shoulder_pan"].zero + 100
    assert shifted.servos["shoulder_lift"].zero == base["shoulder_lift"].zero - 100


def test_a_joint_that_was_not_moved_through_its_range_is_named():
    lows = [joint.low for joint in fitted().servos.values()]
    highs = [joint.high for joint in fitted().servos.values()]
    lows[2] += 300
    highs[2] -= 300
    with pytest.raises(RobotError, match=r"elbow_flex: its lower end .* short of .*\n.*elbow_flex: its upper end"):
        fitted(low=lows, high=highs)


def test_a_middle_pose_that_is_none_is_refused():
    with pytest.raises(RobotError, match="shoulder_lift: the middle of its range"):
        fitted(middle=[2048, 2448, 2048, 2048, 2080, 1774])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": "poise servo calibration 2"}, "format"),
        ({"servos": {}}, "expected, in this order, shoulder_pan"),
        ({"robot": "vx300s"}, "it is for 'vx300s'"),
        ({"servos": 3}, "expected format, robot and servos"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, change, message):
    path = tmp_path / "so101.json"
    fitted().save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises((RobotError, UsageError), match=message):
        SO101_ARM.calibration(str(path))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sign": 2}, "neither 1 nor -1"),
        ({"low": -3}, "expected 0 to 252"),
        ({"high": 4096}, "expected 0 to 252"),
        ({"id": 2}, "not all different"),
        ({"zero": 2500}, "beyond the published"),
        ({"zero": "2048"}, "expected whole numbers"),
    ],
)
def test_a_servo_that_does_not_fit_is_named(tmp_path, change, message):
    path = tmp_path / "so101.json"
    fitted().save(path)
    document = json.loads(path.read_text())
    document["servos"]["shoulder_pan"].update(change)
    path.write_text(json.dumps(document))
    with pytest.raises((RobotError, UsageError), match=message):
        SO101_ARM.calibration(str(path))


def test_no_file_and_no_json_say_how_to_make_one(tmp_path):
    (tmp_path / "bad.json").write_text("{")
    for path in (tmp_path / "none.json", tmp_path / "bad.json"):
        with pytest.raises(UsageError, match="poise robot calibrate"):
            SO101_ARM.calibration(str(path))
    with pytest.raises(UsageError, match="so101 needs a calibration"):
        SO101_ARM.calibration("")


def test_arrays_of_a_calibration_follow_the_joints():
    calibration = Calibration("x", {"a": Joint(1, 1, 5, 0, 10), "b": Joint(2, -1, 7, 0, 10)})
    assert calibration.zeros.tolist() == [5, 7] and calibration.signs.tolist() == [1, -1]


def test_the_crank_of_the_viperx_turns_and_turns_back():
    # the horn straight up pushes the fingers to 0.022 + 0.036 - 0.021 = 0.037 m; across, the rod alone spans
    assert VX300S_ARM.from_angle(math.pi / 2) == pytest.approx(0.037)
    assert VX300S_ARM.from_angle(0.0) == pytest.approx(math.sqrt(0.036**2 - 0.022**2) - 0.021)
    for travel in (0.0, 0.01, 0.036):
        assert VX300S_ARM.from_angle(VX300S_ARM.to_angle(travel)) == pytest.approx(travel)
