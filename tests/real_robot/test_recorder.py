"""The recorder: a process of its own, whose file is whole at every moment, and whose trouble never stops the arm."""

import os
import resource
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from poise.datasets.check import check
from poise.datasets.episodes import EpisodeFile, environment
from poise.errors import DatasetError
from poise.real_robot.deploy import deploy
from poise.real_robot.recording import Recording
from poise.real_robot.ring import RingWriter, make_ring
from poise.real_robot.robot import Robot
from poise.sim.tasks.reach import reach_spec

GOAL = {"target_pos": np.array([0.5, 0.1, 0.4])}
COPIED = ("actions_asked", "actions", "joint_pos_target", "verdict", "t_mono", "t_device")


def test_a_recording_holds_episodes_and_every_servo_period_and_the_checks_accept_it(policy_path, tmp_path):
    out = tmp_path / "out.hdf5"
    summary = deploy(policy_path, "twin:fr3", episodes=2, record=out)
    assert summary["recording_fault"] == "" and summary["recording_missed"] == 0
    report = check(out)
    assert not report.worst(), report.findings
    assert report.episodes == 2 and report.steps == 200
    with EpisodeFile(out) as file, h5py.File(out) as h5:
        servo = h5["log/servo"]
        judged = np.isfinite(servo["asked"][:]).all(1)
        assert judged.sum() == summary["commands"] and "missed" not in servo.attrs
        np.testing.assert_allclose(np.diff(servo["t_mono"][:]), 0.005, atol=1e-9)
        episode = file["demo_1"]
        rows = np.searchsorted(servo["t_mono"][:], episode["t_mono"] - 1e-9)
        np.testing.assert_allclose(servo["joint_pos"][:][rows], episode["obs"]["state"][:, :7], atol=1e-6)
        np.testing.assert_array_equal(servo["sent"][:][rows + 9], episode["joint_pos_target"])
        assert servo["sent"].shape[1] == 7 and servo["rule"].dtype == "S24"
    assert os.listdir(tmp_path) == ["out.hdf5"]


def run(robot, policy_path, recording, steps, then=lambda k: None):
    """An episode that is recorded; its rows."""
    rows, last = [], None
    for k, row in enumerate(robot.run_episode(policy_path, GOAL, steps)):
        if "last_obs" in row:
            last = row["last_obs"]
            break
        recording.step(row["obs"], {name: row[name] for name in COPIED} | {"rewards": 0.0})
        rows.append(row)
        then(k)
    return rows, last


def test_a_killed_recorder_loses_less_than_a_second_and_the_arm_goes_on(policy_path, tmp_path, caplog):
    out = tmp_path / "out.hdf5"
    with Robot("twin:fr3?realtime=1") as robot:
        recording = Recording(out, reach_spec(), environment("x"), robot)
        killed = []

        def kill(k):
            if k == 40:
                killed.append(time.monotonic())
                os.kill(recording.process.pid, signal.SIGKILL)

        rows, last = run(robot, policy_path, recording, 60, kill)
        recording.end(last)
        assert len(rows) == 60 and robot.fault == "" and robot.status()["counts"]["out_of_limit"] == 0
        recording.close()
    assert "killed by signal 9" in recording.fault and caplog.text.count("killed by signal 9") == 1
    with EpisodeFile(out) as file, h5py.File(out) as h5:
        assert killed[0] - h5["log/servo/t_mono"][-1] < 1.0
        episode = file["demo_0"]
        assert killed[0] - episode["t_mono"][-1] < 1.0 and not file.log.filters
        assert episode["attributes"]["unfinished"] == 1 and not episode["dones"].any()
        np.testing.assert_allclose(
            episode["obs"]["state"], [row["obs"]["state"] for row in rows[: len(episode["dones"])]]
        )
    late = {"drift", "jitter", "dropped-frame", "time-gap", "time-backward"}  # of a machine that is busy
    assert {f.rule for f in check(out).findings if f.severity == "error"} <= late


def test_a_recorder_that_is_killed_while_it_writes_leaves_a_whole_file(tmp_path):
    for trial in range(2):
        out = tmp_path / f"{trial}.hdf5"
        with Robot("twin:fr3", in_process=True) as robot:
            recording = Recording(out, reach_spec(), environment("x"), robot)
            q = robot.read().joint_pos_target
            for k in range(300):
                robot.command(q)
                if k % 20 == 0:
                    recording.flush()
                if k == 200 + 20 * trial:
                    recording._send({"do": "flush"})
                    time.sleep(0.002 * trial)
                    os.kill(recording.process.pid, signal.SIGKILL)
            recording.close()
        with h5py.File(out) as h5:
            assert 180 <= len(h5["log/servo/t_mono"]) <= 301


