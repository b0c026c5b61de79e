"""Every fault of real_robot_faults.py on every backend: `poise bench faults`, or `--only BACKEND`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import real_robot_faults as faults


def rows(only: str | None = None) -> list[dict[str, Any]]:
    """One row a backend and kind of fault: how many there are, how they were told, and what went wrong."""
    done = list(faults.rows((only,) if only else tuple(faults.BACKENDS)))
    table = []
    for backend, kind in dict.fromkeys((row["backend"], row["kind"]) for row in done):
        own = [row for row in done if (row["backend"], row["kind"]) == (backend, kind)]
        told = Counter(row["told"] or "goes on" for row in own) if kind != "process" else {}
        table.append({"backend": backend, "kind": kind, "faults": len(own),
                      "as the table says": sum(not row["wrong"] for row in own),
                      "told": ", ".join(f"{name} {n}" for name, n in told.items()),
                      "wrong": "; ".join(f"{row['fault']}: {row['wrong']}" for row in own if row["wrong"])})  # fmt: skip
    return table
