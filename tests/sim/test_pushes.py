"""Pushes: the right force, for the right time, on the right body, on both engines."""

import mujoco
import numpy as np
import pytest

from poise.sim.cpu import CpuEngine
from poise.sim.pushes import Pushes
from poise.sim.randomization import Randomization, Term
from poise.sim.schedule import Schedule
from poise.sim.stepping import SteppingEngine
from poise.sim.task import Key

from .two_link import XML

MODEL = mujoco.MjModel.from_xml_string(XML)
DT = 0.02


def _play(term: Term, n: int, steps: int) -> np.ndarray:
    """Wrenches (steps, N, bodies, 6) of one episode."""
    randomization = Randomization((term,))
    schedule, pushes = Schedule(randomization, n, DT), Pushes(MODEL, randomization, n, DT)
    key, rows = Key(0, np.arange(n), np.zeros(n, int)), np.arange(n)
    schedule.begin(rows, key)
    pushes.begin(rows)
    result = np.zeros((steps, n, MODEL.nbody, 6))
    for t in range(steps):
        now = np.full(n, t)
        due, draws = schedule.due(now, key), schedule.draws(rows)
        params = {term.name: term.draw(0, key.worlds, key.episodes, 2, draws[term.name])}
        pushes.start(due, now, key, draws, params)
        if (wrench := pushes.wrench(now)) is not None:
            result[t] = wrench
    return result


def test_pushes_have_the_drawn_size_last_their_time_and_come_from_everywhere():
    term = Term("push", "push_force", ("lower", "ball"), range=(2.0, 5.0), operation="set", when="interval",
                interval=(0.2, 0.4), duration=0.06)  # fmt: skip
    wrench = _play(term, 200, 100)
    assert not wrench[:, :, [0, 1]].any() and not wrench[:, :, :, 3:].any()
    force = wrench[:, :, [2, 3], :3]
    size = np.linalg.norm(force, axis=-1)
    active = size[:, :, 0] > 0
    assert np.array_equal(active, size[:, :, 1] > 0) and size[active].min() >= 2.0 and size[active].max() <= 5.0
    for world in range(200):
        starts = np.flatnonzero(np.diff(active[:, world].astype(int)) == 1) + 1
        lengths = np.flatnonzero(np.diff(active[:, world].astype(int)) == -1) + 1 - starts[: np.sum(
            np.diff(active[:, world].astype(int)) == -1)]  # fmt: skip
        assert set(lengths) == {3} and starts[0] >= 10 and 10 <= np.diff(starts).min() <= np.diff(starts).max() <= 20
    unit = force[active] / size[active][..., None]
    assert np.abs(unit.mean(axis=(0, 1))).max() < 0.05 and np.abs((unit**2).mean(axis=(0, 1)) - 1 / 3).max() < 0.03


def test_a_torque_is_written_where_torques_go():
    term = Term("twist", "push_torque", ("lower", "ball"), range=(1.0, 1.0), operation="set", when="interval",
                interval=(0.02, 0.02), duration=0.02)  # fmt: skip
    wrench = _play(term, 3, 10)
    assert not wrench[..., :3].any()
    np.testing.assert_allclose(np.linalg.norm(wrench[1:, :, 2:, 3:], axis=-1), 1.0)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_push_changes_momentum_by_its_impulse_on_both_engines_and_then_is_gone(threads):
    engines = [CpuEngine(MODEL, 3, 4, threads), SteppingEngine(MODEL, 3, 4, threads, reads=("xpos",))]
    wrench = np.zeros((3, MODEL.nbody, 6))
    wrench[1, 3] = 3.0, 0.0, 12.0, 0.0, 0.0, 0.001
    for engine in engines:
        assert engine.step(np.zeros((3, 4, 2)), wrench) is None
        np.testing.assert_allclose(
            engine.qvel[1, 2:5], [3 / 0.2 * DT, 0, (12 / 0.2 - 9.81) * DT], rtol=1e-9, atol=1e-12
        )
        assert engine.qvel[1, 7] == pytest.approx(0.001 / (0.4 * 0.2 * 0.1**2) * DT)
        assert np.abs(engine.qvel[[0, 2], 2:5]).max() < 0.2
        speed = engine.qvel[1, 2]
        engine.step(np.zeros((3, 4, 2)))
        assert engine.qvel[1, 2] == pytest.approx(speed, rel=1e-9)  # it flies freely
    assert np.array_equal(engines[0].state, engines[1].state)
    for engine in engines:
        engine.close()
