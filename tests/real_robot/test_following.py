"""Following timed waypoints, on simulated time: exactly, late, past the end, hostile."""

import time

import numpy as np
import pytest

from poise.errors import RobotError, UsageError
from poise.real_robot.following import PATIENCE, Waypoints
from poise.real_robot.robot import Robot
from poise.robots import FR3, ROBOTS

HOME, DT = np.array(FR3.home), FR3.servo_dt


def test_between_waypoints_lies_a_straight_line_and_after_the_last_nothing():
    plan = Waypoints(patience=0.1)
    assert plan.aim(0.0) is None
    plan.add(1.0, np.array([2.0]), None, now=0.0, here=np.array([0.0]))
    plan.add(2.0, np.array([3.0]), 0.04, now=0.0, here=np.array([0.0]))
    assert plan.aim(0.25).target == pytest.approx([0.5]) and plan.aim(0.25).gripper is None
    assert plan.aim(1.5).target == pytest.approx([2.5]) and plan.aim(1.5).gripper == 0.04
    assert plan.aim(2.05).target == pytest.approx([3.0])
    assert plan.aim(2.11) is None and plan.aim(2.05) is None, "what was let go does not come back"


def test_a_newer_waypoint_takes_the_place_of_later_ones():
    plan = Waypoints()
    for at, q in ((1.0, 1.0), (2.0, 2.0), (1.5, 0.0)):
        plan.add(at, np.array([q]), None, now=0.0, here=np.array([0.0]))
    assert plan.aim(1.25).target == pytest.approx([0.5]) and plan.aim(1.55).target == pytest.approx([0.0])


@pytest.mark.parametrize("name", ROBOTS)
def test_the_arm_follows_a_stream_and_stands_when_it_ends(name):
    with Robot(f"twin:{name}", in_process=True) as robot:
        home = np.array(robot.spec.home)
        robot.move_to(home)
        goal, rows, period = home - 0.15, [], 0.02
        for k, row in enumerate(robot.follow(period)):
            rows.append(row)
            if k < 50:
                robot.aim(home - 0.15 * (k + 1) / 50, at=row["now"] + 2 * period)
            elif not row["following"]:
                break
        sent = np.array([row["joint_pos_target"] for row in rows])
        speed = np.diff(sent, axis=0) / period
        assert np.abs(sent[-1] - goal).max() < 1e-6 and robot.fault == ""
        assert -speed[10:45] == pytest.approx(0.15, abs=0.02), "steadily, not in jerks"
        late = rows[-1]["now"] - rows[50]["now"]
        assert late <= PATIENCE + 3.5 * period, "then nothing is aimed for"
        assert robot.status()["counts"]["out_of_limit"] == 0 and robot.status()["counts"]["clipped"] == 0


def test_letting_go_brakes_at_once():
    with Robot("twin:fr3", in_process=True) as robot:
        rows, period = [], 0.02
        for k, row in enumerate(robot.follow(period)):
            rows.append(row)
            if k < 25:
                robot.aim(HOME + 0.5 * period * (k + 1), at=row["now"] + 2 * period)
            if k == 25:
                robot.aim_along(None)
            if k == 30:
                break
        sent = np.array([row["joint_pos_target"] for row in rows])
        v = np.abs(sent[25] - sent[24]).max() / period
        assert v > 0.4
        assert np.abs(sent[30] - sent[25]).max() <= v**2 / 20.0 + v * 2 * DT, "the way that 10 rad/s^2 needs"
        assert np.array_equal(sent[30], sent[29])


def test_nothing_moves_without_a_waypoint_and_the_first_may_be_far():
    with Robot("twin:fr3", in_process=True) as robot:
        for k, row in enumerate(robot.follow(0.02)):
            assert row["following"] == (0 < k < 11) or k > 5
            if k == 0:
                robot.aim(HOME + 1.0, at=row["now"])
            if k == 10:
                robot.aim_along(None)
            if k == 40:
                break
        assert robot.fault == "" and robot.status()["counts"]["out_of_limit"] == 0
        assert 0.05 < np.abs(np.array(row["joint_pos_target"]) - HOME).max() < 0.5


@pytest.mark.parametrize(
    ("target", "rule"), [(np.full(7, np.nan), "finite"), (np.full(7, np.inf), "finite"), (np.zeros(6), "shape"),
                         (None, "shape"), (["a"], "shape")]
)  # fmt: skip
@pytest.mark.parametrize("before", [False, True])
def test_a_broken_stream_latches_a_stop(target, rule, before):
    with Robot("twin:fr3", in_process=True) as robot:
        for k, row in enumerate(robot.follow(0.02)):
            if before and k == 0:
                robot.aim(HOME + 0.01, at=row["now"] + 0.02)
            if k == 1:
                robot.aim(target, at=row["now"] + 0.02)
            assert k < 10
        assert rule in robot.fault and robot.status()["counts"]["out_of_limit"] == 0
        with pytest.raises(RobotError, match="the arm is stopped"):
            next(iter(robot.follow(0.02)))
        robot.clear_fault()
        assert next(iter(robot.follow(0.02)))["fault"] == ""


def test_random_streams_stay_within_the_limits():
    rng = np.random.default_rng(0)
    with Robot("twin:fr3?latency=0.01", in_process=True) as robot:
        for _ in range(5):
            for k, row in enumerate(robot.follow(0.02)):
                at = row["now"] + float(rng.uniform(-0.1, 0.2))
                robot.aim(HOME + rng.normal(size=7) * rng.choice([0.01, 0.3, 5.0]), at, float(rng.normal()))
                if k == 60:
                    break
            if robot.fault:
                robot.clear_fault()
        assert robot.status()["counts"]["out_of_limit"] == 0 and robot.status()["counts"]["commands"] > 200


def test_the_gripper_goes_where_it_is_sent_and_no_further():
    with Robot("twin:fr3", in_process=True) as robot:
        for goal, expected in ((9.0, 0.04), (-9.0, 0.0), (float("nan"), 0.0)):
            for k, row in enumerate(robot.follow(0.05)):
                robot.aim(HOME, row["now"] + 0.1, goal)
                if k == 20:
                    break
            assert row["gripper_target"] in (expected, None) and row["gripper_pos"] == pytest.approx(expected, abs=2e-3)


def test_a_period_of_no_length_is_refused():
    with Robot("twin:fr3", in_process=True) as robot, pytest.raises(UsageError, match="period"):
        list(robot.follow(0.0))


def test_waypoints_cross_into_the_control_process_and_a_stop_ends_it():
    with Robot("twin:fr3?realtime=1") as robot:
        robot.aim(HOME, 0.0)  # nobody follows: this is for a job that is over
        began = None
        for row in robot.follow(0.02):
            began = began or row["now"]
            robot.aim(HOME + 0.1, row["now"] + 0.04)
            if row["now"] - began > 0.5:
                robot.stop()
            assert row["now"] - began < 3.0
        assert "operator" in row["fault"] and "operator" in robot.fault
        assert np.abs(np.array(row["joint_pos"]) - HOME).max() > 0.05
        robot.clear_fault()
        row = next(iter(robot.follow(0.02)))
        assert robot.read().joint_pos.shape == (7,) and time.monotonic() - row["now"] < 2.0
        assert robot.status()["counts"]["out_of_limit"] == 0
