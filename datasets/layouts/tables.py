"""Parquet and arrow files: pyarrow where it is installed, and one line on how to get it where it is not."""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import DatasetError


def needs_pyarrow(what: str) -> Any:
    """The module pyarrow.

    Raises:
        DatasetError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise DatasetError(f"{what}, which needs pyarrow: pip install 'poise[lerobot]'") from None
