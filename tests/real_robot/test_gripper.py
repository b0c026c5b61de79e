"""The gripper's half of a command: its rules, hand-computed; and policies that move it, through the control loop."""

import math

import numpy as np
import pytest

from poise.errors import LimitViolatedError, UsageError
from poise.real_robot.gripper_guard import GripperGuard, share_of
from poise.real_robot.robot import Robot
from poise.real_robot.supervisor import Code, Supervisor
from poise.robots import FR3, SO101, Gripper
from poise.sim.make import load_task
from poise.spec import ActionTerm

HOME, DT = np.array(FR3.home), FR3.servo_dt
STEP = 0.4 * DT  # [m] of the FR3's fingers in one servo period


def started(measured=0.0):
    supervisor = Supervisor(FR3)
    supervisor.start(HOME, HOME)
    supervisor.gripper.observe(measured)
    return supervisor


def ask(supervisor, gripper, k=0):
    return supervisor.check(HOME, k * DT, k * DT, gripper=gripper)


def test_a_command_within_range_and_rate_passes_and_the_next_sets_out_from_it():
    supervisor = started()
    for k in range(1, 11):
        verdict = ask(supervisor, 0.99 * k * STEP, k)
        assert verdict.code is Code.PASS and verdict.gripper == 0.99 * k * STEP
    assert ask(supervisor, None, 11).gripper is None, "nobody asks: it is left alone"


@pytest.mark.parametrize(
    ("measured", "asked", "rule", "sent"),
    [
        (0.0, 0.04, "gripper_velocity", STEP),
        (0.04, 0.0, "gripper_velocity", 0.04 - STEP),
        (0.04, 0.041, "gripper_range", 0.04),
        (0.0, -1e-3, "gripper_range", 0.0),
        (0.0, 1e9, "gripper_range", STEP),
        (math.nan, 0.03, "", 0.03),  # the device does not tell where its fingers are
        (0.05, 0.039, "", 0.039),  # open a little beyond the end, as a sensor may say
    ],
)
def test_what_leaves_its_range_or_its_rate_is_clipped(measured, asked, rule, sent):
    verdict = ask(started(measured), asked)
    assert verdict.rule == rule and verdict.code is (Code.CLIP if rule else Code.PASS)
    assert verdict.gripper == pytest.approx(sent, abs=1e-9) and (not rule or verdict.joint == "gripper")


@pytest.mark.parametrize(("asked", "rule"), [(math.nan, "finite"), (math.inf, "finite"), (-math.inf, "finite"),
                                             ("open", "shape"), ([0.01], "shape"), (True, "shape")])  # fmt: skip
def test_what_is_no_number_rejects_the_whole_command_and_latches(asked, rule):
    supervisor = started()
    verdict = ask(supervisor, asked)
    assert (verdict.code, verdict.rule, verdict.joint) == (Code.REJECT, rule, "gripper")
    assert verdict.gripper is None and supervisor.fault is verdict


def test_one_command_is_one_verdict():
    """What rejects the joints leaves the gripper alone: lease, age and order hold for both."""
    supervisor = started(0.02)
    assert supervisor.check(HOME, 0.0, 0.0, at=-1.0, gripper=0.02).rule == "stale"
    assert supervisor.gripper.sent is None
    assert supervisor.check(HOME, 0.0, 0.0, source="page", gripper=0.0195).code is Code.PASS
    verdict = supervisor.check(HOME, DT, DT, source="leader", gripper=0.02)
    assert verdict.rule == "lease" and verdict.gripper is None and supervisor.gripper.sent == 0.0195
    supervisor.latch("operator")
    assert ask(supervisor, 0.02, 2).gripper is None
    supervisor.clear_fault(HOME, HOME)
    assert supervisor.gripper.sent is None, "and then sets out from where it is measured"


def test_an_arm_without_a_gripper_takes_no_command_for_one():
    from dataclasses import replace

    supervisor = Supervisor(replace(FR3, gripper=None))
    supervisor.start(HOME, HOME)
    assert supervisor.check(HOME, 0.0, 0.0, gripper=0.01).rule == "shape"
    with Robot("twin:fr3?task=push/fr3", in_process=True) as robot:
        assert math.isnan(robot.read().gripper_pos)
        with pytest.raises(UsageError, match="moves no gripper"):
            robot.move_to(HOME, gripper=0.04)


