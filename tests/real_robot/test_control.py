"""The control loop in process, on simulated time: parity with simulation, hostile policies, faults of the device."""

import contextlib
import threading

import numpy as np
import pytest

import poise.real_robot.control as control
import poise.real_robot.control_loop as control_loop
from conformance_robot import check_robot
from poise.action import joint_pos_target
from poise.errors import LimitViolatedError, NotConnectedError, RobotError, SpecError, UsageError
from poise.policies.runner import Runner
from poise.real_robot.robot import Robot
from poise.real_robot.route import Trail, is_clear, outside
from poise.real_robot.self_collision import SelfCollision
from poise.real_robot.supervisor import Code, Verdict
from poise.real_robot.twin import Twin, TwinOptions
from poise.robots import FR3, ROBOTS
from poise.sim.tasks.reach import reach_spec

HOME, DT = np.array(FR3.home), FR3.servo_dt
GOAL = {"target_pos": np.array([0.5, 0.1, 0.4])}


class Scripted:
    """A stand-in for a runner: the actions of a list, or of a function of the observation."""

    def __init__(self, actions, spec=None):
        self.spec = spec or reach_spec()
        self._actions, self.seen = actions, []

    def initial_state(self, n):
        return {"step": np.zeros(n, int)}

    def act(self, obs, state):
        self.seen.append(obs["state"][0].copy())
        step = int(state["step"][0])
        action = self._actions(obs["state"][0]) if callable(self._actions) else self._actions[step % len(self._actions)]
        return np.asarray(action, np.float32)[None, None], {"step": state["step"] + 1}


def run(robot, runner, steps=20, goal=GOAL):
    rows = list(robot.run_episode(runner, goal, steps))
    return [row for row in rows if "last_obs" not in row]


@pytest.mark.parametrize("address", [*(f"twin:{name}" for name in ROBOTS),
                                     "twin:fr3?latency=0.04&noise=0.0005&mass=1.1&gain=0.9"])  # fmt: skip
def test_a_robot_in_process_does_what_a_robot_must(address):
    check_robot(lambda: Robot(address, in_process=True))


# ---- parity ----------------------------------------------------------------------------------


def test_one_action_gives_the_same_joint_commands_in_simulation_and_on_the_arm():
    """The twin gets, servo period by servo period, what the simulator's command path gives for the same actions.

    The simulator's path is given the arm's own measured positions, so that nothing but the mapping is compared.
    """
    import mujoco

    from poise.sim.commands import Commands
    from poise.sim.tasks.reach import Reach

    rng = np.random.default_rng(5)
    actions = rng.uniform(-1, 1, (30, 7)).astype(np.float32)
    twin = Twin(FR3, TwinOptions(noise=0.001))
    arrived, measured = [], []
    write, read = twin.write, twin.read
    twin.write = lambda q, gripper=None: (arrived.append(np.array(q)), write(q))[1]
    twin.read = lambda: (measured.append(read()), measured[-1])[1]
    task = Reach()
    with Robot(twin) as robot:
        arrived.clear(), measured.clear()
        run(robot, Scripted(actions), steps=len(actions))
    description = task.model()
    description.option.timestep = task.physics_dt
    model = description.compile()
    assert isinstance(model, mujoco.MjModel)
    commands = Commands(task.spec, model, 1, 10, 0)
    commands.reset(np.array([0]), HOME[None])
    for step, action in enumerate(actions):
        seen = measured[10 * step].joint_pos[None]
        expected = commands.step(action[None].astype(np.float64), seen, np.zeros(1, int))[0]
        np.testing.assert_allclose(arrived[10 * step : 10 * step + 10], expected, atol=1e-12, rtol=0)


