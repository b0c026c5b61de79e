"""Policies that think slowly, in the control process or in one of their own: late, hung, dead, and seams between plans."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from poise.errors import NotConnectedError, UsageError
from poise.policies.runner import Runner
from poise.real_robot.robot import Robot
from poise.real_robot.thinking import Apart
from poise.robots import FR3
from poise.sim.tasks.reach import reach_spec

HOME, DT = np.array(FR3.home), FR3.servo_dt
GOAL = {"target_pos": np.array([0.5, 0.1, 0.4])}
SPEC = reach_spec()


class Planner:
    """A stand-in for a runner that plans H actions: the first joint goes on from its target at 0.4 rad/s."""

    def __init__(self, horizon: int, wrong: float = 0.0):
        term = replace(SPEC.actions[0], reference="home", home=FR3.home, scale=(1.0,) * 7, lead=(3.0,) * 7)
        self.spec = replace(SPEC, actions=(term,), action_horizon=horizon)
        self._wrong, self._rng = wrong, np.random.default_rng(0)

    def initial_state(self, n):
        return {"step": np.zeros(n, int)}

    def act(self, obs, state):
        seen, where = obs["state"][0], self.spec.slices("state")
        target = float(seen[where["joint_pos"]][0] + seen[where["target_error"]][0])
        error = self._wrong * self._rng.normal()  # every plan is off by something of its own
        rows = np.zeros((1, self.spec.action_horizon, 7))
        rows[0, :, 0] = target + error + 0.4 * self.spec.control_dt * np.arange(1, self.spec.action_horizon + 1)
        return rows, {"step": state["step"] + 1}


def rows_of(robot, policy, steps, **how):
    return [row for row in robot.run_episode(policy, GOAL, steps, **how) if "last_obs" not in row]


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3])
def test_a_plan_that_comes_late_is_joined_at_the_row_of_the_present(delay):
    with Robot("twin:fr3", in_process=True) as robot:
        rows = rows_of(robot, Planner(16), 40, delay=delay)
        counts = robot.status()["counts"]
    first = round(delay / SPEC.control_dt)
    asked = np.array([row["actions_asked"][0] for row in rows])
    assert np.isnan(asked[:first]).all() and np.isfinite(asked[first + 1 :]).all()
    sent = np.array([row["joint_pos_target"][0] for row in rows])
    np.testing.assert_allclose(np.diff(asked[first + 1 :]), 0.4 * SPEC.control_dt, atol=1e-6)  # no step at any seam
    assert (np.diff(sent) > -1e-9).all(), "and never back"
    assert counts["out_of_limit"] == 0 and counts["rejected"] == 0


@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3])
def test_a_seam_between_plans_that_disagree_steps_by_less_than_a_milliradian(delay):
    with Robot("twin:fr3", in_process=True) as robot:
        sent, write = [], robot._link._driver.write
        robot._link._driver.write = lambda q, g=None: (sent.append(q[0]), write(q, g))[1]
        rows = rows_of(robot, Planner(16, wrong=0.03), 60, delay=delay)
    asked = np.array([row["actions_asked"][0] for row in rows])
    asked = asked[np.isfinite(asked)]
    assert np.abs(np.diff(asked)).max() > 0.03, "the plans disagree by tens of milliradians"
    steps = np.diff(sent)
    assert np.abs(np.diff(steps)).max() < 1e-3 and np.abs(np.diff(steps)).max() <= 10.0 * DT**2 * 1.001


def test_a_policy_slower_than_its_plan_is_long_is_stopped():
    with Robot("twin:fr3", in_process=True) as robot:
        rows = rows_of(robot, Planner(1), 200, delay=0.2)
        assert "policy late" in robot.status()["fault"] and len(rows) < 40
        assert np.abs(np.array([row["joint_pos_target"] for row in rows]) - rows[0]["joint_pos_target"]).max() < 1e-9


def test_chunks_of_a_file_are_played_row_by_row(chunk_policy_path):
    runner = Runner.load(chunk_policy_path)
    with Robot("twin:fr3", in_process=True) as robot:
        rows = rows_of(robot, chunk_policy_path, 10)
    for row in rows:
        chunk, _ = runner.act({"state": np.array(row["obs"]["state"], np.float32)[None]}, {})
        assert chunk.shape == (1, 8, 7)
        np.testing.assert_allclose(row["actions_asked"], chunk[0, 0], atol=1e-6)


@pytest.mark.parametrize("torch", [False, True])
def test_a_policy_in_its_own_process_acts_as_in_this_one(chunk_policy_path, torch):
    runner = Runner.load(chunk_policy_path)
    with Robot("twin:fr3?realtime=1") as robot:
        rows = rows_of(robot, chunk_policy_path, 20, apart=True, torch=torch)
        assert robot.fault == ""
    plans = np.array([runner.act({"state": np.array(r["obs"]["state"], np.float32)[None]}, {})[0][0] for r in rows])
    matches = 0
    for k, row in enumerate(rows):
        recent = [plans[k - j][j] for j in range(min(k, 7) + 1)]  # row j of the plan of j periods ago
        matches += any(np.allclose(row["actions_asked"], plan, atol=1e-5) for plan in recent)
    assert matches >= 17, "but for the first, whose answer is not there yet, and hiccups of a busy machine"


def test_simulated_time_does_not_wait_for_another_process(policy_path):
    with Robot("twin:fr3") as robot, pytest.raises(UsageError, match="simulated arm"):
        list(robot.run_episode(policy_path, GOAL, 3, apart=True))


def test_a_policy_file_that_cannot_be_read_is_told_by_its_own_process():
    thinking = Apart("missing.safetensors", SPEC)
    with pytest.raises(NotConnectedError, match=r"did not start: .*missing\.safetensors"):
        while not thinking.ready():
            time.sleep(0.01)
    thinking.close()


@pytest.mark.parametrize(("how", "fault", "within"), [(signal.SIGKILL, "process died", 0.05), (signal.SIGSTOP, "policy", 0.2)])  # fmt: skip
def test_a_policy_that_dies_or_hangs_brakes_the_arm(chunk_policy_path, how, fault, within):
    with Robot("twin:fr3?realtime=1") as robot:
        hit, verdicts = None, []
        for row in robot.run_episode(chunk_policy_path, GOAL, 60, apart=True):
            if "verdict" in row:
                verdicts.append((row["t_mono"], row["verdict"]))
            if len(verdicts) == 10 and hit is None:
                hit = time.monotonic()
                os.kill(thinker_of(robot), how)
        assert fault in robot.status()["fault"]
        assert robot.status()["state"] == "FAULT"
        first = next(t for t, verdict in verdicts if verdict == 2)
        assert first - hit < within + SPEC.control_dt
        assert robot.status()["counts"]["out_of_limit"] == 0
        robot.clear_fault()
        assert len(rows_of(robot, chunk_policy_path, 5, apart=True)) == 5, "and a new one takes its place"


def thinker_of(robot) -> int:
    """The process id of the policy's process, a child of the control process."""
    control = robot._link.process.pid
    for child in Path(f"/proc/{control}/task/{control}/children").read_text().split():
        if "poise.real_robot.thinker" in Path(f"/proc/{child}/cmdline").read_text():
            return int(child)
    raise AssertionError("the policy has no process of its own")
