"""Measured joints: bias and noise of the right size, on the right joints, a function of their key alone."""

import mujoco
import numpy as np

from poise.sim.dynamics import Dynamics
from poise.sim.randomization import Randomization, Term
from poise.sim.sensing import Sensors

from .two_link import XML

MODEL = mujoco.MjModel.from_xml_string(XML)
BIAS = Term("bias", "joint_pos_bias", "elbow", range=(0.05, 0.06), operation="set")
POS = Term("pos", "joint_pos_noise", ("shoulder", "elbow"), range=(0.01, 0.01), operation="set")
VEL = Term("vel", "joint_vel_noise", "shoulder", range=(0.2, 0.2), operation="set")
ZERO = (np.zeros((500, 9)), np.zeros((500, 8)))


def _measure(terms: tuple[Term, ...], worlds: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """What sensors say of joints at rest at zero: (steps, N, nq) and (steps, N, nv)."""
    dynamics = Dynamics(MODEL, Randomization(terms))
    n, rows = len(worlds), np.arange(len(worlds))
    sensors, params = Sensors(dynamics, n), dynamics.draw(0, worlds, 2)
    sensors.seed(0)
    pos, vel = [], []
    for t in range(steps):
        now = np.full(n, t)
        due = sensors.due(now)
        sensors.prepare(due, worlds[due], np.full(len(due), 2), now[due], params)
        qpos, qvel = sensors.measure(ZERO[0][rows], ZERO[1][rows], now, params)
        pos.append(qpos)
        vel.append(qvel)
    return np.array(pos), np.array(vel)


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


def test_perfect_sensors_hand_the_truth_through():
    sensors = Sensors(Dynamics(MODEL, Randomization()), 3)
    qpos, qvel = np.ones((3, 9)), np.ones((3, 8))
    assert sensors.perfect and sensors.measure(qpos, qvel, np.zeros(3, int), {}) == (qpos, qvel)
