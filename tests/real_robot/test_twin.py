"""The twin: a driver like any other, an arm unlike the model, and a judge of what arrives."""

import subprocess
import sys
import time

import numpy as np
import pytest

from conformance_robot import check_driver
from poise.action import shape_command
from poise.errors import UsageError
from poise.kinematics import forward_kinematics
from poise.real_robot.drivers import address_robot, driver_at, split_address, with_option
from poise.real_robot.twin import Twin, TwinOptions
from poise.robots import FR3, ROBOTS

HOME, DT = np.array(FR3.home), FR3.servo_dt


def opened(**options) -> Twin:
    twin = Twin(FR3, TwinOptions(**options))
    twin.open()
    return twin


def reach_out(twin, joint=0, by=0.3, ticks=200):
    """Commands a smooth step of one joint; true positions (T,) of that joint as it goes."""
    position, velocity, target = HOME.copy(), np.zeros(7), HOME.copy()
    target[joint] += by
    path = []
    for _ in range(ticks):
        position, velocity = shape_command(position, velocity, target, np.full(7, 1.0), np.full(7, 5.0), DT)
        twin.write(position)
        path.append(twin.truth()["joint_pos"][joint])
    return np.array(path)


@pytest.mark.parametrize("address", [*(f"twin:{name}" for name in ROBOTS),
                                     "twin:so101?latency=0.043&mass=1.1&gain=0.9&payload=0.1",
                                     "twin:fr3?latency=0.043&noise=0.001&velocity_noise=0.01",
                                     "twin:fr3?mass=1.1&damping=1.1&friction=1.1&gain=0.9&friction_loss=0.3&payload=0.5"])  # fmt: skip
def test_a_twin_does_what_a_driver_must(address):
    check_driver(lambda: driver_at(address))


def test_it_stands_at_home_and_follows():
    twin = opened()
    assert np.abs(twin.truth()["joint_pos"] - HOME).max() < 0.02
    assert np.abs(twin.truth()["joint_vel"]).max() < 1e-3
    path = reach_out(twin, ticks=400)
    assert path[-1] == pytest.approx(0.3, abs=0.01)
    tool, _ = forward_kinematics(FR3, twin.truth()["joint_pos"])
    assert np.abs(twin.truth()["tool_pos"] - tool).max() < 1e-4
    assert twin.counters() == {"arrived": 400, "out_of_limit": 0}
    assert twin.now() == pytest.approx(400 * DT)


@pytest.mark.parametrize("latency", [0.001, 0.003, 0.005, 0.043])
def test_latency_shifts_the_motion_by_just_that_many_milliseconds(latency):
    prompt, late = reach_out(opened()), reach_out(opened(latency=latency))
    time = np.arange(len(prompt)) * DT
    shifted = np.interp(time - latency, time, prompt)
    np.testing.assert_allclose(late[20:], shifted[20:], atol=1e-4)
    assert np.abs(late - np.interp(time - latency - 0.001, time, prompt)).max() > 5e-4, "a millisecond more would show"


def test_model_error_changes_the_motion_and_the_same_options_repeat_it():
    plain = reach_out(opened(), joint=1)
    for option in ({"mass": 1.3}, {"gain": 0.8}, {"damping": 5.0}, {"friction_loss": 2.0}, {"payload": 1.0}):
        assert np.abs(reach_out(opened(**option), joint=1) - plain).max() > 1e-4, option
    assert np.array_equal(reach_out(opened(), joint=1), plain)


def test_its_physics_is_not_that_of_the_training_worlds():
    import mujoco

    model = opened()._arm.model
    assert model.opt.timestep == 0.001 and model.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICIT
    heavy, light = opened(mass=1.5)._arm.model, model
    assert np.allclose(heavy.body_mass, 1.5 * light.body_mass)
    assert np.allclose(heavy.body_inertia, 1.5 * light.body_inertia)
    assert heavy.body_subtreemass[0] == pytest.approx(1.5 * light.body_subtreemass[0]), "derived constants follow"


def test_noise_has_the_stated_size_and_repeats_under_its_seed():
    def measured(seed):
        twin = opened(noise=0.01, velocity_noise=0.1, seed=seed)
        readings = [twin.read() for _ in range(500)]
        truth = twin.truth()
        return (np.array([r.joint_pos for r in readings]) - truth["joint_pos"],
                np.array([r.joint_vel for r in readings]) - truth["joint_vel"])  # fmt: skip

    pos, vel = measured(3)
    assert pos.std() == pytest.approx(0.01, rel=0.05) and vel.std() == pytest.approx(0.1, rel=0.05)
    assert np.array_equal(measured(3)[0], pos) and not np.array_equal(measured(4)[0], pos)


