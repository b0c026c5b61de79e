"""Ctrl-C as a wish, which a loop looks at when it is between two things, and not as an exception anywhere."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Whether the user asked to stop; the first Ctrl-C or SIGTERM only says so, the second raises KeyboardInterrupt."""
    seen: list[int] = []

    def notice(number, frame):
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    try:
        before = {s: signal.signal(s, notice) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller stops us its own way
        before = {}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
