"""The supervisor's rules for a stream of commands, one by one."""

import numpy as np
import pytest
from command_judge import DT, HOME, A, N, Oracle, V, drive, started

import poise.real_robot.supervisor as module
from poise.errors import LimitViolatedError, RobotError
from poise.kinematics import forward_kinematics
from poise.real_robot.supervisor import LATCH_AFTER, Code, Supervisor
from poise.robots import FR3, UR5E


def test_a_legal_command_passes_to_the_bit():
    supervisor = started()
    asked = HOME + 1e-5
    verdict = supervisor.check(asked, 0.0, 0.0)
    assert verdict.code is Code.PASS and str(verdict) == "PASS"
    assert np.array_equal(verdict.position, asked)
    asked[:] = np.nan
    assert np.isfinite(supervisor.position).all(), "the command's array stays the caller's"


def test_a_stream_at_exactly_the_limits_passes():
    supervisor, q, v, sent = started(), HOME.copy(), np.zeros(N), []
    for k in range(60):
        v = np.minimum(v + A * DT, V) if k < 20 else np.maximum(v - A * DT, 0.0)
        q = q + v * DT
        verdict = supervisor.check(q, k * DT, k * DT)
        assert verdict.code is Code.PASS, str(verdict)
        q = verdict.position
        sent.append(q)
    assert Oracle().judge(HOME, sent) == []


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        (None, "shape"),
        ([0.0] * 7, "shape"),
        ("home", "shape"),
        (np.zeros(6), "shape"),
        (np.zeros((1, 7)), "shape"),
        (np.zeros(7, int), "shape"),
        (np.zeros(7, object), "shape"),
        (np.zeros(7, complex), "shape"),
        (np.ma.masked_array(HOME, mask=True), "shape"),
        (np.full(7, np.nan), "finite"),
        (np.where(np.arange(7) == 3, np.inf, HOME), "finite"),
        (np.where(np.arange(7) == 6, -np.inf, HOME), "finite"),
    ],
)
def test_garbage_is_rejected_and_latches_a_stop_at_once(asked, rule):
    supervisor = started()
    verdict = supervisor.check(asked, 0.0, 0.0)
    assert (verdict.code, verdict.rule) == (Code.REJECT, rule)
    assert supervisor.fault is verdict
    assert np.array_equal(verdict.position, HOME)
    assert supervisor.check(HOME, DT, DT).rule == "stopped"


def test_a_non_finite_command_names_its_joint():
    verdict = started().check(np.where(np.arange(7) == 3, np.inf, HOME), 0.0, 0.0)
    assert verdict.joint == "fr3_joint4" and verdict.asked == np.inf
    assert "finite fr3_joint4" in str(verdict)


@pytest.mark.parametrize("age", [0.2, 1e9, np.inf, np.nan, -1.0])
def test_a_stale_or_future_reading_is_rejected(age):
    verdict = started().check(HOME, 0.0, 0.0 - age)
    assert (verdict.code, verdict.rule, verdict.joint) == (Code.REJECT, "stale", "reading")


@pytest.mark.parametrize("at", [-1.0, 1.0, np.nan])
def test_a_stale_or_future_command_is_rejected(at):
    verdict = started().check(HOME, 0.0, 0.0, at=at)
    assert (verdict.code, verdict.rule, verdict.joint) == (Code.REJECT, "stale", "command")


def test_replayed_and_reordered_commands_are_rejected():
    supervisor = started()
    assert supervisor.check(HOME, 1.0, 1.0, at=1.0).code is Code.PASS
    for at in (1.0, 0.99):
        verdict = supervisor.check(HOME, 1.0, 1.0, at=at)
        assert (verdict.rule, verdict.joint) == ("stale", "order")
    assert supervisor.check(HOME, 1.005, 1.005, at=1.005).code is Code.PASS


def test_one_late_packet_is_forgiven_and_a_series_is_not():
    supervisor = started()
    for k in range(31):  # every other one is late
        supervisor.check(HOME, k * DT, k * DT - (1.0 if k % 2 else 0.0))
    assert supervisor.fault is None
    for k in range(31, 31 + LATCH_AFTER["stale"]):
        assert supervisor.fault is None
        supervisor.check(HOME, k * DT, 0.0)
    assert supervisor.fault is not None and supervisor.fault.rule == "stale"


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_first_command_must_be_near_whichever_way_it_jumps(sign):
    asked = HOME.copy()
    asked[2] += sign * 0.06
    verdict = started().check(asked, 0.0, 0.0)
    assert (verdict.code, verdict.rule, verdict.joint) == (Code.REJECT, "start", "fr3_joint3")
    assert verdict.asked == pytest.approx(0.06) and verdict.limit == 0.05


def test_a_jump_is_clipped_to_what_acceleration_allows():
    supervisor = started()
    drive(supervisor, [HOME])
    asked = HOME.copy()
    asked[4] -= 0.5
    verdict = supervisor.check(asked, DT, DT)
    assert (verdict.code, verdict.rule, verdict.joint) == (Code.CLIP, "acceleration", "fr3_joint5")
    assert verdict.position[4] - HOME[4] == pytest.approx(-10.0 * DT * DT, rel=1e-6)  # by hand: a dt^2
    assert verdict.limit == pytest.approx(-10.0) and verdict.asked < -1000.0
    assert np.array_equal(np.delete(verdict.position, 4), np.delete(HOME, 4))


