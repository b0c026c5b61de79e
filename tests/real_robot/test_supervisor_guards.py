"""Beyond single commands: jerk, the tool's speed, links, who drives, and what readings show."""

from dataclasses import replace

import numpy as np
import pytest
from command_judge import DT, HOME, N, started

import poise.real_robot.self_collision as module_collision
from poise.kinematics import forward_kinematics
from poise.real_robot.driver import Reading
from poise.real_robot.moving_mean import jerk_periods
from poise.real_robot.self_collision import SelfCollision
from poise.real_robot.supervisor import Code, Supervisor
from poise.robots import FR3, ROBOTS, UR5E


@pytest.mark.parametrize(("name", "periods"), [("fr3", 1), ("xarm7", 4), ("ur5e", 10), ("so101", 2), ("vx300s", 2)])
def test_what_is_sent_is_a_mean_over_as_many_periods_as_jerk_asks_for(name, periods):
    """By hand: 2 a / (m dt) <= j, for the UR5e 2 x 10 / (10 x 0.002) = 1000 rad/s^3."""
    robot = ROBOTS[name]
    assert jerk_periods(robot) == periods
    home, dt = np.array(robot.home), robot.servo_dt
    supervisor = Supervisor(robot)
    supervisor.start(home, home)
    passed, sent = [home] * periods, []
    for k in range(200):  # full acceleration one way and the other
        command = supervisor.position + (supervisor.velocity + (10.0 if k % 40 < 20 else -10.0) * 0.999 * dt) * dt
        verdict = supervisor.check(command, k * dt, k * dt)
        passed.append(verdict.position)
        sent.append(verdict.sent)
        np.testing.assert_allclose(verdict.sent, np.mean(passed[-periods:], axis=0), atol=1e-15)
    path = np.vstack([home, home, home, sent])
    assert np.abs(np.diff(path, n=3, axis=0)).max() / dt**3 <= robot.jerk[0] * (1 + 1e-6)
    while not supervisor.standing:
        last = supervisor.brake()
    assert np.array_equal(last.sent, last.position), "it comes to rest on the command itself"


def test_a_tool_that_would_be_too_fast_is_held_back():
    supervisor = Supervisor(FR3, tool_speed=0.25)
    supervisor.start(HOME, HOME)
    q, verdicts, tools = HOME.copy(), [], [forward_kinematics(FR3, HOME)[0]]
    for k in range(120):
        q[0] += min(k * 8.0 * DT, 2.0) * DT
        verdicts.append(supervisor.check(q.copy(), k * DT, k * DT))
        tools.append(forward_kinematics(FR3, verdicts[-1].sent)[0])
    speeds = np.linalg.norm(np.diff(tools, axis=0), axis=1) / DT
    assert any(v.rule == "tool_speed" for v in verdicts) and supervisor.fault is None
    assert 0.2 < speeds.max() <= 0.25
    first = next(v for v in verdicts if v.rule == "tool_speed")
    assert first.limit == 0.25 and 0.25 < first.asked < 0.4


def test_links_keep_apart_and_the_way_out_is_open():
    collision = SelfCollision(UR5E)
    supervisor = Supervisor(UR5E, collision=collision)
    home, dt = np.array(UR5E.home), UR5E.servo_dt
    supervisor.start(home, home)
    q, k = home.copy(), 0
    while supervisor.fault is None and k < 4000:  # fold the elbow until the wrist meets the upper arm
        q[2] += min(k * 5.0 * dt, 1.0) * dt
        verdict = supervisor.check(q.copy(), k * dt, k * dt)
        k += 1
    assert verdict.rule == "collision" and verdict.limit == module_collision.APART and " and " in verdict.joint
    while not supervisor.standing:
        supervisor.brake()
    assert collision.distance(supervisor.position)[0] > 0.5 * module_collision.APART
    supervisor.clear_fault(supervisor.sent, supervisor.sent)
    out = supervisor.position
    for i in range(200):
        out = out - np.array([0.0, 0.0, min(i * 5.0 * dt, 0.5) * dt, 0.0, 0.0, 0.0])
        assert supervisor.check(out.copy(), i * dt, i * dt).code is Code.PASS


@pytest.mark.parametrize("name", ROBOTS)
def test_no_arm_touches_itself_at_home(name):
    robot = ROBOTS[name]
    distance, pair = SelfCollision(robot).distance(np.array(robot.home))
    assert distance > module_collision.APART, pair
    assert SelfCollision.of(robot) is not None and SelfCollision.of(replace(robot, name="unheard-of")) is None


def test_one_source_drives_at_a_time_until_it_falls_silent():
    supervisor = started()
    assert supervisor.check(HOME, 0.0, 0.0, source="page").code is Code.PASS
    other = supervisor.check(HOME, DT, DT, source="leader")
    assert (other.code, other.rule, other.joint) == (Code.REJECT, "lease", "page")
    assert supervisor.check(HOME, 0.4, 0.4, source="page").code is Code.PASS
    assert supervisor.check(HOME, 0.8, 0.8, source="leader").rule == "lease"
    assert supervisor.check(HOME, 1.0, 1.0, source="leader").code is Code.PASS
    supervisor.release()
    assert supervisor.check(HOME, 1.005, 1.005, source="page").code is Code.PASS


def reading(joint_pos=HOME, **more) -> Reading:
    return Reading(0.0, 0.0, np.array(joint_pos), np.zeros(N), HOME, **more)


def test_a_fault_of_the_device_latches_by_its_name():
    supervisor = started()
    supervisor.observe(reading())
    assert supervisor.fault is None
    supervisor.observe(reading(fault="protective stop"))
    assert supervisor.fault is not None and str(supervisor.fault).startswith("REJECT device protective stop")


def test_joints_that_stay_behind_latch_and_a_short_lag_does_not():
    supervisor, behind = started(), HOME - 0.4 * np.eye(N)[3]
    for _ in range(20):  # 0.1 s
        supervisor.observe(reading(behind))
    assert supervisor.fault is None
    supervisor.observe(reading(HOME))
    for _ in range(21):
        supervisor.observe(reading(behind))
    assert supervisor.fault is not None
    assert (supervisor.fault.rule, supervisor.fault.joint) == ("tracking", "fr3_joint4")
    assert supervisor.fault.asked == pytest.approx(0.4) and supervisor.fault.limit == 0.35


def test_a_joint_measured_nowhere_latches_too():
    supervisor = started()
    for _ in range(21):
        supervisor.observe(reading(np.where(np.arange(N) == 2, np.nan, HOME)))
    assert supervisor.fault is not None and supervisor.fault.rule == "tracking"


def test_torque_at_its_limit_for_a_second_latches():
    supervisor, effort = started(), np.zeros(N)
    effort[5] = -12.0  # the limit of joint 6 [N m]
    for _ in range(200):
        supervisor.observe(reading(joint_effort=effort))
    assert supervisor.fault is None
    supervisor.observe(reading(joint_effort=effort))
    assert supervisor.fault is not None
    assert (supervisor.fault.rule, supervisor.fault.joint, supervisor.fault.limit) == ("effort", "fr3_joint6", 12.0)
