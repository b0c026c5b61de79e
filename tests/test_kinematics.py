"""Forward kinematics against geometry by hand, Franka's own model, and finite differences."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.errors import UsageError
from poise.kinematics import (
    forward_kinematics,
    jacobian,
    joint_frames,
    rotation_matrix,
    rotation_vector,
    tool_jacobian,
)
from poise.robots import FR3, ROBOTS, Frame, RobotSpec, robot_spec

poses = st.tuples(*(st.floats(lo, hi) for lo, hi in zip(FR3.position_low, FR3.position_high, strict=True)))


def two_link_arm() -> RobotSpec:
    """Two links of 0.3 m and 0.2 m in a plane: the textbook's arm."""
    two = (1.0, 1.0)
    return RobotSpec(
        name="two_link", joints=("shoulder", "elbow"), position_low=(-math.pi,) * 2, position_high=(math.pi,) * 2,
        velocity=two, acceleration=two, jerk=two, effort=two, home=(0.0, 0.0),
        chain=(Frame((0.0, 0.0, 0.1)), Frame((0.3, 0.0, 0.0))), tool=Frame((0.2, 0.0, 0.0)),
        workspace_low=(-1.0,) * 3, workspace_high=(1.0,) * 3, servo_dt=0.01,
    )  # fmt: skip


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_a_planar_arm_follows_the_textbook(a, b):
    position, rotation = forward_kinematics(two_link_arm(), np.array([a, b]))
    x = 0.3 * math.cos(a) + 0.2 * math.cos(a + b)
    y = 0.3 * math.sin(a) + 0.2 * math.sin(a + b)
    np.testing.assert_allclose(position, [x, y, 0.1], atol=1e-12)
    c, s = math.cos(a + b), math.sin(a + b)
    np.testing.assert_allclose(rotation, [[c, -s, 0], [s, c, 0], [0, 0, 1]], atol=1e-12)


def test_at_home_the_fr3s_tool_points_down_before_the_base():
    position, rotation = forward_kinematics(FR3, np.array(FR3.home))
    np.testing.assert_allclose(position, [0.3069, 0.0, 0.4869], atol=1e-4)
    np.testing.assert_allclose(rotation, np.diag([1.0, -1.0, -1.0]), atol=1e-12)


def test_a_stretched_fr3_is_as_tall_as_its_links_together():
    position, _ = forward_kinematics(FR3, np.zeros(7))
    # 0.333 to the shoulder, 0.316 and 0.384 of arm, then down again by the flange and the hand, 0.088 ahead
    np.testing.assert_allclose(position, [0.088, 0.0, 0.333 + 0.316 + 0.384 - 0.107 - 0.1034], atol=1e-12)


def test_the_fr3_agrees_with_the_published_model():
    reference = json.loads((Path(__file__).parent / "data" / "fr3_reference_poses.json").read_text())
    for name, limit in reference["limits"].items():
        i = FR3.joints.index(name)
        assert [FR3.position_low[i], FR3.position_high[i]] == limit["position"]
        assert FR3.velocity[i] <= limit["velocity"] and FR3.effort[i] <= limit["effort"]
    poses = reference["poses"]
    assert len(poses) >= 20
    q = np.array([p["joint_pos"] for p in poses])
    position, rotation = forward_kinematics(FR3, q)
    np.testing.assert_allclose(position, [p["position"] for p in poses], atol=1e-4)
    np.testing.assert_allclose(rotation, [rotation_matrix(p["quat_wxyz"]) for p in poses], atol=1e-4)


@given(poses)
def test_a_rotation_keeps_lengths_and_handedness(q):
    _, rotation = forward_kinematics(FR3, np.array(q))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


@given(poses, st.integers(0, 6))
def test_a_joint_moves_the_tool_about_its_own_axis(q, joint):
    """The finite-difference Jacobian column is z_i x (p - p_i) (Siciliano et al. 2009, eq. 3.30)."""
    q, h = np.array(q), 1e-6
    step = h * np.eye(7)[joint]
    ahead, behind = forward_kinematics(FR3, q + step), forward_kinematics(FR3, q - step)
    velocity = (ahead[0] - behind[0]) / (2 * h)
    position, rotation = forward_kinematics(FR3, q)
    spin = (ahead[1] - behind[1]) / (2 * h) @ rotation.T  # the skew matrix of the joint's axis
    axis = np.array([spin[2, 1], spin[0, 2], spin[1, 0]])
    assert np.linalg.norm(axis) == pytest.approx(1.0, abs=1e-6)
    up_to_joint = RobotSpec(**{**FR3.__dict__, "joints": FR3.joints[: joint + 1], "chain": FR3.chain[: joint + 1],
                               "tool": Frame((0.0, 0.0, 0.0))})  # fmt: skip
    origin, frame = forward_kinematics(up_to_joint, q[: joint + 1])
    np.testing.assert_allclose(frame[:, 2], axis, atol=1e-6)
    np.testing.assert_allclose(velocity, np.cross(axis, position - origin), atol=1e-6)


