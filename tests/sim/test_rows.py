"""Rows: indices in numpy's spelling and masks in torch's mean the same worlds."""

from __future__ import annotations

import numpy as np
import torch

from poise.sim.rows import columns, copied, on_device, replaced, restored, scattered, some, written, zeros
from poise.sim.task import Key

INDICES, MASK = np.array([2, 0]), torch.tensor([True, False, True, False])
CPU = torch.device("cpu")


def test_some_gives_the_meant_rows_and_on_a_device_all_of_them():
    values = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(some(values, INDICES), [[4, 5], [0, 1]])
    tensor = torch.from_numpy(values)
    assert some(tensor, MASK) is tensor


def test_replaced_is_a_new_array_with_the_meant_rows_new():
    values = np.zeros((4, 2))
    expected = [[3, 4], [0, 0], [1, 2], [0, 0]]
    np.testing.assert_array_equal(replaced(values, INDICES, np.array([[1, 2], [3, 4]])), expected)
    of_all = torch.tensor([[3.0, 4.0], [7.0, 7.0], [1.0, 2.0], [8.0, 8.0]])
    np.testing.assert_array_equal(replaced(torch.zeros(4, 2), MASK, of_all), expected)
    np.testing.assert_array_equal(replaced(torch.zeros(4, dtype=torch.int64), MASK, 5), [5, 0, 5, 0])
    assert not values.any()


def test_written_is_in_place_for_numpy_and_new_for_torch():
    values, tensor = np.zeros(4), torch.zeros(4)
    assert written(values, INDICES, 1.0) is values and values.tolist() == [1, 0, 1, 0]
    assert written(tensor, MASK, 1.0).tolist() == [1, 0, 1, 0] and not tensor.any()


def test_scattered_makes_a_dict_whole_where_it_was_empty():
    part = {"a": np.array([5.0, 6.0])}
    assert scattered({"a": np.zeros(4)}, INDICES, part, 4)["a"].tolist() == [6, 0, 5, 0]
    first = torch.ones(1).expand(4)
    begun = scattered({}, torch.ones(4, dtype=torch.bool), {"a": first}, 4)
    assert begun["a"].tolist() == [1, 1, 1, 1] and begun["a"].stride() == (1,)
    assert scattered(begun, MASK, {"a": torch.arange(4.0)}, 4)["a"].tolist() == [0, 1, 2, 1]


def test_state_is_copied_from_numpy_and_shared_on_a_device():
    array, tensor = np.ones(3), torch.ones(3)
    assert copied(array) is not array and restored(array, array) is not array
    assert copied(tensor) is tensor and restored(tensor, torch.zeros(3)) is tensor
    assert restored(np.ones(3), torch.zeros(3)).dtype == torch.float32


def test_numbers_on_a_device_are_float32_and_places_are_slices_where_they_can_be():
    assert zeros((2,), None).dtype == np.float64 and zeros((2,), CPU).dtype == torch.float32
    assert zeros((2,), None, "int64").dtype == np.int64 and zeros((2,), CPU, "int64").dtype == torch.int64
    assert on_device(np.ones(2), CPU).dtype == torch.float32 and on_device(np.arange(2), CPU).dtype == torch.int64
    assert columns(np.array([3, 4, 5]), CPU) == columns(np.array([3, 4, 5]), None) == slice(3, 6)
    assert columns(np.array([3, 5]), CPU).tolist() == columns(np.array([3, 5]), None).tolist() == [3, 5]


def test_a_key_of_tensors_draws_for_all_worlds_the_numbers_that_numpy_draws_for_some():
    key = Key(7, np.arange(4), np.array([0, 3, 1, 0]))
    whole = Key(7, torch.from_numpy(key.worlds), torch.from_numpy(key.episodes))
    for draw in ("uniform", "normal"):
        expected = getattr(key.some(INDICES), draw)("goal", 3)
        np.testing.assert_allclose(getattr(whole.some(MASK), draw)("goal", 3)[INDICES], expected, atol=1e-6)
