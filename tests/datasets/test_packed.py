"""Attributes as JSON and back."""

import json

import numpy as np
import pytest

from poise.datasets.packed import pack, unpack
from poise.errors import DatasetError

VALUES = [None, "é", 3, -1.5, True, b"\x00\xff", np.float32(0.1), np.bool_(True), np.bytes_(b"ab"), np.array([1, 2], ">i2"),
          np.zeros((0, 3)), np.array([["a"], ["b"]], object), ["x", {"y": 1}]]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_with_its_type(value):
    found = unpack(json.loads(json.dumps(pack(value))))
    assert type(found) is type(value)
    if isinstance(value, np.ndarray):
        assert (found.dtype, found.shape, found.tolist()) == (value.dtype, value.shape, value.tolist())
    else:
        assert found == value


def test_not_a_number_and_infinity_come_back():
    np.testing.assert_array_equal(unpack(json.loads(json.dumps(pack([float("nan"), float("inf")])))), [np.nan, np.inf])


def test_an_object_has_no_place():
    with pytest.raises(DatasetError, match="type object has no place"):
        pack(object())


@pytest.mark.parametrize("damaged", [[1], {"dtype": "O", "shape": [1], "base64": ""}, {"bytes": "!"}, {},
                                     {"dtype": "<f8", "shape": [3], "base64": ""}])  # fmt: skip
def test_what_is_damaged_is_refused(damaged):
    with pytest.raises(DatasetError, match="damaged"):
        unpack(damaged)
