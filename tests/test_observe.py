"""observe: readings in the Spec's order, the same from numpy and torch; what is missing is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poise.errors import SpecError
from poise.kinematics import forward_kinematics
from poise.observe import add_kinematics, observe
from poise.robots import FR3
from poise.spec import ObsTerm, Spec
from tests.capturable import only_capturable

SPEC = Spec(
    observations={
        "state": (ObsTerm("joint_pos", (2,)), ObsTerm("contact", ()), ObsTerm("rotation", (2, 2))),
        "goal": (ObsTerm("target", (3,)),),
    },
    actions=(),
    control_dt=0.05,
)


def readings(batch: tuple[int, ...], dtype=np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"target": (3,), "rotation": (2, 2), "joint_pos": (2,), "contact": (), "unused": (9,)}
    return {name: rng.normal(size=(*batch, *shape)).astype(dtype) for name, shape in shapes.items()}


def test_terms_lie_in_the_specs_order_whatever_the_readings_order():
    given = {"rotation": np.array([[4, 5], [6, 7]]), "target": np.array([8.0, 9, 10]), "contact": np.array(3.0),
             "joint_pos": np.array([1.0, 2.0])}  # fmt: skip
    groups = observe(SPEC, given)
    assert groups["state"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert groups["goal"].tolist() == [8, 9, 10]
    assert list(groups) == ["state", "goal"]


@pytest.mark.parametrize("batch", [(), (5,), (5, 3), (0,)])
def test_every_leading_axis_is_kept_and_the_slices_find_the_terms(batch):
    given = readings(batch)
    state = observe(SPEC, given)["state"]
    assert state.shape == (*batch, SPEC.obs_dim()) and state.dtype == np.float32
    for name, where in SPEC.slices().items():
        np.testing.assert_array_equal(state[..., where], given[name].reshape(*batch, -1).astype(np.float32)
                                      if batch != (0,) else np.zeros((0, where.stop - where.start)))  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numpy_and_torch_give_the_same_numbers(dtype):
    given = readings((4,), dtype)
    ours, theirs = observe(SPEC, given), observe(SPEC, {k: torch.from_numpy(v) for k, v in given.items()})
    for group in ours:
        assert isinstance(theirs[group], torch.Tensor) and theirs[group].dtype == torch.float32
        np.testing.assert_array_equal(ours[group], theirs[group].numpy())


def test_an_observation_does_not_change_with_the_readings_it_was_made_from():
    given = readings((4,), np.float32)
    for spec in (SPEC, Spec({"goal": SPEC.observations["goal"]}, (), 0.05)):  # one term alone too
        made = observe(spec, given)
        before = made["goal"].copy()
        given["target"] += 1
        np.testing.assert_array_equal(made["goal"], before)


def test_a_missing_reading_is_named_with_those_there_are():
    given = readings((4,))
    del given["contact"]
    with pytest.raises(SpecError, match="state/contact has no reading; there are joint_pos, rotation, target, unused"):
        observe(SPEC, given)


@pytest.mark.parametrize("shape", [(4, 3), (2, 4), (4,)])
def test_a_reading_of_another_shape_is_named_with_both_shapes(shape):
    given = {**readings((4,)), "joint_pos": np.zeros(shape)}
    with pytest.raises(SpecError, match=r"state/joint_pos: expected \(\.\.\., 2\), got shape"):
        observe(SPEC, given)


def test_the_tool_is_where_the_measured_joints_put_it():
    q = np.random.default_rng(0).uniform(FR3.position_low, FR3.position_high, (6, 7))
    given = {"joint_pos": q, "joint_vel": np.zeros((6, 7))}
    more = add_kinematics(given, FR3)
    np.testing.assert_array_equal(more["tool_pos"], forward_kinematics(FR3, q)[0])
    assert set(more) == {"joint_pos", "joint_vel", "tool_pos", "tool_rot"}
    assert set(given) == {"joint_pos", "joint_vel"}


def test_a_graph_can_record_it():
    q = torch.zeros(2, 7)
    expected = add_kinematics({"joint_pos": q}, FR3)  # makes the constants
    spec = Spec({"state": (ObsTerm("tool_pos", (3,)), ObsTerm("tool_rot", (6,)))}, (), 0.05)
    with only_capturable():
        again = observe(spec, add_kinematics({"joint_pos": q}, FR3))["state"]
    torch.testing.assert_close(again, torch.cat([expected["tool_pos"], expected["tool_rot"]], 1), rtol=0, atol=0)
