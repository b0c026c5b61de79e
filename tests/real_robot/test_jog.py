"""Wishes to joint targets: by hand, and for every arm over random wishes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.kinematics import forward_kinematics
from poise.real_robot.jog import CLEARANCE, MARGIN, Jog, Speeds, Wish, rotation_exp, rotation_log
from poise.real_robot.route import outside
from poise.robots import FR3, ROBOTS, SO101, UR5E, robot_spec

DT, STILL = 0.02, np.zeros(3)


def run(jog, wish, seconds):
    """Joint targets (T, n) under one wish, as if the arm followed perfectly."""
    path = [jog.q]
    for _ in range(round(seconds / DT)):
        path.append(jog.step(wish, path[-1], DT)[0])
    return np.array(path)


def test_a_turn_and_its_logarithm_are_inverse_also_at_half_a_turn():
    quarter = rotation_exp(np.array([0.0, 0.0, np.pi / 2]))
    np.testing.assert_allclose(quarter, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    for vector in ([0.1, -0.2, 0.3], [0.0, 0.0, 0.0], [1e-9, 0.0, 0.0], [0.0, np.pi, 0.0], [1.0, -2.0, 2.0]):
        np.testing.assert_allclose(rotation_exp(rotation_log(rotation_exp(np.array(vector)))),
                                   rotation_exp(np.array(vector)), atol=1e-7)  # fmt: skip
    np.testing.assert_allclose(np.abs(rotation_log(rotation_exp(np.array([np.pi, 0, 0])))), [np.pi, 0, 0], atol=1e-6)


@given(st.lists(st.floats(-1.8, 1.8), min_size=3, max_size=3))
def test_the_logarithm_gives_back_axis_and_angle(vector):
    np.testing.assert_allclose(rotation_log(rotation_exp(np.array(vector))), vector, atol=1e-7)


@pytest.mark.parametrize("name", ["fr3", "ur5e", "xarm7", "vx300s"])
def test_the_tool_goes_straight_and_keeps_its_rotation(name):
    jog = Jog(robot_spec(name))
    before, turned = forward_kinematics(jog.robot, jog.q)
    path = run(jog, Wish(np.array([0.0, 0.1, 0.0]), STILL), 1.0)
    after, rotation = forward_kinematics(jog.robot, path)
    assert after[-1] - before == pytest.approx([0.0, 0.1, 0.0], abs=2e-3)
    assert np.abs(after[:, [0, 2]] - before[[0, 2]]).max() < 2e-3
    assert np.abs(rotation_log(rotation[-1] @ turned.T)).max() < 0.02


def test_an_arm_of_five_joints_goes_straight_and_turns_as_it_can():
    jog = Jog(SO101)
    before, _ = forward_kinematics(SO101, jog.q)
    after, _ = forward_kinematics(SO101, run(jog, Wish(np.array([0.0, 0.1, 0.0]), STILL), 0.6)[-1])
    assert after - before == pytest.approx([0.0, 0.06, 0.0], abs=4e-3)


def test_a_turn_keeps_the_tools_place():
    jog = Jog(FR3)
    before, turned = forward_kinematics(FR3, jog.q)
    after, rotation = forward_kinematics(FR3, run(jog, Wish(STILL, np.array([0.0, 0.0, 0.5])), 1.0)[-1])
    assert np.abs(after - before).max() < 2e-3
    assert rotation_log(rotation @ turned.T) == pytest.approx([0.0, 0.0, 0.5], abs=0.02)


def test_wishes_are_slowed_to_the_stated_speeds():
    jog = Jog(UR5E, Speeds(linear=0.1))
    path = run(jog, Wish(np.array([0.0, 9.0, 0.0]), STILL), 1.0)
    tool, _ = forward_kinematics(UR5E, path)
    assert np.linalg.norm(np.diff(tool, axis=0), axis=1).max() / DT < 0.11
    joints = run(jog, Wish(STILL, STILL, joints=np.array([99.0, 0, 0, 0, 0, 0])), 0.2)
    assert np.abs(np.diff(joints, axis=0)).max() / DT == pytest.approx(0.3 * np.pi)


def test_a_hand_leads_the_tool_from_wherever_it_took_hold():
    jog = Jog(FR3)
    before, turned = forward_kinematics(FR3, jog.q)
    start = np.array([3.0, 4.0, 5.0]), rotation_exp(np.array([0.4, 0.0, 0.0]))
    run(jog, Wish(STILL, STILL, hand=start), 0.1)
    assert np.abs(forward_kinematics(FR3, jog.q)[0] - before).max() < 1e-6, "taking hold moves nothing"
    moved = start[0] + [0.05, 0.0, 0.02], rotation_exp(np.array([0.0, 0.0, 0.2])) @ start[1]
    after, rotation = forward_kinematics(FR3, run(jog, Wish(STILL, STILL, hand=moved), 1.5)[-1])
    assert after - before == pytest.approx([0.05, 0.0, 0.02], abs=1e-3)
    assert rotation_log(rotation @ turned.T) == pytest.approx([0.0, 0.0, 0.2], abs=1e-2)


def test_the_gripper_opens_and_closes_within_its_range():
    jog = Jog(SO101)
    jog.begin(jog.q, 0.0)
    for _ in range(10):
        jog.step(Wish(STILL, STILL, gripper=1.0), jog.q, DT)
    assert jog.gripper == pytest.approx(0.2 * (0.9 + 0.17))
    for _ in range(100):
        jog.step(Wish(STILL, STILL, opening=0.0), jog.q, DT)
    assert jog.gripper == pytest.approx(-0.17)
    jog.begin(jog.q, None)
    assert jog.step(Wish(STILL, STILL, gripper=1.0), jog.q, DT)[1] is None, "an unknown place is not guessed"


@pytest.mark.parametrize("name", ROBOTS)
def test_no_wish_leaves_the_joints_ranges_the_box_or_the_speeds(name):
    robot, rng = robot_spec(name), np.random.default_rng(1)
    low, high = np.array(robot.position_low) + MARGIN, np.array(robot.position_high) - MARGIN
    for _ in range(6):
        jog = Jog(robot)
        for _ in range(4):
            kind = rng.integers(3)
            hand = (5.0 * rng.normal(size=3), rotation_exp(rng.normal(size=3)))
            wish = [Wish(rng.normal(size=3), rng.normal(size=3)), Wish(STILL, STILL, rng.normal(size=robot.num_joints)),
                    Wish(STILL, STILL, hand=hand)][kind]  # fmt: skip
            start = jog.q
            path = run(jog, wish, 1.5)
            fastest = np.minimum(0.3 * np.array(robot.velocity), 1.6)
            assert (np.abs(np.diff(path, axis=0)) <= fastest * DT + 1e-9).all()
            assert (path >= np.minimum(low, start) - 1e-9).all() and (path <= np.maximum(high, start) + 1e-9).all()
            assert (outside(robot, path) <= np.maximum(-CLEARANCE, outside(robot, start[None])) + 1e-9).all()
            assert np.isfinite(path).all()


def test_pulling_at_a_wall_winds_nothing_up():
    jog = Jog(FR3)
    run(jog, Wish(np.array([0.0, 0.0, -0.2]), STILL), 8.0)  # into the floor
    low = forward_kinematics(FR3, jog.q)[0][2]
    up = forward_kinematics(FR3, run(jog, Wish(np.array([0.0, 0.0, 0.1]), STILL), 0.6)[-1])[0][2]
    assert low < 0.12 and up - low > 0.03
