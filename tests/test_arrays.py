"""Constants: of the kind of what they meet, made once, and never a copy from the host after that."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poise.arrays import constant
from tests.capturable import only_capturable

VALUES = (0.1, -2.0)


@pytest.mark.parametrize("values", [VALUES, np.array(VALUES)], ids=["tuple", "array"])
def test_a_constant_has_the_namespace_and_dtype_of_what_it_meets(values):
    for dtype in (np.float64, np.float32):
        mine = constant(values, np.zeros(3, dtype))
        assert isinstance(mine, np.ndarray) and mine.dtype == dtype
        np.testing.assert_array_equal(mine, np.array(VALUES, dtype))
    for dtype in (torch.float64, torch.float32):
        theirs = constant(values, torch.zeros(3, dtype=dtype))
        assert isinstance(theirs, torch.Tensor) and theirs.dtype == dtype and theirs.device.type == "cpu"
        torch.testing.assert_close(theirs, torch.tensor(VALUES, dtype=dtype), rtol=0, atol=0)
    assert constant(values, torch.zeros(1, device="meta")).device.type == "meta"


@pytest.mark.parametrize("values", [VALUES, np.array(VALUES)], ids=["tuple", "array"])
@pytest.mark.parametrize("like", [np.zeros(1), np.zeros(1, np.float32), torch.zeros(1)], ids=["f64", "f32", "torch"])
def test_it_is_made_once(values, like):
    assert constant(values, like) is constant(values, like)


def test_arrays_are_known_by_identity_so_equal_ones_of_others_do_not_meet():
    one, other = np.array(VALUES), np.array(VALUES)
    assert constant(one, torch.zeros(1)) is not constant(other, torch.zeros(1))


def test_nobody_can_write_into_the_one_that_everyone_shares():
    with pytest.raises(ValueError, match="read-only"):
        constant(VALUES, np.zeros(1))[0] = 1.0


def test_one_made_under_inference_can_be_learned_through_later():
    with torch.inference_mode():
        constant((3.0, 5.0), torch.zeros(1))
    weight = torch.ones(2, requires_grad=True)
    (weight * constant((3.0, 5.0), torch.zeros(1))).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [3.0, 5.0]


def test_after_the_first_call_nothing_is_copied_from_the_host():
    constant((7.0, 8.0), torch.zeros(1))
    with only_capturable():
        constant((7.0, 8.0), torch.zeros(1))
    with only_capturable(), pytest.raises(AssertionError, match="from the host"):
        constant((7.0, 9.0), torch.zeros(1))
