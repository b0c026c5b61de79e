"""Ctrl-C as a wish, which a loop looks at when it is between two things, and not as an exception anywhere."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

_seen: list[int] = []  # by whoever looks out for them, from the outermost on


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Whether the user asked to stop; the first Ctrl-C or SIGTERM only says so, the second raises KeyboardInterrupt.

    What has been seen outside counts inside, too.
    """
    outermost = signal.getsignal(signal.SIGINT) is not _notice
    try:
        before = {s: signal.signal(s, _notice) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller stops us its own way
        before = {}
    try:
        yield lambda: bool(before and _seen)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before and outermost:
            _seen.clear()


def _notice(number, frame) -> None:
    if _seen:
        raise KeyboardInterrupt
    _seen.append(number)
