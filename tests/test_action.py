"""From the policy's output to commands: hand arithmetic, and limits that hold under any targets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poise.action import action_slices, control_value, joint_pos_target, shape_command
from poise.arrays import constant
from poise.spec import ActionTerm, Spec
from tests.capturable import only_capturable

ARM = ActionTerm(
    name="arm",
    kind="joint_pos",
    joints=("a", "b"),
    low=(-1.0, -2.0),
    high=(1.0, 2.0),
    scale=(0.1, 0.2),
    home=(0.5, -0.5),
    lead=(0.3, 0.15),
    max_velocity=(2.0, 2.0),
    max_acceleration=(9.0, 9.0),
)


def test_slices_lie_one_after_the_other_in_the_terms_order():
    gripper = ActionTerm("gripper", "control", low=(0.0,), high=(255.0,))
    mode = ActionTerm("mode", "discrete", n=3)
    spec = Spec({}, (ARM, mode, gripper), 0.05)
    assert action_slices(spec) == {"arm": slice(0, 2), "mode": slice(2, 3), "gripper": slice(3, 4)}


# ---- the joint target --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "measured", "last_target", "action", "expected"),
    [
        ("last_target", [0.0, 0.0], [0.05, -0.05], [1.0, 0.5], [0.15, 0.05]),
        ("measured", [0.1, 0.2], [9.0, 9.0], [-1.0, 0.5], [0.0, 0.3]),
        ("home", [0.4, -0.5], [9.0, 9.0], [1.0, -0.5], [0.6, -0.6]),
        ("last_target", [0.0, 0.0], [0.25, -0.1], [1.0, -1.0], [0.3, -0.15]),  # held back by the lead
        ("last_target", [0.9, -1.95], [0.95, -1.9], [1.0, -1.0], [1.0, -2.0]),  # and by the bounds
        ("last_target", [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]),
    ],
)
def test_the_target_is_reference_plus_scaled_action_within_lead_and_bounds(
    reference, measured, last_target, action, expected
):
    term = dataclasses.replace(ARM, reference=reference)
    arguments = [np.array(x) for x in (action, measured, last_target)]
    np.testing.assert_allclose(joint_pos_target(term, *arguments), expected, atol=1e-12)
    theirs = joint_pos_target(term, *(torch.tensor(x, dtype=torch.float64) for x in (action, measured, last_target)))
    np.testing.assert_allclose(theirs.numpy(), expected, atol=1e-12)


@given(st.lists(st.tuples(*[st.floats(-1, 1)] * 2), min_size=1, max_size=40))
def test_a_blocked_arm_does_not_wind_up_a_distant_target(actions):
    measured, target = np.zeros(2), np.zeros(2)
    for action in actions:
        target = joint_pos_target(ARM, np.array(action), measured, target)
        assert np.all(np.abs(target - measured) <= np.array(ARM.lead) + 1e-12)


def test_a_measured_position_outside_the_bounds_is_led_back_inside():
    target = joint_pos_target(ARM, np.zeros(2), np.array([1.5, -2.5]), np.array([1.5, -2.5]))
    np.testing.assert_allclose(target, [1.0, -2.0])


def test_what_is_not_a_number_stays_visible_to_the_supervisor():
    target = joint_pos_target(ARM, np.array([np.nan, 0.0]), np.zeros(2), np.zeros(2))
    assert np.isnan(target[0]) and target[1] == 0.0


def test_a_control_value_spans_its_bounds():
    term = ActionTerm("motor", "control", low=(0.0, -2.0), high=(255.0, 2.0))
    action = np.array([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0], [0.5, -0.5]])
    expected = [[0.0, -2.0], [127.5, 0.0], [255.0, 2.0], [191.25, -1.0]]
    np.testing.assert_allclose(control_value(term, action), expected)
    np.testing.assert_allclose(control_value(term, torch.from_numpy(action)).numpy(), expected)


# ---- commands on the way to the target ---------------------------------------------------------

V, A, DT = np.array([2.358, 4.734, 0.5]), np.array([9.0, 9.0, 2.0]), 0.005


def drive(targets: np.ndarray, start: np.ndarray, v=V, a=A, dt=DT) -> tuple[np.ndarray, np.ndarray]:
    """Positions and velocities (T + 1, n) of a command that chases targets (T, n) from rest at `start`."""
    position, velocity = start, np.zeros_like(start)
    positions, velocities = [position], [velocity]
    for target in targets:
        position, velocity = shape_command(position, velocity, target, v, a, dt)
        positions.append(position)
        velocities.append(velocity)
    return np.array(positions), np.array(velocities)


def moving_targets(rng: np.random.Generator, steps: int, held: int) -> np.ndarray:
    return np.repeat(rng.uniform(-1, 1, (steps // held, 3)), held, axis=0)


@pytest.mark.parametrize("held", [1, 3, 10, 37, 400])
def test_limits_hold_and_the_hull_is_never_left_under_random_targets(held):
    rng = np.random.default_rng(held)
    targets = moving_targets(rng, 20_000, held) * rng.choice([1.0, 0.1, 0.001])
    start = rng.uniform(-0.1, 0.1, 3)
    position, velocity = drive(targets, start)
    assert np.all(np.abs(velocity) <= V * (1 + 1e-12))
    assert np.all(np.abs(np.diff(velocity, axis=0)) <= A * DT * (1 + 1e-9))
    np.testing.assert_allclose(np.diff(position, axis=0), velocity[1:] * DT, atol=1e-12)
    lowest = np.minimum.accumulate(np.vstack([start, targets]))
    highest = np.maximum.accumulate(np.vstack([start, targets]))
    assert (lowest - position).max() < 1e-9 and (position - highest).max() < 1e-9


@given(distance=st.floats(1e-6, 2.0), v=st.floats(0.01, 5.0), a=st.floats(0.1, 20.0))
def test_a_static_target_is_reached_without_overshoot_and_held(distance, v, a):
    v, a = np.array([v]), np.array([a])
    periods = int((distance / v[0] + v[0] / a[0] + 2 * np.sqrt(distance / a[0])) / DT) + 10
    position, velocity = drive(np.full((periods, 1), distance), np.zeros(1), v, a)
    assert position.max() <= distance + 1e-12, "overshoot"
    assert abs(position[-1, 0] - distance) < 1e-12 and abs(velocity[-1, 0]) < 1e-9


def test_a_long_move_takes_hardly_longer_than_the_fastest_there_is():
    position, _ = drive(np.full((400, 3), 1.0), np.zeros(3))
    fastest = 1.0 / V + V / A  # trapezoid of velocity, in continuous time
    fastest[1] = 2 * np.sqrt(1.0 / A[1])  # this joint never gets to its highest speed
    taken = np.argmax(position > 1 - 1e-9, axis=0) * DT
    assert np.all(taken[:2] <= fastest[:2] + 2 * DT) and taken[2] == 0  # the slow joint is still on its way


def test_the_first_periods_by_hand():
    position, velocity = drive(np.full((4, 1), 1.0), np.zeros(1), np.array([0.25]), np.array([2.0]), 0.05)
    np.testing.assert_allclose(velocity[:, 0], [0.0, 0.1, 0.2, 0.25, 0.25])
    np.testing.assert_allclose(position[:, 0], [0.0, 0.005, 0.015, 0.0275, 0.04])


def test_a_move_shorter_than_one_period_of_acceleration_arrives_at_once_and_stops():
    position, velocity = drive(np.full((2, 1), 1e-4), np.zeros(1), np.array([1.0]), np.array([10.0]), 0.005)
    np.testing.assert_allclose(position[1:, 0], 1e-4)
    np.testing.assert_allclose(velocity[:, 0], [0.0, 0.02, 0.0], atol=1e-12)


def test_at_rest_on_the_target_nothing_moves():
    position, velocity = shape_command(np.array([0.3]), np.zeros(1), np.array([0.3]), 1.0, 1.0, 0.005)
    assert position[0] == 0.3 and velocity[0] == 0.0


def test_a_target_that_turns_round_is_met_with_full_braking_first():
    position, velocity = shape_command(np.zeros(1), np.array([0.5]), np.array([-1.0]), 1.0, 2.0, 0.05)
    np.testing.assert_allclose(velocity, [0.4])
    np.testing.assert_allclose(position, [0.02])


def test_numpy_and_torch_agree_over_a_long_chase():
    rng = np.random.default_rng(0)
    targets = moving_targets(rng, 2000, 10)
    positions, velocities = drive(targets, np.zeros(3))
    position, velocity = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    limits = torch.from_numpy(V), torch.from_numpy(A)
    for i, target in enumerate(torch.from_numpy(targets)):
        position, velocity = shape_command(position, velocity, target, *limits, DT)
        np.testing.assert_allclose(position.numpy(), positions[i + 1], atol=1e-12)
        np.testing.assert_allclose(velocity.numpy(), velocities[i + 1], atol=1e-11)


def test_worlds_in_a_batch_move_as_each_alone():
    rng = np.random.default_rng(0)
    position, velocity, target = rng.normal(size=(3, 5, 3))
    together = shape_command(position, velocity, target, V, A, DT)
    for w in range(5):
        alone = shape_command(position[w], velocity[w], target[w], V, A, DT)
        np.testing.assert_array_equal(together[0][w], alone[0])
        np.testing.assert_array_equal(together[1][w], alone[1])


def test_a_target_that_is_not_a_number_stays_visible_to_the_supervisor():
    position, _ = shape_command(np.zeros(2), np.zeros(2), np.array([np.nan, 0.0]), 1.0, 1.0, 0.005)
    assert np.isnan(position[0]) and position[1] == 0.0


def test_a_graph_can_record_it_all():
    action, here, last = (0.1 * torch.ones(4, 2) for _ in range(3))
    rest = torch.zeros_like(here)

    def step():
        target = joint_pos_target(ARM, action, here, last)
        return shape_command(here, rest, target, constant(ARM.max_velocity, here), 9.0, 0.005), control_value(
            ARM, action
        )

    expected = step()
    with only_capturable():
        again = step()
    torch.testing.assert_close(again, expected, rtol=0, atol=0)
