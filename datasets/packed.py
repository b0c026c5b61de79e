"""Attributes and small arrays as JSON and back, to the bit: what a layout has no place for is kept with it as text.

    str, int, float, bool, None       as JSON has them
    numbers of numpy, and arrays      {"dtype": "<f8", "shape": [3], "base64": "…"}; shape null for a scalar
    arrays of text                    {"text": ["a", "b"], "shape": [2]}
    bytes                             {"bytes": "…"} in base64
    lists and dicts                   {"list": […]}, {"dict": {…}}

Nothing in such a text can run: numbers, texts and their shapes are all it holds.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any

import numpy as np

from ..errors import DatasetError

PLAIN = "biufcSU"  # kinds of numpy types whose bytes are their whole value


def pack(value: Any) -> Any:
    """The value in terms of JSON.

    Raises:
        DatasetError: it is of a type that has no such form.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, bytes) and not isinstance(value, np.generic):
        return {"bytes": _text(value)}
    if isinstance(value, list | tuple):
        return {"list": [pack(v) for v in value]}
    if isinstance(value, dict):
        return {"dict": {str(k): pack(v) for k, v in value.items()}}
    array = np.asarray(value) if isinstance(value, np.ndarray | np.generic) else None
    if array is not None and array.dtype.kind in PLAIN:
        shape = list(array.shape) if isinstance(value, np.ndarray) else None
        return {"dtype": array.dtype.str, "shape": shape, "base64": _text(array.tobytes())}
    if array is not None and array.dtype.kind == "O" and all(isinstance(v, str) for v in array.reshape(-1)):
        return {"text": array.reshape(-1).tolist(), "shape": list(array.shape)}
    raise DatasetError(f"an attribute of type {type(value).__name__} has no place in this layout: {str(value)[:80]!r}")


def unpack(packed: Any) -> Any:
    """The value of such a form.

    Raises:
        DatasetError: it is none.
    """
    try:
        return _unpack(packed)
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise DatasetError(f"what was kept of the file's attributes is damaged: {error}") from None


def _unpack(packed: Any) -> Any:
    if not isinstance(packed, dict):
        if packed is None or isinstance(packed, str | int | float | bool):
            return packed
        raise ValueError(f"{type(packed).__name__} stands alone")
    if "bytes" in packed:
        return base64.b64decode(packed["bytes"], validate=True)
    if "list" in packed:
        return [_unpack(v) for v in packed["list"]]
    if "dict" in packed:
        return {k: _unpack(v) for k, v in packed["dict"].items()}
    if "text" in packed:
        array = np.empty(len(packed["text"]), object)
        array[:] = packed["text"]
        return array.reshape(packed["shape"])
    dtype, shape = np.dtype(packed["dtype"]), packed["shape"]
    if dtype.kind not in PLAIN:
        raise ValueError(f"no numbers of type {dtype}")
    data = base64.b64decode(packed["base64"], validate=True)
    if len(data) != dtype.itemsize * math.prod(shape or ()):
        raise ValueError(f"{len(data)} bytes are no {dtype} of shape {shape}")
    array = np.frombuffer(data, dtype).reshape(shape or ()).copy()
    return array if shape is not None else array[()]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
