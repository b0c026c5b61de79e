"""`poise bench`: a benchmark of the repository, its rows printed as a table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from .errors import UsageError


def bench_command(options) -> dict[str, Any]:
    """Run the rows of a benchmark, and print them."""
    path = Path(__file__).parent / "tests" / "benchmarks" / f"bench_{options.what}.py"
    if not path.exists():
        raise UsageError(f"benchmarks live in the repository, not in the installed package: expected {path.name} "
                         f"in tests/benchmarks; run poise bench from a clone")  # fmt: skip
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    given = (("only", options.only), ("seconds", options.seconds), ("device", options.device))
    wishes = {k: v for k, v in given if v is not None}
    if options.device is not None and options.what != "gpu":
        raise UsageError(f"poise bench {options.what} takes no --device: it measures on the CPU")
    if wishes and options.what == "checkpoint":
        raise UsageError(f"poise bench {options.what} takes neither --only nor --seconds")
    rows = module.rows(**wishes)
    _print_rows(rows)
    return {"rows": rows}


def _print_rows(rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names] + [
        [f"{v:.4g}" if isinstance(v := row.get(n, ""), float) else str(v) for n in names] for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
