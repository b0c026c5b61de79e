"""Every fault of real_robot_faults.py on every backend: `poise bench faults`, or `--only BACKEND`.

A row a backend: of each kind of fault, how many there are and how many held, how many of them at a second or third try (on
the wall's clock alone, where a busy machine may be at fault), what was told, seconds; then what went wrong, if anything.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import real_robot_faults as faults


def rows(only: str | None = None) -> list[dict[str, Any]]:
    """The table's rows; progress goes to standard error."""
    table, wrong = [], []
    for backend in (only,) if only else tuple(faults.BACKENDS):
        done = []
        for row in faults.rows((backend,)):
            done.append(row)
            _say(backend, done, end="\r" if sys.stderr.isatty() else "")
        _say(backend, done, end="\n")
        table.append({"backend": backend, **{kind: _held(row for row in done if row["kind"] == kind) for kind in faults.KINDS},
                      "all": _held(done),
                      "tried again": sum(row["tries"] > 1 and not row["wrong"] for row in done), "told": _told(done), "seconds": round(sum(row["seconds"] for row in done))})  # fmt: skip
        wrong += [{"backend": backend, "wrong": f"{row['fault']}: {row['wrong']}"} for row in done if row["wrong"]]
    return table + wrong


def _held(rows: Any) -> str:
    found = list(rows)
    return f"{sum(not row['wrong'] for row in found)} of {len(found)}" if found else ""


def _told(rows: list[dict[str, Any]]) -> str:
    counts = Counter(row["told"] or "goes on" for row in rows if row["kind"] != "process")
    return ", ".join(f"{name} {n}" for name, n in counts.most_common())


def _say(backend: str, done: list[dict[str, Any]], end: str) -> None:
    if end:
        wrong = sum(bool(row["wrong"]) for row in done)
        print(f"{backend}: {len(done)} faults, {wrong} did not hold   ", end=end, file=sys.stderr, flush=True)
