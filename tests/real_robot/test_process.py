"""The control process: another process, one line of JSON between, and what happens when either side dies."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from conformance_robot import check_robot
from poise.errors import NotConnectedError, PolicyFileError, SpecError, UsageError
from poise.policies.runner import Runner
from poise.real_robot.channel import Channel
from poise.real_robot.robot import Robot

GOAL = {"target_pos": np.array([0.5, 0.1, 0.4])}


def gone(pid: int, within: float = 5.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def test_a_robot_in_its_own_process_does_what_a_robot_must():
    check_robot(lambda: Robot("twin:fr3?latency=0.02&noise=0.0002"))


def test_the_control_process_has_loaded_no_torch(policy_path):
    with Robot("twin:fr3") as robot:
        rows = list(robot.run_episode(policy_path, GOAL, 3))
        modules = robot._ask("modules")
    assert len(rows) == 4 and "mujoco" in modules and "poise.policies.runner" in modules
    heavy = [
        m
        for m in modules
        if m.split(".")[0] in ("torch", "onnx", "onnxruntime", "gymnasium", "matplotlib", "h5py", "multiprocessing")
    ]
    assert heavy == []
    assert "pickle" not in [m for m in modules if m.startswith("poise")]


def test_a_policy_with_a_memory_starts_each_episode_anew(recurrent_policy_path):
    runner = Runner.load(recurrent_policy_path)
    with Robot("twin:fr3", in_process=True) as robot:
        for _ in range(2):
            state = runner.initial_state(1)
            for row in robot.run_episode(recurrent_policy_path, GOAL, 4):
                if "obs" in row:
                    chunk, state = runner.act({"state": np.array([row["obs"]["state"]], np.float32)}, state)
                    np.testing.assert_allclose(row["actions_asked"], chunk[0, 0], atol=1e-6)
            assert np.abs(state["lstm.c"]).max() > 0.01


def test_both_ways_of_running_give_the_same_episode_to_the_bit(policy_path):
    def rows(in_process):
        with Robot("twin:fr3?noise=0.001&latency=0.04&mass=1.1", in_process) as robot:
            return list(robot.run_episode(policy_path, GOAL, 20)), robot.status()

    assert rows(True) == rows(False)


def test_a_killed_control_process_is_an_error_that_says_so(policy_path):
    robot = Robot("twin:fr3").connect()
    pid = robot._link.process.pid
    with pytest.raises(NotConnectedError, match="killed by signal 9"):
        for k, _ in enumerate(robot.run_episode(policy_path, GOAL, 100_000)):
            if k == 3:
                os.kill(pid, signal.SIGKILL)
    with pytest.raises(NotConnectedError, match="connect again"):
        robot.read()
    robot.close()
    with robot:
        assert robot.read().joint_pos.shape == (7,), "and connecting again works"


def test_a_control_process_that_fails_says_why_in_its_last_line(monkeypatch):
    code = textwrap.dedent("""
        import poise.real_robot.control as control, sys
        def broken(*_): raise RuntimeError('a bug in the loop')
        control.ControlLoop.command = broken
        sys.exit(control.main(sys.argv[1:]))
    """)
    popen = subprocess.Popen

    def start(command, **kwargs):
        return popen([sys.executable, "-c", code, *command[command.index("--fd") :]], **kwargs)

    monkeypatch.setattr("poise.real_robot.links.subprocess.Popen", start)
    robot = Robot("twin:fr3").connect()
    with pytest.raises(NotConnectedError, match="exit code 1: RuntimeError: a bug in the loop"):
        robot.command(np.zeros(7))
    robot.close()


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("realtime", [False, True])
def test_when_the_parent_is_killed_the_control_process_ends(policy_path, busy, realtime):
    code = f"""
import time
from poise.real_robot.robot import Robot
robot = Robot("twin:fr3?realtime={int(realtime)}").connect()
print(robot._link.process.pid, flush=True)
if {busy}:
    list(robot.run_episode({policy_path!r}, {{"target_pos": [0.5, 0.1, 0.4]}}, 1_000_000))
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    time.sleep(0.3)
    assert not gone(child, within=0.0)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)


def test_closing_ends_the_process_and_a_forgotten_close_does_not_hang():
    robot = Robot("twin:fr3").connect()
    pid = robot._link.process.pid
    robot.close()
    assert gone(pid, within=1.0)


