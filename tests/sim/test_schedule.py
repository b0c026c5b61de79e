"""When terms are drawn: once a world, for every episode, or again and again within it."""

import numpy as np
import pytest
import torch

from poise.sim.randomization import Randomization, Term
from poise.sim.schedule import Schedule
from poise.sim.task import Key
from poise.sim.task_env import TaskEnv

from .two_link import TwoLink

DT = 0.02
WIND = Term("wind", "gravity", range=(-1.0, 1.0), operation="add", when="interval", interval=(0.1, 0.3))


def _changes(n: int, steps: int) -> np.ndarray:
    """At which of the control steps (steps, N) the term was due."""
    schedule, key = Schedule(Randomization((WIND,)), n, DT), Key(0, np.arange(n), np.full(n, 3))
    schedule.begin(np.arange(n), key)
    due = np.zeros((steps, n), bool)
    for t in range(steps):
        rows = schedule.due(np.full(n, t), key)
        due[t, rows.get("wind", [])] = True
    return due


def test_draws_are_apart_by_times_of_the_interval():
    gaps = np.concatenate([np.diff(np.flatnonzero(d), prepend=0) for d in _changes(100, 400).T])
    assert gaps.min() == 5 and gaps.max() == 15 and gaps.mean() == pytest.approx(10, abs=0.3)


def test_times_of_a_world_are_its_own_and_the_same_alone():
    due = _changes(8, 100)
    assert len({d.tobytes() for d in due.T}) == 8
    assert np.array_equal(_changes(3, 100), due[:, :3])


def test_what_is_drawn_at_start_stays_and_differs_between_worlds():
    once = Term("once", "link_mass", "upper", range=(0.5, 2.0), when="start")
    env = TaskEnv(TwoLink(), 4, Randomization((once,)))
    env.reset(0)
    masses = []
    for _ in range(90):
        env.step(torch.zeros(4, 2))
        masses.append([model.body_mass[1] for model in env.engine.models])
    assert env.episodes.min() >= 2
    assert np.array_equal(np.unique(masses, axis=0), masses[:1]) and len(set(masses[0])) == 4
    env.reset(1)
    assert env.engine.models[0].body_mass[1] != masses[0][0]


def test_models_change_within_episodes_where_due_and_nowhere_else():
    worn = Term("worn", "link_mass", "upper", range=(0.5, 2.0), when="interval", interval=(0.1, 0.3))
    fixed = Term("fixed", "link_mass", "lower", range=(0.5, 2.0))
    env = TaskEnv(TwoLink(), 4, Randomization((worn, fixed, WIND)))
    env.reset(0)
    seen, lower = [], [model.body_mass[2] for model in env.engine.models]
    for _ in range(30):
        env.step(torch.zeros(4, 2))
        if env.episodes.any():
            break
        seen.append([(m.body_mass[1], m.dof_M0[0], m.opt.gravity[0]) for m in env.engine.models])
        np.testing.assert_allclose([m.body_mass[1] for m in env.engine.models], 2.0 * env.params["worn"][:, 0])
        assert [m.body_mass[2] for m in env.engine.models] == lower
    seen = np.array(seen)
    mass_changes, inertia_changes = (np.diff(seen[:, :, i], axis=0) != 0 for i in (0, 1))
    assert mass_changes.sum() >= 4 and np.array_equal(mass_changes, inertia_changes)
    assert not np.array_equal(mass_changes, np.diff(seen[:, :, 2], axis=0) != 0)