def test_a_full_disk_is_told_and_stops_neither_arm_nor_file(policy_path, tmp_path, monkeypatch):
    out = tmp_path / "out.hdf5"
    popen = subprocess.Popen

    def small(command, **kwargs):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_400_000, 2_400_000))  # noqa: E731
        ignore = lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN), limit())  # noqa: E731
        return popen(command, preexec_fn=ignore if "poise.real_robot.recorder" in command else None, **kwargs)

    monkeypatch.setattr("poise.real_robot.recording.subprocess.Popen", small)
    summary = deploy(policy_path, "twin:fr3", episodes=4, record=out)
    assert summary["episodes"] == 4 and summary["faults"] == 0 and summary["out_of_limit"] == 0
    assert "too large" in summary["recording_fault"] and "Free some space" in summary["recording_fault"]
    with EpisodeFile(out) as file:
        assert 1 <= len(file) < 4
    assert os.listdir(tmp_path) == ["out.hdf5"]


def test_rows_that_the_recorder_came_too_late_for_are_counted(tmp_path):
    with Robot("twin:fr3", in_process=True) as robot:
        recording = Recording(tmp_path / "out.hdf5", reach_spec(), environment("x"), robot)
        robot._link._loop.log.ring = ring = RingWriter(make_ring(robot._link._loop.log.ring.dtype, 64))
        other = Recording(tmp_path / "two.hdf5", reach_spec(), environment("x"), robot)
        os.kill(other.process.pid, signal.SIGSTOP)
        q = robot.read().joint_pos_target
        for _ in range(100):
            robot.command(q)
        os.kill(other.process.pid, signal.SIGCONT)
        other.flush()
        assert other.missed["servo"] == 100 - other.rows["servo"] > 30
        for each in (other, recording):
            each.close()
        ring.close()
    with h5py.File(tmp_path / "two.hdf5") as h5:
        assert h5["log/servo"].attrs["missed"] == other.missed["servo"]


def test_nobody_waits_for_a_recorder_that_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr("poise.real_robot.channel.BACKLOG", 100_000)
    with Robot("twin:fr3", in_process=True) as robot:
        recording = Recording(tmp_path / "out.hdf5", reach_spec(), environment("x"), robot)
        os.kill(recording.process.pid, signal.SIGSTOP)
        began, steps = time.monotonic(), 0
        while not recording.fault and steps < 20_000:
            recording.step({"state": np.zeros(24)}, {"rewards": 0.0})
            steps += 1
        assert "hangs" in recording.fault and steps > 100
        recording.close()
        assert time.monotonic() - began < 10.0 and recording.process.returncode == -signal.SIGKILL


def test_what_cannot_be_written_is_refused_before_anything_moves(tmp_path):
    (tmp_path / "taken.hdf5").write_text("mine")
    with Robot("twin:fr3", in_process=True) as robot:
        with pytest.raises(DatasetError, match="exists"):
            Recording(tmp_path / "taken.hdf5", reach_spec(), environment("x"), robot)
        with pytest.raises(DatasetError, match="cannot"):
            Recording("/proc/nowhere/out.hdf5", reach_spec(), environment("x"), robot)
    assert (tmp_path / "taken.hdf5").read_text() == "mine"


def test_the_recorder_outlives_whoever_recorded_and_finishes_the_file(policy_path, tmp_path):
    out = tmp_path / "out.hdf5"
    code = f"""
import sys, time, numpy as np
sys.path.insert(0, {os.path.dirname(__file__)!r})
from poise.datasets.episodes import environment
from poise.real_robot.recording import Recording
from poise.real_robot.robot import Robot
from poise.sim.tasks.reach import reach_spec
robot = Robot("twin:fr3").connect()
recording = Recording({str(out)!r}, reach_spec(), environment("x"), robot)
print(recording.process.pid, flush=True)
for _ in range(50):
    robot.command(robot.read().joint_pos_target)
print("done", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    recorder = int(process.stdout.readline())
    assert process.stdout.readline() == "done\n"
    process.kill()
    process.wait()
    process.stdout.close()
    end = time.monotonic() + 10
    while os.path.exists(f"/proc/{recorder}") and time.monotonic() < end:
        with open(f"/proc/{recorder}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":
                break
        time.sleep(0.01)
    with h5py.File(out) as h5:
        assert np.isfinite(h5["log/servo/asked"][:]).all(1).sum() == 50