def test_ctrl_c_is_left_to_the_parent_and_sigterm_ends_the_process():
    with Robot("twin:fr3") as robot:
        process = robot._link.process
        os.kill(process.pid, signal.SIGINT)
        assert robot.read().joint_pos.shape == (7,)
        os.kill(process.pid, signal.SIGTERM)
        assert gone(process.pid)
        with pytest.raises(NotConnectedError):
            robot.read()


def test_a_control_process_that_hangs_is_noticed(monkeypatch):
    monkeypatch.setattr("poise.real_robot.links.ANSWER_WAIT", 0.3)
    with Robot("twin:fr3") as robot:
        pid = robot._link.process.pid
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(NotConnectedError, match=r"has not answered for 0\.3 s"):
            robot.read()
    assert gone(pid), "close ends it all the same"


def test_in_real_time_the_arm_is_held_while_nobody_asks_anything(policy_path):
    with Robot("twin:fr3?realtime=1") as robot:
        before = robot.status()["counts"]["arrived"]
        time.sleep(0.5)
        after = robot.status()["counts"]["arrived"]
        assert 20 <= after - before <= 130
        rows = list(robot.run_episode(policy_path, GOAL, 10))
        took = rows[9]["t_mono"] - rows[0]["t_mono"]
        assert 0.4 <= took <= 3.0
        robot.stop()
        assert "operator" in robot.status()["fault"]
        assert robot.status()["counts"]["out_of_limit"] == 0


def test_stop_reaches_an_episode_in_the_other_process(policy_path):
    with Robot("twin:fr3?realtime=1") as robot:
        rows = []
        for row in robot.run_episode(policy_path, GOAL, 10_000):
            rows.append(row)
            if len(rows) == 3:
                robot.stop()
        assert len(rows) < 100 and "operator" in robot.fault
        robot.clear_fault()
        assert robot.fault == ""


def test_leaving_an_episode_early_leaves_a_robot_that_answers(policy_path):
    with Robot("twin:fr3") as robot:
        for _ in robot.run_episode(policy_path, GOAL, 100_000):
            break
        assert robot.fault == "" and robot.read().joint_pos.shape == (7,)


def test_errors_of_the_other_side_arrive_as_what_they_are(policy_path, tmp_path):
    with pytest.raises(UsageError, match="unknown robot"):
        Robot("twin:fr5")
    with Robot("twin:fr3") as robot:
        with pytest.raises(PolicyFileError, match="no policy file"):
            list(robot.run_episode(tmp_path / "no.safetensors", GOAL, 1))
        with pytest.raises(SpecError, match="target_pos"):
            list(robot.run_episode(policy_path, {}, 1))
        with pytest.raises(UsageError, match="runs policy files"):
            list(robot.run_episode(object(), GOAL, 1))
        assert robot.read().joint_pos.shape == (7,)


# ---- the line --------------------------------------------------------------------------------


@pytest.fixture
def pair():
    a, b = (Channel(end) for end in socket.socketpair())
    yield a, b
    a.close()
    b.close()


def test_messages_arrive_whole_in_order_and_to_the_bit(pair):
    a, b = pair
    sent = [{"x": 0.1 + 0.2, "y": [1e-320, -0.0, float("inf")]}, {}, {"text": "é" * 10_000}, {"z": None}]
    for message in sent:
        a.send(message)
    assert [b.receive() for _ in sent] == sent
    assert b.receive(timeout=0.0) is None and b.receive(timeout=0.01) is None
    a.send({"nan": float("nan")})
    assert np.isnan(b.receive()["nan"])


def test_a_closed_line_is_noticed_on_both_ways(pair):
    a, b = pair
    a.close()
    with pytest.raises(EOFError):
        b.receive()
    with pytest.raises(EOFError):
        b.send({})


def test_a_reader_that_sleeps_is_noticed(pair, monkeypatch):
    monkeypatch.setattr("poise.real_robot.channel.BACKLOG", 1 << 20)
    with pytest.raises(EOFError, match="stopped reading"):
        for _ in range(100):
            pair[0].send({"x": "y" * 100_000}, wait=False)


def test_an_endless_message_is_refused(pair):
    pair[0]._socket.send(b"\xff\xff\xff\xff")
    with pytest.raises(EOFError, match="at most"):
        pair[1].receive()
