"""Progress of long work: a bar with rate and remaining time on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


class Progress:
    """What `train`, `evaluate` and `deploy` call while they work; use it as a context manager."""

    EVERY = 10.0  # seconds between plain lines

    def __init__(self) -> None:
        self._bar: Any = None
        self._printed = time.monotonic()
        self._done = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, steps: int, total: int, values: Mapping[str, float]) -> None:
        """Training: so many steps of so many, and the newest metrics."""
        shown = {k.partition("/")[2] if k.startswith("train/") else k: f"{v:.3g}" for k, v in values.items()
                 if k in ("train/return", "train/success", "eval/return", "eval/success")}  # fmt: skip
        self._show(steps, total, "step", shown, always=any(k.startswith("eval/") for k in shown))

    def episodes(self, total: int, unit: str = "episode") -> Callable[[int], None]:
        """A callback for work that is counted in episodes, or in other units: called with how many more ended."""

        def ended(n: int) -> None:
            self._done += n
            self._show(min(self._done, total), total, unit, {})

        return ended

    def _show(self, done: int, total: int, unit: str, shown: dict[str, str], always: bool = False) -> None:
        if sys.stderr.isatty():
            if self._bar is None:
                from tqdm import tqdm

                self._bar = tqdm(total=total, unit=unit, unit_scale=unit == "step", dynamic_ncols=True)
            self._bar.update(done - self._bar.n)
            if shown:
                self._bar.set_postfix(shown, refresh=False)
        elif always or time.monotonic() - self._printed > self.EVERY:
            self._printed = time.monotonic()
            text = ", ".join(f"{k} {v}" for k, v in shown.items())
            print(f"{unit} {done:,} of {total:,}{', ' * bool(text)}{text}", file=sys.stderr, flush=True)