def test_the_counter_counts_each_limit():
    def counted(*commands):
        twin = opened()
        for command in commands:
            twin.write(command)
        return twin.counters()["out_of_limit"]

    at = np.eye(7)[6]
    dv = 10.0 * DT * DT  # the largest first step [rad]
    assert counted(HOME, HOME + dv * at, HOME + 3 * dv * at, HOME + 5 * dv * at) == 0
    assert counted(HOME + 1.001 * dv * at, HOME + 1.001 * dv * at) == 2, "acceleration, both ways"
    speeds = np.minimum(np.arange(120) * 10.0 * DT, 5.26)
    ramp = [HOME - d * at for d in np.cumsum(speeds) * DT]
    assert counted(*ramp) == 0
    speeds = np.minimum(np.arange(120) * 10.0 * DT, 5.27)
    assert counted(*[HOME - d * at for d in np.cumsum(speeds) * DT]) == sum(speeds > 5.26)
    assert counted(np.full(7, np.nan)) == counted(HOME[:6]) == 1
    crawl = np.arange(2000)[:, None] * np.minimum(np.arange(2000)[:, None], 1) * at * 0.4 * dv
    assert counted(*(HOME + crawl)) == 0
    low = twin_beyond_position()
    assert low > 0


def twin_beyond_position() -> int:
    """Counts of a slow crawl past a joint's end."""
    twin, q, v = opened(), HOME.copy(), 0.0
    while q[6] < FR3.position_high[6] + 0.01:
        v = min(v + 8.0 * DT, 2.0)
        q[6] += v * DT
        twin.write(q)
    return twin.counters()["out_of_limit"]


def test_commands_that_no_arm_can_follow_are_counted_and_ignored():
    twin = opened()
    for command in (np.full(7, np.nan), np.full(7, np.inf), np.zeros(3)):
        twin.write(command)
    assert twin.counters() == {"arrived": 3, "out_of_limit": 3}
    assert np.abs(twin.truth()["joint_pos"] - HOME).max() < 0.02


def test_braking_from_speed_stops_within_the_limits():
    twin = opened()
    q, v = HOME.copy(), 0.0
    for _ in range(60):
        v = min(v + 9.0 * DT, 2.0)
        q[0] += v * DT
        twin.write(q)
    began = twin.now()
    twin.brake()
    assert twin.counters()["out_of_limit"] == 0
    assert twin.now() - began == pytest.approx(2.0 / 10.0, abs=2 * DT)
    held = twin.read().joint_pos_target
    twin.brake()
    assert np.array_equal(twin.read().joint_pos_target, held)


def test_realtime_keeps_pace_with_the_wall_clock():
    began = time.monotonic()  # before the twin's clock starts: what is late is caught up with
    twin = opened(realtime=1)
    for _ in range(60):
        twin.write(HOME)
    assert time.monotonic() - began >= 59 * DT
    assert abs(twin.read().time - time.monotonic()) < 0.1 and twin.read().device_time == pytest.approx(60 * DT)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("fr3", "looks like twin:fr3"),
        ("twin:", "looks like twin:fr3"),
        ("twim:fr3", "unknown robot family 'twim'; did you mean twin"),
        ("twin:fr4", "unknown robot 'fr4'; did you mean fr3"),
        ("twin:fr3?latncy=0.1", "unknown twin option 'latncy'; did you mean latency"),
        ("twin:fr3?latency", "name=value"),
        ("twin:fr3?latency=", "expected a number between 0 and 0.5"),
        ("twin:fr3?latency=fast", "expected a number between 0 and 0.5"),
        ("twin:fr3?latency=40", "expected a number between 0 and 0.5"),
        ("twin:fr3?latency=0.0405", "whole milliseconds"),
        ("twin:fr3?mass=nan", "expected a number between 0.2 and 5"),
        ("twin:fr3?mass=inf", "expected a number"),
        ("twin:fr3?gain=-1", "expected a number"),
        ("twin:fr3?seed=1.5", "expected a whole number"),
        ("twin:fr3?realtime=yes", "expected a whole number between 0 and 1"),
        ("twin:fr3?mass=1&mass=2", "stands twice"),
    ],
)
def test_a_wrong_address_is_refused_with_what_would_be_right(address, message):
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        address_robot(address)


def test_addresses_come_apart_and_take_more_options():
    assert split_address("twin:fr3?latency=0.04&mass=1.1") == ("twin", "fr3", {"latency": "0.04", "mass": "1.1"})
    assert with_option("twin:fr3?mass=1.1&realtime=0", "realtime", "1") == "twin:fr3?mass=1.1&realtime=1"
    assert address_robot("twin:fr3") is FR3


def test_mujoco_is_imported_when_a_twin_is_opened_not_before():
    code = ("import sys, poise.real_robot, poise.real_robot.robot, poise.real_robot.twin, poise.real_robot.control\n"
            "from poise.real_robot.drivers import driver_at\n"
            "driver = driver_at('twin:fr3')\n"
            "assert not {'torch', 'mujoco'} & set(sys.modules), sorted({'torch', 'mujoco'} & set(sys.modules))\n"
            "driver.open(); assert 'mujoco' in sys.modules and 'torch' not in sys.modules")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)