def test_the_observation_is_that_of_the_task():
    """Every number of the first and a later observation, against the task's own `observe`."""
    from poise.observe import observe
    from poise.sim.task import State
    from poise.sim.tasks.reach import Reach

    task, scripted = Reach(), Scripted([np.full(7, 0.3)])
    with Robot("twin:fr3", in_process=True) as robot:
        rows = run(robot, scripted, steps=3)
        target = HOME.copy()
        for k, seen in enumerate(scripted.seen):
            joint_pos, joint_vel = seen[None, :7].astype(float), seen[None, 7:14].astype(float)
            state = State(
                None, joint_pos, joint_vel, {"arm": target[None]}, {}, {"target_pos": GOAL["target_pos"][None]}
            )
            expected = observe(task.spec, task.observe(state))["state"][0]
            np.testing.assert_allclose(seen, expected, atol=1e-6)
            assert np.array_equal(np.float32(rows[k]["obs"]["state"]), seen)
            target = joint_pos_target(task.spec.actions[0], np.full(7, np.float32(0.3), float), joint_pos[0], target)


# ---- hostile policies ------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_policy_that_puts_out_garbage_is_stopped_and_the_arm_stands(bad):
    broken = np.zeros(7)
    broken[4] = bad
    with Robot("twin:fr3", in_process=True) as robot:
        rows = run(robot, Scripted([np.full(7, 0.5)] * 5 + [broken]))
        assert len(rows) == 6 and rows[-1]["verdict"] == Code.REJECT and "finite fr3_joint5" in rows[-1]["why"]
        assert np.isnan(rows[-1]["actions_asked"][4]) or np.isinf(rows[-1]["actions_asked"][4])
        assert np.abs(rows[-1]["actions"]).max() <= 1.0, "what was executed is a number all the same"
        assert "finite" in robot.fault
        with pytest.raises(RobotError, match="clear_fault"):
            run(robot, Scripted([np.zeros(7)]))
        with pytest.raises(RobotError, match="clear_fault"):
            robot.move_to(HOME)
        robot.clear_fault()
        robot.move_to(HOME)
        assert robot.status()["counts"]["out_of_limit"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_wild_policies_never_get_a_command_out_of_limits_to_the_device(seed):
    rng = np.random.default_rng(seed)
    size = [1.0, 1.0, 100.0, 1e30][seed]
    with Robot("twin:fr3?latency=0.04&noise=0.001", in_process=True) as robot:
        for _ in range(3):
            for row in run(robot, Scripted(lambda obs: size * np.sign(rng.normal(size=7))), 60):
                assert np.abs(row["actions"]).max() <= 1.0
            for speed in (0.2, 0.05, 0.05, 0.05):  # a hand that was pressed into the floor catches on its way out
                if robot.status()["fault"]:
                    robot.clear_fault()
                with contextlib.suppress(LimitViolatedError):
                    robot.move_to(HOME, speed)
                    break
            assert np.abs(robot.read().joint_pos_target - HOME).max() < 1e-5
        counts = robot.status()["counts"]
    assert counts["out_of_limit"] == 0 and counts["commands"] > 1000


class NoSupervisor(control_loop.Supervisor):
    """Lets everything through: what the path would be without its guard."""

    def check(self, asked, now, reading_time, at=None, wall=0.0, source="", gripper=None):
        self._sent(np.array(asked), (asked - self.position) / FR3.servo_dt)
        return Verdict(Code.PASS, "", "", np.nan, np.nan, self.position, self.velocity, self.sent)


@pytest.mark.parametrize("guarded", [True, False])
def test_without_the_supervisor_the_twins_own_counter_counts(guarded, monkeypatch):
    if not guarded:
        monkeypatch.setattr(control_loop, "Supervisor", NoSupervisor)
    rng = np.random.default_rng(0)
    with Robot("twin:fr3", in_process=True) as robot:
        for _ in range(200):
            robot.command(HOME + rng.normal(size=7) * 0.02)
        counts = robot.status()["counts"]
    assert counts["arrived"] >= 200
    assert counts["out_of_limit"] == 0 if guarded else counts["out_of_limit"] > 150


def test_what_the_supervisor_clips_is_recorded_as_executed(monkeypatch):
    """A policy whose path is faster than the arm allows: the row says so, and what was carried out."""
    monkeypatch.setattr(control, "check_match", lambda *_: None)  # such a Spec is refused before it gets so far
    from dataclasses import replace

    spec = reach_spec()
    fast = replace(spec, actions=(replace(spec.actions[0], max_velocity=(50.0,) * 7, max_acceleration=(500.0,) * 7),))
    with Robot("twin:fr3", in_process=True) as robot:
        rows = run(robot, Scripted([np.ones(7)], spec=fast), steps=2)
        assert rows[0]["verdict"] == Code.CLIP and "acceleration" in rows[0]["why"]
        executed = (np.array(rows[0]["joint_pos_target"]) - HOME) / 0.1
        np.testing.assert_allclose(rows[0]["actions"], np.clip(executed, -1, 1), atol=1e-12)
        assert rows[0]["actions_asked"] == [1.0] * 7
        assert robot.status()["counts"]["clipped"] > 0 and robot.status()["counts"]["out_of_limit"] == 0


def test_a_policy_that_pushes_into_the_floor_is_held_off_and_the_way_back_is_found():
    down = np.zeros(7)
    down[1], down[3] = 1.0, 0.6
    with Robot("twin:fr3", in_process=True) as robot:
        rows = run(robot, Scripted([down]), steps=200)
        assert len(rows) < 200 and "workspace" in robot.fault
        assert robot.truth()["tool_pos"][2] > FR3.workspace_low[2]
        robot.clear_fault()
        robot.move_to(HOME)
        assert np.abs(robot.read().joint_pos_target - HOME).max() < 1e-5
        assert robot.status()["counts"]["out_of_limit"] == 0


# ---- interruptions ---------------------------------------------------------------------------


def test_leaving_the_loop_early_brakes_and_latches_nothing():
    with Robot("twin:fr3", in_process=True) as robot:
        for k, _ in enumerate(robot.run_episode(Scripted([np.ones(7)]), GOAL, 1000)):
            if k == 5:
                break
        time = robot.status()["time"]
        assert time < 1.0 and robot.fault == ""
        held = robot.read().joint_pos_target
        verdict = robot.command(held)
        assert verdict.code is Code.PASS and not verdict.velocity.any(), "it stands"


def test_stop_in_the_middle_of_an_episode_brakes_and_latches():
    with Robot("twin:fr3", in_process=True) as robot:
        rows = []
        for row in robot.run_episode(Scripted([np.ones(7)]), GOAL, 1000):
            rows.append(row)
            if len(rows) == 5:
                threading.Thread(target=robot.stop).run()
        assert len(rows) <= 7 and "operator" in robot.fault
        assert robot.status()["counts"]["out_of_limit"] == 0


# ---- the device's faults ---------------------------------------------------------------------


class Flaky(Twin):
    """A twin whose line can be cut and whose readings can stop coming."""

    cut, frozen = False, None

    def read(self):
        if self.cut:
            raise NotConnectedError("the line is dead")
        reading = super().read()
        return reading if self.frozen is None else reading._replace(time=self.frozen)


def test_a_device_that_goes_away_is_latched_and_comes_back_only_by_clear_fault():
    twin = Flaky(FR3)
    with Robot(twin) as robot:
        with pytest.raises(NotConnectedError, match="line is dead"):
            for row in robot.run_episode(Scripted([np.ones(7)]), GOAL, 100):
                twin.cut = row["t_mono"] > 0.4
        arrived = twin.counters()["arrived"]
        with pytest.raises(NotConnectedError):
            robot.command(HOME)
        twin.cut = False
        assert "device" in robot.status()["fault"]
        with pytest.raises(NotConnectedError, match="clear_fault"):
            robot.command(HOME)
        assert twin.counters()["arrived"] == arrived, "nothing was sent in between"
        robot.clear_fault()
        robot.move_to(HOME)
        assert twin.counters()["out_of_limit"] == 0


def test_readings_that_stop_coming_brake_the_arm_and_latch():
    twin = Flaky(FR3)
    with Robot(twin) as robot:
        for row in robot.run_episode(Scripted([np.ones(7)]), GOAL, 100):
            if twin.frozen is None and row.get("t_mono", 0.0) > 0.3:
                twin.frozen = row["t_mono"]
        assert "stale" in robot.fault
        assert np.abs(robot.truth()["joint_vel"]).max() < 1.0 and twin.counters()["out_of_limit"] == 0


# ---- requests --------------------------------------------------------------------------------


def test_a_policy_for_another_arm_is_refused_and_nothing_moves():
    from dataclasses import replace

    with Robot("twin:fr3", in_process=True) as robot:
        with pytest.raises(SpecError, match="robot: the policy is for 'ur5e'"):
            run(robot, Scripted([np.ones(7)], spec=replace(reach_spec(), robot="ur5e")))
        with pytest.raises(SpecError, match="target_pos"):
            run(robot, Scripted([np.ones(7)]), goal={})
        assert robot.status()["time"] == 0.0


def test_requests_that_make_no_sense_are_answered_by_one_clear_error():
    with Robot("twin:fr3", in_process=True) as robot:
        for pose in ([0.0] * 6, "home", None):
            with pytest.raises(UsageError, match="7 joint positions"):
                robot.move_to(pose)
        for speed in (0.0, 1.5, np.nan):
            with pytest.raises(UsageError, match="fraction of the arm's limits"):
                robot.move_to(HOME, speed)
        with pytest.raises(LimitViolatedError, match="fr3_joint4"):
            robot.move_to(np.where(np.arange(7) == 3, np.nan, HOME))
        for target in ("home", None, [1, 2], [[0.0]], {"a": 1}):
            assert robot.command(target).code is Code.REJECT
            robot.clear_fault()
        with pytest.raises(UsageError, match="knows no request 'dance'"):
            robot._ask("dance")


# ---- ways back -------------------------------------------------------------------------------


def test_a_move_whose_straight_line_leaves_the_box_goes_back_as_it_came():
    trail, down = Trail(FR3), HOME.copy()
    down[1], down[3] = 1.7, -0.2
    with pytest.raises(LimitViolatedError, match="outside the workspace"):
        trail.begin(HOME)
        trail.route(HOME, down)
    left, right = HOME.copy(), HOME.copy()
    left[[1, 3, 5]], right[[1, 3, 5]] = (-1.1, -0.4, 2.9), (-0.1, -0.7, 2.3)
    assert outside(FR3, np.stack([left, right])).max() < -0.03 and not is_clear(FR3, left, right)
    trail.begin(right)
    for share in np.linspace(0, 1, 60):
        trail.passed(right + share * (HOME - right))
    for share in np.linspace(0, 1, 60):
        trail.passed(HOME + share * (left - HOME))
    way = trail.route(left, right)
    assert np.array_equal(way[-1], right) and len(way) > 1
    for a, b in zip([left, *way], way, strict=False):
        assert is_clear(FR3, a, b)


def test_a_move_whose_straight_line_leads_past_the_shoulder_goes_back_as_it_came():
    links, folded = SelfCollision(FR3), np.array([0.626, -1.131, -0.264, -2.84, -0.6, 0.988, -0.168])
    assert links.distance(folded)[0] == pytest.approx(0.01, abs=1e-3), "a finger stands at the shoulder"
    assert is_clear(FR3, folded, HOME) and not is_clear(FR3, folded, HOME, links)
    trail, out = Trail(FR3, links), folded + 0.6 * np.eye(7)[3]
    trail.begin(HOME)
    for start, end in ((HOME, out), (out, folded)):
        assert is_clear(FR3, end, start, links)
        for share in np.linspace(0, 1, 60):
            trail.passed(start + share * (end - start))
    way = trail.route(folded, HOME)
    assert np.array_equal(way[-1], HOME) and len(way) > 1
    for a, b in zip([folded, *way], way, strict=False):
        assert is_clear(FR3, a, b, links)
    trail.begin(folded)
    with pytest.raises(LimitViolatedError, match="links apart"):
        trail.route(folded, HOME)


def test_runner_and_file_give_the_same_episode(policy_path):
    def rows(policy):
        with Robot("twin:fr3?noise=0.001", in_process=True) as robot:
            return run(robot, policy, steps=5)

    assert rows(policy_path) == rows(Runner.load(policy_path))
