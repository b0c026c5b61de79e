"""Pickles of plain arrays, without running what a pickle asks to run.

A pickle is a program. This reader follows it with stand-ins for the few names that numpy's arrays are written with, and
refuses every other name before anything is called. What comes out is dicts, lists, tuples, texts, numbers and arrays of
numbers; nothing in it was made by numpy's own unpickling, and no array is larger than its bytes in the file.

It is the library's reader in Python, not in C: the C one takes memory by the gigabyte where a file of a few bytes says
so (a number of a memo, a length).
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError

LARGEST = 4 << 30  # bytes of a file
KINDS = "biufcSU"


class _Type:
    """Stands in for numpy.dtype."""

    def __init__(self, code: Any = "V", align: Any = False, copy: Any = True):
        self.code, self.order = code, "|"  # < > = or |

    def __setstate__(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) >= 5 and state[1] in ("<", ">", "|", "=")):
            raise pickle.UnpicklingError(f"a type of numbers in the form {str(state)[:60]}")
        if state[3] is not None or state[4] is not None:
            raise pickle.UnpicklingError("an array of records; expected numbers")
        self.order = state[1]

    def real(self) -> np.dtype:
        dtype = np.dtype(str(self.code)[:8])
        if dtype.kind not in KINDS:
            raise pickle.UnpicklingError(f"an array of type {dtype}; expected numbers or texts")
        return dtype if self.order == "|" else np.dtype(f"{self.order}{dtype.str[1:]}")


class _Array:
    """Stands in for numpy.ndarray while it is put together; `value` is the array itself."""

    def __init__(self, *_: Any):
        self.value = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _made(data, dtype, shape, "F" if fortran else "C")


def _made(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, _Type) or order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array made of a {type(data).__name__}; expected its bytes")
    return np.frombuffer(raw, dtype.real()).reshape(tuple(int(n) for n in shape), order=order).copy()


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return _made(data, dtype, (), "C")[()]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"a text in encoding {str(encoding)[:20]!r}")
    return text.encode("latin1")


_KNOWN = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    **{(f"{core}.multiarray", "_reconstruct"): _reconstruct for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.multiarray", "scalar"): _scalar for core in ("numpy.core", "numpy._core")},
    **{(f"{core}.numeric", "_frombuffer"): _made for core in ("numpy.core", "numpy._core")},
}


class _Reader(pickle._Unpickler):  # pyright: ignore[reportAttributeAccessIssue]
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array of numbers")
        return _KNOWN[module, name]

    def get_extension(self, code: int) -> None:
        raise pickle.UnpicklingError(f"it asks for the registered extension {code}")


def read_pickle(path: Path) -> Any:
    """What a pickle of plain arrays holds.

    Raises:
        DatasetError: it holds, or asks for, anything else; it is damaged or too large.
    """
    if path.stat().st_size > LARGEST:
        raise DatasetError(f"{path} has {path.stat().st_size:,} bytes; pickles are read up to {LARGEST:,}")
    try:
        reader = _Reader(io.BytesIO(path.read_bytes()), encoding="latin1")
        return _plain(reader.load(), path, 0, [0])
    except DatasetError:
        raise
    except pickle.UnpicklingError as error:
        raise DatasetError(f"{path} is refused: {error}. Poise reads pickles of plain arrays alone, and runs "
                           f"none") from None  # fmt: skip
    except Exception as error:  # whatever a broken program trips over
        raise DatasetError(f"{path} is no pickle of plain arrays: {type(error).__name__}: {str(error)[:200]}") from None


def _plain(value: Any, path: Path, depth: int, count: list[int]) -> Any:
    """The value with arrays in the places of their stand-ins."""
    count[0] += 1
    if depth > 12 or count[0] > 5_000_000:
        raise DatasetError(f"{path} is refused: lists in lists without end")
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {str(k): _plain(v, path, depth + 1, count) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, path, depth + 1, count) for v in value]
    if value is None or isinstance(value, str | bytes | int | float | bool | np.generic | np.ndarray):
        return value
    raise DatasetError(f"{path} is refused: it holds a {type(value).__name__}; expected arrays of numbers")
