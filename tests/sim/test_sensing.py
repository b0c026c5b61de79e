"""Measured joints: bias, noise, delay and dropout of the right size, on the right joints, functions of their key."""

import mujoco
import numpy as np
import pytest

from poise.sim.dynamics import Dynamics
from poise.sim.randomization import Randomization, Term
from poise.sim.sensing import Sensors
from poise.sim.white import White

from .two_link import XML

MODEL = mujoco.MjModel.from_xml_string(XML)
DT = 0.02
BIAS = Term("bias", "joint_pos_bias", "elbow", range=(0.05, 0.06), operation="set")
POS = Term("pos", "joint_pos_noise", ("shoulder", "elbow"), range=(0.01, 0.01), operation="set")
VEL = Term("vel", "joint_vel_noise", "shoulder", range=(0.2, 0.2), operation="set")


def _measure(terms: tuple[Term, ...], worlds: np.ndarray, steps: int, speed: float = 0.0):
    """What sensors say of joints that turn by `speed` a control step from zero: (steps, N, nq) and (steps, N, nv)."""
    dynamics = Dynamics(MODEL, Randomization(terms))
    n, rows, white = len(worlds), np.arange(len(worlds)), White(len(worlds))
    sensors, params = Sensors(dynamics, n, white, DT), dynamics.draw(0, worlds, 2)
    white.seed(0)
    episodes, zero = np.full(n, 2), np.zeros(n, int)
    white.prepare(rows, worlds, episodes, zero)
    reported = [sensors.begin(rows, np.zeros((n, 9)), np.zeros((n, 8)), params)]
    for t in range(1, steps):
        white.follow(worlds, episodes, zero + t)
        truth = np.full((n, 9), speed * t), np.full((n, 8), 10 * speed * t)
        reported.append(sensors.measure(*truth, zero + t, params, reported[-1]))
    return np.array([qpos for qpos, _ in reported]), np.array([qvel for _, qvel in reported])


def test_noise_and_bias_have_the_drawn_size_on_the_named_joints_only():
    pos, vel = _measure((BIAS, POS, VEL), np.arange(500), 80)
    assert np.abs(pos[:, :, :2].std(axis=0).mean(axis=0) - 0.01).max() < 2e-4
    mean = pos.mean(axis=0)
    assert abs(mean[:, 0].mean()) < 2e-3 and mean[:, 1].min() > 0.045 and mean[:, 1].max() < 0.065
    assert abs(vel[:, :, 0].std() - 0.2) < 0.005
    assert not pos[:, :, 2:].any() and not vel[:, :, 1:].any()
    step_to_step = np.corrcoef(pos[:-1, :, 0].ravel(), pos[1:, :, 0].ravel())[0, 1]
    assert abs(step_to_step) < 0.02


def test_noise_of_a_world_is_the_same_alone_and_beside_other_terms():
    pos, _ = _measure((POS,), np.arange(8), 50)
    with_others, _ = _measure((VEL, POS), np.array([5]), 50)
    assert np.array_equal(pos[:, 5:6], with_others)


def test_a_delay_shows_where_named_joints_were_then_between_control_steps_too():
    late = Term("late", "joint_delay", "elbow", range=(0.0, 0.05), operation="set")
    pos, vel = _measure((late,), np.arange(6), 20, speed=1.0)
    lag = Dynamics(MODEL, Randomization((late,))).draw(0, np.arange(6), 2)["late"][:, 0] / DT
    assert np.ptp(lag) > 1.0 and (lag % 1.0 > 0.05).any()
    t = np.arange(20)[:, None]
    np.testing.assert_allclose(pos[:, :, 1], np.maximum(t - lag, 0.0), atol=1e-12)
    np.testing.assert_allclose(vel[:, :, 1], 10 * np.maximum(t - lag, 0.0), atol=1e-12)
    assert np.array_equal(pos[:, :, 0], np.broadcast_to(t, (20, 6)))  # the shoulder is not late


def test_a_dropped_reading_repeats_what_was_reported_before_as_often_as_drawn():
    drop = Term("drop", "joint_dropout", "*", range=(0.3, 0.3), operation="set")
    pos, vel = _measure((drop, POS), np.arange(50), 200, speed=1.0)
    held = pos[1:, :, 0] == pos[:-1, :, 0]  # noise included
    assert held.mean() == pytest.approx(0.3, abs=0.02)
    assert np.array_equal(held, vel[1:, :, 0] == vel[:-1, :, 0])
    assert not np.array_equal(held[:, 0], held[:, 1]) and not pos[0, :, 2:].any()


def test_perfect_sensors_are_known_to_be():
    assert Sensors(Dynamics(MODEL, Randomization()), 3, White(3), DT).perfect
    assert not White(3)
