"""The servo log: a row of every servo period, from the control process to whoever reads along."""

import numpy as np
import pytest

from poise.real_robot.robot import Robot
from poise.real_robot.twin import Twin
from poise.robots import FR3

GOAL = {"target_pos": np.array([0.5, 0.1, 0.4])}


@pytest.mark.parametrize("in_process", [True, False])
def test_every_command_is_a_row_with_what_was_asked_sent_and_measured(in_process):
    with Robot("twin:fr3", in_process) as robot:
        log, q = robot.servo_log(), robot.read().joint_pos_target
        log.read()
        asked = [q + 1e-4, q + 3e-4, q + 10.0]
        verdicts = [robot.command(target) for target in asked]
        records, sequence, missed = log.read()
        log.close()
    assert len(records) == 3 and missed == 0 and (np.diff(sequence) == 1).all()
    np.testing.assert_array_equal(records["asked"], asked)
    np.testing.assert_array_equal(records["sent"], [v.sent for v in verdicts])
    assert records["verdict"].tolist() == [int(v.code) for v in verdicts]
    assert records["rule"].tolist() == [v.rule.encode() for v in verdicts] and records["rule"][2] == b"position"
    np.testing.assert_allclose(np.diff(records["t_mono"]), 0.005)
    assert (np.diff(records["t_host"]) > 0).all() and not records["fault"].any()
    assert np.isfinite(records["joint_pos"]).all() and np.isfinite(records["gripper_pos"]).all()
    assert np.isnan(records["gripper_sent"]).all()


def test_a_policys_periods_are_logged_and_braking_asks_for_nothing(policy_path):
    with Robot("twin:fr3", in_process=True) as robot:
        log = robot.servo_log()
        rows = list(robot.run_episode(policy_path, GOAL, 5))
        during = log.read().records
        robot.stop()
        with pytest.raises(Exception, match="stopped"):
            robot.move_to(FR3.home)
        robot.command(np.zeros(7))
        after = log.read().records
        log.close()
    asked = np.isfinite(during["asked"]).all(1)
    assert asked[:50].all() and not asked[50:].any() and len(during) >= 50
    np.testing.assert_array_equal(during["sent"][9], rows[0]["joint_pos_target"])
    assert after[-1]["fault"] == b"operator" and after[-1]["verdict"] == 2 and after[-1]["rule"] == b"stopped"


def test_what_is_no_command_is_logged_as_unknown_and_an_effort_that_is_told_is_there():
    with Robot(Twin(FR3)) as robot:
        log = robot.servo_log()
        robot.command("nonsense")
        robot.command(np.zeros(3))
        records = log.read().records
        assert np.isnan(records["asked"]).all() and records["rule"].tolist() == [b"shape", b"stopped"]
        assert np.isfinite(records["joint_effort"]).all()
        log.close()