def test_a_batch_of_poses_is_each_pose_alone():
    q = np.random.default_rng(0).uniform(FR3.position_low, FR3.position_high, (3, 4, 7))
    position, rotation = forward_kinematics(FR3, q)
    assert position.shape == (3, 4, 3) and rotation.shape == (3, 4, 3, 3)
    for index in np.ndindex(3, 4):
        alone = forward_kinematics(FR3, q[index])
        np.testing.assert_allclose(position[index], alone[0], atol=1e-14)
        np.testing.assert_allclose(rotation[index], alone[1], atol=1e-14)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 2e-6)])
def test_numpy_and_torch_agree(dtype, tolerance):
    q = np.random.default_rng(0).uniform(FR3.position_low, FR3.position_high, (100, 7))
    ours, theirs = forward_kinematics(FR3, q), forward_kinematics(FR3, torch.from_numpy(q).to(dtype))
    for a, b in zip(ours, theirs, strict=True):
        assert b.dtype == dtype
        np.testing.assert_allclose(a, b.numpy(), atol=tolerance)


def test_torch_gradients_are_the_finite_differences():
    q = torch.tensor(FR3.home, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q: forward_kinematics(FR3, q)[0], (q,))


@pytest.mark.parametrize("angle", [0.0, 0.3, -2.0])
def test_a_quaternion_about_z_is_a_turn_about_z(angle):
    c, s = math.cos(angle), math.sin(angle)
    quat = (math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2))
    np.testing.assert_allclose(rotation_matrix(quat), [[c, -s, 0], [s, c, 0], [0, 0, 1]], atol=1e-12)


def test_the_fr3_is_whole_and_its_home_lies_inside_its_limits():
    for name in ("position_low", "position_high", "velocity", "acceleration", "jerk", "effort", "home", "chain"):
        assert len(getattr(FR3, name)) == FR3.num_joints == 7, name
    assert np.all(np.array(FR3.position_low) < FR3.home) and np.all(np.array(FR3.home) < FR3.position_high)
    position, _ = forward_kinematics(FR3, np.array(FR3.home))
    assert np.all(position > FR3.workspace_low) and np.all(position < FR3.workspace_high)


def test_an_unknown_arm_is_answered_with_those_there_are():
    assert robot_spec("fr3") is FR3
    with pytest.raises(UsageError, match="unknown robot 'fr4'; did you mean fr3"):
        robot_spec("fr4")


@pytest.mark.parametrize("name", ROBOTS)
def test_the_jacobian_is_the_derivative_and_its_position_the_same(name):
    robot = robot_spec(name)
    for q in np.random.default_rng(1).uniform(robot.position_low, robot.position_high, (20, robot.num_joints)):
        position, jacobian = tool_jacobian(robot, q)
        there, _ = forward_kinematics(robot, np.vstack([q, q + 1e-6 * np.eye(len(q)), q - 1e-6 * np.eye(len(q))]))
        np.testing.assert_allclose(position, there[0], atol=1e-14)
        central = (there[1 : len(q) + 1] - there[len(q) + 1 :]).T / 2e-6
        np.testing.assert_allclose(jacobian, central, atol=1e-8)


@pytest.mark.parametrize("robot", ROBOTS.values(), ids=ROBOTS)
def test_the_jacobian_agrees_with_finite_differences(robot):
    rng, h = np.random.default_rng(0), 1e-6
    for _ in range(5):
        q = rng.uniform(robot.position_low, robot.position_high)
        p, r, j = jacobian(robot, q)
        here = forward_kinematics(robot, q)
        np.testing.assert_allclose(p, here[0], atol=1e-12)
        np.testing.assert_allclose(r, here[1], atol=1e-12)
        for i in range(robot.num_joints):
            moved = q.copy()
            moved[i] += h
            p2, r2 = forward_kinematics(robot, moved)
            np.testing.assert_allclose(j[:3, i], (p2 - p) / h, atol=1e-5)
            np.testing.assert_allclose(j[3:, i], rotation_vector((r2 - r) @ r.T / h), atol=1e-5)


def test_frames_of_the_textbooks_arm():
    origins, rotations = joint_frames(two_link_arm(), np.array([math.pi / 2, math.pi / 2]))
    np.testing.assert_allclose(origins, [[0, 0, 0.1], [0, 0.3, 0.1], [-0.2, 0.3, 0.1]], atol=1e-12)
    np.testing.assert_allclose(rotations[1][:, 0], [-1, 0, 0], atol=1e-12)
