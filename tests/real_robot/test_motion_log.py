"""Exciting motions: within every arm's limits, recorded whole, and enough to find what a twin hides."""

import dataclasses

import numpy as np
import pytest

from poise.datasets.episodes import EpisodeFile, EpisodeWriter, environment
from poise.errors import DatasetError, UsageError
from poise.real_robot.motion_log import exciting_motion, read_motions, record_motion
from poise.robots import ROBOTS
from poise.sim.identify import identify
from poise.sim.randomization import Randomization
from tests.sim.test_identify import DAMPING, LATENCY, PAYLOAD

TWIN = {"payload": 0.3, "damping": 1.5, "latency": 0.02}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("motion") / "motion.hdf5"
    options = "&".join(f"{name}={value}" for name, value in TWIN.items())
    record_motion(f"twin:fr3?{options}&noise=0.0001", path, duration=6.0, in_process=True)
    return path


@pytest.mark.parametrize("name", sorted(ROBOTS))
def test_a_motion_stays_within_the_limits_and_uses_them(name):
    robot = ROBOTS[name]
    motion, dt = exciting_motion(robot, 10.0, 0.5, seed=3), robot.servo_dt
    speed = np.diff(motion, axis=0) / dt
    assert motion[0] == pytest.approx(robot.home) and motion[-1] == pytest.approx(robot.home)
    assert (motion >= robot.position_low).all() and (motion <= robot.position_high).all()
    assert np.abs(motion - robot.home).max() <= 0.5 + 1e-9
    assert (np.abs(speed) <= 0.8001 * np.array(robot.velocity)).all()
    assert (np.abs(np.diff(speed, axis=0)) / dt <= 0.8001 * np.array(robot.acceleration)).all()
    assert np.abs(motion - robot.home).max(axis=0).min() > 0.05 and not np.array_equal(motion[:, 0], motion[:, 1])
    assert not np.array_equal(motion, exciting_motion(robot, 10.0, 0.5, seed=4))


def test_the_twin_s_payload_damping_and_latency_are_found_within_5_percent(recording):
    """Through encoder noise, and although the twin has another integrator."""
    robot, motions = read_motions(recording)
    found = identify(robot, motions, Randomization((PAYLOAD, DAMPING, LATENCY)))
    for p in found.parameters:
        assert p.estimate == pytest.approx(TWIN[p.name], rel=0.05), p
        assert p.std < 0.025 * TWIN[p.name] and abs(p.estimate - TWIN[p.name]) < 4.0 * p.std, p
    assert found.rms == pytest.approx(1e-4, rel=0.05) and not found.warnings


def test_every_servo_period_is_a_row_and_no_command_was_changed(recording):
    with EpisodeFile(recording) as file:
        episode = file["demo_0"]
        assert file.spec.robot == "fr3" and file.spec.control_dt == 0.005
    assert len(episode["actions"]) == 1200 and not episode["verdict"].any()
    assert np.allclose(episode["joint_pos_target"], exciting_motion(ROBOTS["fr3"], 6.0, 0.5, 0))
    (motion,) = read_motions(recording)[1]
    assert np.allclose(np.diff(motion.time), 0.005) and motion.time[0] == 0.0


def test_a_recording_by_control_periods_is_read_too(recording, tmp_path):
    """One row of ten, with the last command of each period, as `poise deploy --record` writes them."""
    with EpisodeFile(recording) as file:
        spec, episode = file.spec, file["demo_0"]
    rows = {k: v[::10] for k, v in episode.items() if k not in ("obs", "next_obs", "attributes", "dones")}
    rows |= {k: {"state": episode[k]["state"][::10]} for k in ("obs", "next_obs")}
    rows["joint_pos_target"] = episode["joint_pos_target"][9::10]
    path = tmp_path / "coarse.hdf5"
    with EpisodeWriter(path, dataclasses.replace(spec, control_dt=0.05), environment("reach/fr3")) as writer:
        writer.add(rows)
    robot, (motion,) = read_motions(path)
    error = motion.command - episode["joint_pos_target"][: len(motion.command)]
    assert np.abs(error[10:]).max() < 1e-3  # what came before the first is not known
    (p,) = identify(robot, [motion], Randomization((LATENCY,))).parameters
    assert p.estimate == pytest.approx(0.02, rel=0.05)


def test_what_is_no_recording_of_an_arm_is_refused(recording, tmp_path):
    with EpisodeFile(recording) as file:
        spec, episode = file.spec, file["demo_0"]
    bare = {k: episode[k] for k in ("obs", "next_obs", "actions", "rewards", "terminations", "truncations")}
    path = tmp_path / "bare.hdf5"
    with EpisodeWriter(path, spec, environment("motion")) as writer:
        writer.add(bare)
    with pytest.raises(
        DatasetError, match="joint_pos_target is missing; an identification needs a recording of an arm"
    ):
        read_motions(path)
    with pytest.raises(DatasetError, match=r"ur5e has 6 joints, the recording's positions have shape \(1200, 7\)"):
        read_motions(recording, "ur5e")
    with pytest.raises(UsageError, match="takes at least 2 s and an amplitude above 0"):
        record_motion("twin:fr3", tmp_path / "x.hdf5", duration=1.0)
