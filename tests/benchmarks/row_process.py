"""Rows of a benchmark, each measured in a process of its own, so that the order of rows says nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from poise.errors import UsageError, unknown_name


def rows_apart(file: str, pairs: Sequence[Any], seconds: float, only: str, *more: str) -> list[dict[str, Any]]:
    """The rows whose `what` contains `only`, from `python FILE --row WHAT SECONDS [more]`, which prints one as JSON.

    Raises:
        UsageError: no row is called so, or one could not be measured.
    """
    chosen = [pair for pair in pairs if only in pair.what]
    if not chosen:
        raise unknown_name("benchmark", only, [pair.what for pair in pairs])
    return [_row(file, pair.what, seconds, more) for pair in chosen]


def _row(file: str, what: str, seconds: float, more: Sequence[str]) -> dict[str, Any]:
    command = [sys.executable, "-P", file, "--row", what, str(seconds), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    last = (done.stdout.splitlines() or [f"the row {what!r} ended with code {done.returncode}"])[-1]
    if done.returncode != 0:
        raise UsageError(last)
    return json.loads(last)
