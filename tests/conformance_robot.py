"""What every Driver and every Robot must do, as checks that any implementation's tests can borrow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from poise.errors import LimitViolatedError, NotConnectedError
from poise.real_robot.driver import Driver
from poise.real_robot.robot import Robot
from poise.real_robot.supervisor import Code


def check_driver(make: Callable[[], Driver]) -> None:
    """A driver opens, reads SI units in the arm's joint order, follows, brakes, and closes twice."""
    driver = make()
    n = driver.robot.num_joints
    with pytest.raises(NotConnectedError):
        driver.read()
    driver.open()
    first = driver.read()
    for array in (first.joint_pos, first.joint_vel, first.joint_pos_target):
        assert array.shape == (n,) and array.dtype == np.float64 and np.isfinite(array).all()
    assert np.abs(first.joint_pos - first.joint_pos_target).max() < 0.2, "it holds a pose near where it stands"
    assert abs(driver.now() - first.time) < 0.1
    first.joint_pos[:] = 99.0
    assert np.abs(driver.read().joint_pos).max() < 10.0, "a reading belongs to its caller"

    goal, time = first.joint_pos_target.copy(), driver.now()
    command = goal.copy()
    for k in range(200):  # there and back by 0.014 rad, inside every limit, jerk at 500 Hz included
        command[0] = goal[0] + 0.014 * 0.5 * (1 - np.cos(2 * np.pi * k / 200))
        driver.write(command)
        assert driver.read().time >= time
        time = driver.read().time
        if k == 100:
            assert driver.read().joint_pos_target[0] == pytest.approx(command[0])
    assert driver.now() - first.time == pytest.approx(200 * driver.robot.servo_dt, rel=0.5)
    driver.brake()
    held = driver.read().joint_pos_target
    for _ in range(100):
        driver.write(held)
    assert np.abs(driver.read().joint_vel).max() < 0.05
    assert driver.counters().get("out_of_limit", 0) == 0
    if truth := driver.truth():
        assert {"joint_pos", "joint_vel", "tool_pos"} <= set(truth) and truth["tool_pos"].shape == (3,)
    driver.clear_fault()
    driver.close()
    driver.close()
    with pytest.raises(NotConnectedError):
        driver.write(held)


def check_robot(make: Callable[[], Robot]) -> None:
    """A robot connects, reads, moves, judges commands, latches and releases a stop, and closes twice."""
    robot = make()
    with pytest.raises(NotConnectedError, match="connect"):
        robot.read()
    with robot:
        n = robot.spec.num_joints
        home = np.array(robot.spec.home)
        reading = robot.read()
        assert reading.joint_pos.shape == (n,)
        assert robot.fault == ""

        goal = home.copy()
        goal[0] += 0.1
        robot.move_to(goal, speed=0.5)
        assert np.abs(robot.read().joint_pos_target - goal).max() < 1e-5
        with pytest.raises(LimitViolatedError, match=robot.spec.joints[0]):
            robot.move_to(home + 99.0)

        small = robot.read().joint_pos_target + 1e-5
        verdict = robot.command(small)
        assert verdict.code is Code.PASS and np.array_equal(verdict.position, small)
        verdict = robot.command(small - 0.3)
        assert verdict.code is Code.CLIP and verdict.rule == "acceleration" and verdict.joint in robot.spec.joints
        assert np.abs(verdict.position - small).max() < 0.01
        at = robot.status()["time"]
        assert robot.command(verdict.position, at).code is not Code.REJECT
        assert robot.command(verdict.position, at).rule == "stale", "a command does not count twice"

        verdict = robot.command(np.full(n, np.nan))
        assert (verdict.code, verdict.rule) == (Code.REJECT, "finite")
        assert np.isfinite(verdict.position).all()
        assert "finite" in robot.status()["fault"], "a broken source latches a stop"
        assert robot.command(small).rule == "stopped"
        robot.clear_fault()
        robot.move_to(home)
        robot.stop()
        assert "operator" in robot.status()["fault"]
        robot.clear_fault()
        assert robot.status()["fault"] == ""
        counts = robot.status()["counts"]
        assert counts["rejected"] >= 3 and counts.get("out_of_limit", 0) == 0
    robot.close()
    with pytest.raises(NotConnectedError):
        robot.command(home)