@pytest.mark.parametrize("gripper", [FR3.gripper, SO101.gripper, Gripper("g", ("f",), 1.0, 0.0, "1", 0.1, 10.0)])
def test_random_commands_never_leave_range_or_rate(gripper):
    guard, rng = GripperGuard(gripper, 0.005), np.random.default_rng(0)
    low, high = sorted((gripper.closed, gripper.open))
    guard.observe(before := 0.5 * (low + high))
    for size in 10.0 ** rng.uniform(-6, 3, 2000):
        guard.sent = guard.judge(float(rng.normal() * size)).sent
        assert low <= guard.sent <= high and abs(guard.sent - before) <= gripper.velocity * 0.005
        before = guard.sent


def test_an_action_s_share_is_the_inverse_of_its_command():
    term = ActionTerm("gripper", "control", ("gripper",), (0.01,), (0.05,), unit="m")
    assert [share_of(term, x) for x in (0.01, 0.03, 0.05, 9.0)] == pytest.approx([-1.0, 0.0, 1.0, 1.0])


# ---- in the control loop ---------------------------------------------------------------------


class Scripted:
    """A policy for lift/fr3 that holds the arm and puts out numbers for the gripper, one after the other."""

    def __init__(self, grips, first=False):
        from dataclasses import replace

        spec = load_task("lift/fr3").spec
        self.spec = replace(spec, actions=spec.actions[::-1]) if first else spec
        self.grips, self.first, self.seen = list(grips), first, []

    def initial_state(self, n):
        return {"k": 0}

    def act(self, obs, state):
        self.seen.append(obs["state"][0])
        grip, arm = [self.grips[min(state["k"], len(self.grips) - 1)]], [0.0] * 7
        return np.array([[grip + arm if self.first else arm + grip]]), {"k": state["k"] + 1}


def run(robot, policy, steps):
    return list(robot.run_episode(policy, {}, steps, task="lift/fr3"))[:-1]


@pytest.mark.parametrize("first", [False, True])
def test_a_policy_opens_and_closes_the_fingers_and_the_rows_say_so(first):
    with Robot("twin:fr3?task=lift/fr3", in_process=True) as robot:
        log = robot.servo_log()
        policy = Scripted([1.0] * 20 + [-1.0] * 20 + [0.0], first)
        rows = run(robot, policy, 60)
        grip = 0 if first else 7
        where = policy.spec.slices("state")["gripper_pos"]
        fingers = np.array([seen[where][0] for seen in policy.seen])
        assert fingers[19] == pytest.approx(0.04, abs=2e-3) and fingers[39] == pytest.approx(0.0, abs=2e-3)
        assert fingers[59] == pytest.approx(0.02, abs=2e-3)
        assert [row["gripper_target"] for row in rows[2::20]] == pytest.approx([0.04, 0.0, 0.02])
        assert all(row["verdict"] == 0 for row in rows)
        assert {row["actions"][grip] for row in rows} == {1.0, -1.0, 0.0}
        records = log.read().records
        log.close()
        sent = records["gripper_sent"][np.isfinite(records["gripper_sent"])]
        assert np.abs(np.diff(sent)).max() <= STEP and np.array_equal(sent, records["gripper_asked"][-len(sent) :])
        counts = robot.status()["counts"]
        assert counts["clipped"] == counts["rejected"] == counts["out_of_limit"] == 0


def test_a_policy_whose_gripper_is_no_number_stops_the_arm_and_is_recorded_as_what_was_done():
    with Robot("twin:fr3?task=lift/fr3", in_process=True) as robot:
        rows = run(robot, Scripted([1.0] * 10 + [math.nan]), 20)
        assert len(rows) == 11 and "finite gripper" in robot.fault and "finite gripper" in rows[-1]["why"]
        assert math.isnan(rows[-1]["actions_asked"][7]) and rows[-1]["actions"][7] == pytest.approx(1.0)
        robot.clear_fault()
        robot.move_to(HOME, gripper=0.01)
        assert robot.read().gripper_pos == pytest.approx(0.01, abs=1e-3)


def test_a_move_ends_with_the_fingers_where_they_were_sent_or_where_something_holds_them():
    with Robot("twin:fr3", in_process=True) as robot:
        for goal in (0.04, 0.0, 0.025):
            robot.move_to(HOME, gripper=goal)
            assert robot.read().gripper_pos == pytest.approx(goal, abs=1e-3)
        with pytest.raises(LimitViolatedError, match=r"gripper: asked for 0.08 m, outside"):
            robot.move_to(HOME, gripper=0.08)
        verdict = robot.command(HOME, gripper=0.0)
        assert (verdict.code, verdict.rule) == (Code.CLIP, "gripper_velocity") and 0.02 < verdict.gripper < 0.025