def test_a_far_target_is_approached_at_the_velocity_limit_and_reached_without_swinging():
    supervisor = started()
    asked = HOME.copy()
    asked[0] += 1.5
    verdicts = drive(supervisor, [HOME, *[asked] * 300])
    path = np.array([v.position[0] for v in verdicts])
    assert any(v.rule == "velocity" for v in verdicts)
    assert path.max() <= asked[0] + 1e-3
    assert path[-1] == pytest.approx(asked[0], abs=1e-9) and verdicts[-1].code is Code.PASS
    assert np.count_nonzero(np.diff(np.sign(np.diff(path[path != asked[0]])))) <= 1, "it turns back at most once"


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_joint_driven_at_its_end_stops_where_no_speed_towards_it_is_left(sign):
    """By hand: joint 7 may go towards 3.0196 rad by sqrt(2 a D) - 0.35 rad/s, a = 10 rad/s^2: none at D = 0.006125, and
    0.005 before it, since it may be measured further than it is commanded."""
    supervisor = started()
    asked = HOME.copy()
    asked[6] += sign * 100.0
    verdicts = drive(supervisor, [HOME, *[asked] * 600])
    end = FR3.position_high[6] if sign > 0 else FR3.position_low[6]
    assert verdicts[-1].rule == "position" and verdicts[-1].limit == pytest.approx(end)
    assert verdicts[-1].position[6] == pytest.approx(sign * (3.0196 - 0.011125), abs=1e-6)
    assert Oracle().judge(HOME, [v.position for v in verdicts]) == []


def test_a_pose_that_rounding_has_put_beyond_an_end_is_begun_from_at_the_end():
    supervisor = Supervisor(UR5E)
    end = np.where(np.arange(6) == 5, UR5E.position_high[5], np.array(UR5E.home))
    supervisor.start(end.astype(np.float32).astype(np.float64) + 1e-7, end)
    assert (supervisor.position <= UR5E.position_high).all()
    with pytest.raises(LimitViolatedError, match="wrist_3_joint stands at"):
        supervisor.start(end + 1e-5, end)


def test_the_speed_near_a_joint_end_leaves_room_for_braking():
    """The velocity stays legal all the way; only the distance that braking needs says no."""
    supervisor, q, hit = started(), HOME.copy(), None
    for k in range(2000):
        q[6] += min(k * 9.0 * DT, 5.0) * DT
        verdict = supervisor.check(q.copy(), k * DT, k * DT)
        if verdict.code is Code.CLIP:
            hit = verdict
            break
    assert hit is not None and hit.rule == "position" and q[6] < FR3.position_high[6]
    left, speed = FR3.position_high[6] - q[6], min(k * 9.0 * DT, 5.0)
    assert left == pytest.approx((speed + 0.35) ** 2 / (2 * 10.0), rel=0.05)  # by hand: slowing.py, (1) with a for d


def test_the_tool_never_leaves_its_box_and_pushing_on_latches_a_stop():
    supervisor = started()
    q, verdicts = HOME.copy(), []
    for k in range(2000):  # lean forward until the hand would meet the floor
        q[1] = q[1] + min(k * 8.0 * DT, 2.0) * DT
        verdicts.append(supervisor.check(q.copy(), k * DT, k * DT))
        if supervisor.fault:
            break
    assert verdicts[-1].rule == "workspace" and verdicts[-1].joint in "xyz"
    assert Oracle().judge(HOME, [v.position for v in verdicts]) == []
    assert supervisor.fault is verdicts[-1]
    first = next(v for v in verdicts if v.code is not Code.PASS)
    tool, _ = forward_kinematics(FR3, first.position)
    assert first.rule == "workspace" and np.abs(first.velocity).max() > 1.5, "it brakes while there is still room"
    assert (tool > np.array(FR3.workspace_low) + 0.02).all()


def test_only_clear_fault_releases_a_stop_and_only_at_standstill():
    supervisor = started()
    drive(supervisor, [HOME, *[HOME + 0.3] * 20])
    supervisor.latch("operator")
    with pytest.raises(RobotError, match="still braking"):
        supervisor.clear_fault(HOME, HOME)
    speeds = []
    while not supervisor.standing:
        verdict = supervisor.check(HOME, 1.0, 1.0)
        assert (verdict.code, verdict.rule) == (Code.REJECT, "stopped")
        speeds.append(np.abs(verdict.velocity).max())
    assert len(speeds) < 25 and (np.diff(speeds) < 0).all()
    here = supervisor.position
    supervisor.clear_fault(here, here)
    assert supervisor.fault is None
    assert supervisor.check(here + 0.5, 2.0, 2.0).rule == "start", "a cleared arm starts as a new one"
    assert supervisor.check(here, 2.0, 2.0).code is Code.PASS


def test_an_arm_that_stands_out_of_limits_is_refused_with_the_joint_named():
    outside = HOME.copy()
    outside[3] = 0.0
    with pytest.raises(LimitViolatedError, match=r"fr3_joint4 stands at 0 .*move it back by hand"):
        started(outside)
    folded = HOME.copy()
    folded[1], folded[3] = 1.7, -0.2
    with pytest.raises(LimitViolatedError, match="tool stands at z"):
        started(folded)
    with pytest.raises(LimitViolatedError, match="fr3_joint1 is measured at 1 rad"):
        Supervisor(FR3).start(HOME, HOME + np.eye(7)[0])


@pytest.mark.parametrize("velocity", np.linspace(0.0, 5.0, 23))
def test_the_braking_distance_formula_is_exact_in_discrete_time(velocity):
    """`_approach` inverts the sum that braking step by step gives, to rounding."""
    step = 10.0 * module.INSIDE * DT
    travelled, v = velocity * DT, velocity
    while v > 0:
        v = max(v - step, 0.0)
        travelled += v * DT
    assert Supervisor(FR3)._approach(np.full(7, travelled))[0] == pytest.approx(velocity, abs=1e-9)
