"""Every native task says the same in numpy and in torch, and a CUDA graph could record it."""

from __future__ import annotations

import numpy as np
import pytest
from array_api_compat import array_namespace

from poise.sim.make import TASKS, load_task
from tests.conformance_task import check_task

from .two_link import TwoLink

SEEING = ("reach/planar",)  # of what needs a camera


@pytest.mark.parametrize("name", [name for name in TASKS if name not in SEEING])
def test_a_task_is_written_once_for_both_namespaces(name):
    check_task(load_task(name))


class Good(TwoLink):
    """TwoLink over the namespace of its arrays."""

    def reset(self, key, params):
        u = key.uniform("start", 9)
        return u, 0.0 * u[:, 1:], {"goal": key.uniform("goal", 1)}

    def success(self, state):
        return array_namespace(state.qpos).abs(state.qpos[:, 0] - state.memory["goal"][:, 0]) < 0.1


class KeepsAView(Good):
    def advance(self, state, action):
        return {"goal": state.qpos[:, :1]}


class Writes(Good):
    def observe(self, state):
        readings = super().observe(state)
        readings["angles"] *= 2.0
        return readings


class CallsNumpy(Good):
    def reward(self, state, action):
        return -np.linalg.norm(state.qpos, axis=1)


class Decides(Good):
    def reward(self, state, action):
        return -abs(state.qpos[:, 0]) if (state.qpos[:, 0] > -9.0).any() else 0.0 * state.qpos[:, 0]


class Widens(Good):
    def reward(self, state, action):
        xp = array_namespace(action)
        return xp.astype(state.qpos[:, 0], xp.float64)


def test_the_check_passes_a_good_task():
    check_task(Good())


@pytest.mark.parametrize(
    ("task", "message"),
    [(KeepsAView(), "keeps a view of qpos"), (Writes(), "read-only|writes into"), (CallsNumpy(), "ndarray"),
     (Decides(), "to the host"), (Widens(), "float64 on a device")],
    ids=lambda x: type(x).__name__,
)  # fmt: skip
def test_the_check_finds_a_task_that(task, message):
    with pytest.raises((AssertionError, ValueError, TypeError), match=message):
        check_task(task)
