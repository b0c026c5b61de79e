"""The kernel's poses are those of numpy within float32, whatever the shape of the joint angles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poise import kinematics_warp
from poise.kinematics import forward_kinematics
from poise.robots import FR3, ROBOTS
from poise.sim.warp_device import require_warp
from tests.capturable import only_capturable


@pytest.fixture(autouse=True)
def warp():
    require_warp("cpu")


@pytest.mark.parametrize("robot", ROBOTS.values(), ids=lambda robot: robot.name)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_the_kernel_finds_the_tool_where_numpy_does(robot, shape):
    rng = np.random.default_rng(0)
    q = rng.uniform(robot.position_low, robot.position_high, (*shape, robot.num_joints))
    position, rotation = forward_kinematics(robot, torch.from_numpy(q).float())
    assert position.dtype == torch.float32 and rotation.shape == (*shape, 3, 3)
    for given, expected in zip((position, rotation), forward_kinematics(robot, q), strict=True):
        np.testing.assert_allclose(given, expected, atol=2e-6)


def test_columns_of_a_wider_array_serve_and_a_graph_can_record_it():
    wide = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (6, 9))).float()
    expected = forward_kinematics(FR3, wide[:, :7].clone())
    with only_capturable():
        given = forward_kinematics(FR3, wide[:, :7])
    torch.testing.assert_close(given, expected, rtol=0, atol=0)


def test_derivatives_are_torchs_own(monkeypatch):
    monkeypatch.setattr(kinematics_warp, "launch", None)
    q = torch.full((1, 7), 0.3, requires_grad=True)
    forward_kinematics(FR3, q)[0].sum().backward()
    assert q.grad is not None and q.grad.abs().max() > 0.1
