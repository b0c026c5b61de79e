"""Faults that an arm's stack must survive, one row each: backends by commands, clocks, devices, lines, processes.

    python tests/real_robot_faults.py [BACKEND …] [KIND …]      rows as they come; all of what is not named

faults/ holds them as data, and how each is made and judged; `make faults` prints the table of all.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from faults.backends import BACKENDS
from faults.bench import Bench
from faults.processes import process_faults, run_process_fault

KINDS = ("command", "clock", "device", "line", "process")


def rows(backends: Sequence[str] = tuple(BACKENDS), kinds: Sequence[str] = KINDS) -> Iterator[dict[str, Any]]:
    """One row a fault and backend."""
    for backend in backends:
        with Bench(backend) as bench:
            for fault in [fault for fault in bench.faults() if fault.kind in kinds]:
                began = time.monotonic()
                yield _row(backend, fault.kind, fault.name, bench.run(fault), began)
        for who, what in process_faults(backend) if "process" in kinds else ():
            began = time.monotonic()
            yield _row(backend, "process", f"{what} of {who}", run_process_fault(backend, who, what), began)


def _row(backend: str, kind: str, fault: str, outcome: tuple[str, str, int], began: float) -> dict[str, Any]:
    told, wrong, tries = outcome
    return {"backend": backend, "kind": kind, "fault": fault, "told": told, "wrong": wrong, "tries": tries,
            "seconds": round(time.monotonic() - began, 2)}  # fmt: skip


if __name__ == "__main__":
    asked = sys.argv[1:]
    chosen = [[name for name in known if name in asked] or list(known) for known in (BACKENDS, KINDS)]
    for row in rows(*chosen):
        print(json.dumps(list(row.values())), flush=True)
