"""Kicks: the right velocities change by the drawn size, at once, alike on both engines, and nowhere else."""

import mujoco
import numpy as np
import pytest
import torch

from poise.errors import UsageError
from poise.sim.cpu import CpuEngine
from poise.sim.kicks import Kicks
from poise.sim.make import make
from poise.sim.randomization import Randomization, Term
from poise.sim.stepping import SteppingEngine
from poise.sim.task import Key
from poise.sim.task_env import TaskEnv

from .two_link import XML, TwoLink

MODEL = mujoco.MjModel.from_xml_string(XML)
OFTEN = {"operation": "set", "when": "interval", "interval": (0.1, 0.3)}
BALL, SPIN = slice(2, 5), slice(5, 8)  # columns of qvel


def test_a_kick_of_a_body_has_the_drawn_size_and_a_direction_of_its_own_in_its_worlds_alone():
    terms = (
        Term("shove", "kick_velocity", "ball", range=(0, 2), **OFTEN),
        Term("spin", "kick_spin", "ball", range=(0, 2), **OFTEN),
    )
    kicks = Kicks(MODEL, Randomization(terms), 200)
    key, due = Key(0, np.arange(200), np.zeros(200, int)), {"shove": np.arange(0, 200, 2), "spin": np.arange(0, 200, 4)}
    params = {name: np.linspace(0.5, 2.0, 200)[:, None] for name in due}
    change = kicks.change(due, key, {name: np.ones(200, int) for name in due}, params)
    assert change is not None and not change[1::2].any() and not change[2::4, SPIN].any() and not change[:, :2].any()
    for columns, rows, name in ((BALL, due["shove"], "shove"), (SPIN, due["spin"], "spin")):
        np.testing.assert_allclose(np.linalg.norm(change[rows, columns], axis=1), params[name][rows, 0])
    unit = change[::2, BALL] / params["shove"][::2]
    assert np.abs(unit.mean(axis=0)).max() < 0.15 and np.abs((unit**2).mean(axis=0) - 1 / 3).max() < 0.1
    again = kicks.change(due, key, {name: np.full(200, 2) for name in due}, params)
    assert again is not None and np.abs(again - change).max() > 0.5  # the next draw goes elsewhere
    assert kicks.change({"other": np.arange(3)}, key, {}, {}) is None


def test_joints_are_kicked_with_the_drawn_sign_and_kicks_add_up():
    terms = [
        Term(name, "kick_joint", target, range=(-1, 1), **OFTEN)
        for name, target in (("both", "*o*"), ("elbow", "elbow"))
    ]
    kicks = Kicks(MODEL, Randomization(tuple(terms)), 2)
    key, due = Key(0, np.arange(2), np.zeros(2, int)), {"both": np.array([1]), "elbow": np.array([0, 1])}
    params = {"both": np.array([[9.0, 9.0], [0.5, -0.25]]), "elbow": np.array([[1.0], [2.0]])}
    change = kicks.change(due, key, {}, params)
    np.testing.assert_array_equal(change, [[0, 1.0, 0, 0, 0, 0, 0, 0], [0.5, 1.75, 0, 0, 0, 0, 0, 0]])


@pytest.mark.parametrize("threads", [1, 2])
def test_a_kick_carries_a_free_body_on_both_engines_and_leaves_what_was_read_before(threads):
    engines = [CpuEngine(MODEL, 3, 4, threads), SteppingEngine(MODEL, 3, 4, threads, reads=("xpos",))]
    change = np.zeros((3, MODEL.nv))
    change[1, BALL] = 0.3, -0.2, 1.0
    for engine in engines:
        before = engine.qvel
        engine.kick(change)
        assert not before.any() and np.array_equal(engine.qvel, change)
        assert engine.step(np.zeros((3, 4, 2))) is None
        np.testing.assert_allclose(engine.qvel[1, BALL], [0.3, -0.2, 1.0 - 9.81 * 0.02], rtol=1e-9)
        assert np.abs(engine.qvel[[0, 2], 2:4]).max() < 1e-9
    assert np.array_equal(engines[0].state, engines[1].state)
    for engine in engines:
        engine.close()


def test_a_world_is_kicked_at_its_times_and_any_episode_of_it_can_be_played_alone():
    randomization = Randomization((Term("shove", "kick_velocity", "ball", range=(0.5, 1.0), **OFTEN),))
    batch, alone, calm = (TaskEnv(TwoLink(), n, r) for n, r in ((4, randomization), (1, randomization), (1, None)))
    batch.reset(5)
    alone.reset(5, worlds=3)
    calm.reset(5, worlds=3)
    shoves, idle = [], torch.zeros(1, 2)
    for _ in range(35):
        calm.engine.load_state_dict(alone.engine.state_dict())
        batch.step(idle.expand(4, 2))
        alone.step(idle)
        calm.step(idle)
        assert np.array_equal(batch.state.qvel[3], alone.state.qvel[0])
        shoves.append(np.abs(alone.state.qvel[0, BALL] - calm.state.qvel[0, BALL]).max())
    kicked = np.flatnonzero(np.array(shoves) > 0.05)
    assert kicked[0] >= 5 and 5 <= np.diff(kicked).min() <= np.diff(kicked).max() <= 15


@pytest.mark.parametrize(
    ("what", "target", "message"),
    [
        ("kick_velocity", "lower", "'kick': body 'lower' hangs on joints and has no velocity of its own; kick_joint"),
        ("kick_spin", "bal", "'kick': unknown body 'bal'; did you mean ball"),
        ("kick_joint", "ball", "'kick': unknown joint 'ball'; known: elbow, shoulder"),
    ],
)
def test_what_has_no_velocity_of_its_own_is_refused(what, target, message):
    with pytest.raises(UsageError, match=message):
        TaskEnv(TwoLink(), 1, Randomization((Term("kick", what, target, range=(0, 1), **OFTEN),)))


def test_a_simulator_of_others_takes_no_kicks():
    term = {"name": "jolt", "what": "kick_joint", "target": "slider", "range": [0, 1], "interval": [1, 2]}
    with pytest.raises(UsageError, match=r"InvertedPendulum-v5 cannot be given .*'jolt' \(kick_joint\)"):
        make("gym:InvertedPendulum-v5", 1, randomize={"terms": [term | {"operation": "set", "when": "interval"}]})
