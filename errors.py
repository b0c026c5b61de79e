"""What can go wrong at a boundary, as one small tree.

    PoiseError                 a clear message for the user; the command line exits with 1
    ├── UsageError             an unknown task, setting or algorithm; the command line exits with 2
    ├── SpecError              what a policy expects and what a task or robot offers differ
    ├── PolicyFileError        a policy file that cannot be trusted or does not fit
    ├── RunError               a run folder that is locked, incomplete, or has no space left
    ├── DatasetError           a demonstration file that cannot be read or written
    └── RobotError
        ├── NotConnectedError  the device or its control process does not answer
        └── LimitViolatedError a pose or a way beyond the arm's limits

Every message says what was expected, what came, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PoiseError(Exception):
    """Base of every error that Poise raises on purpose."""


class UsageError(PoiseError):
    """The request itself is wrong: fix the command, not the files."""


class SpecError(PoiseError):
    """Two sides that must agree on observations or actions do not."""


class PolicyFileError(PoiseError):
    """A policy file that is damaged, of another version, or unsafe to read."""


class RunError(PoiseError):
    """A run folder that cannot be used as asked."""


class DatasetError(PoiseError):
    """A recording or demonstration file that cannot be used as asked."""


class RobotError(PoiseError):
    """Something on the arm's side of the control process."""


class NotConnectedError(RobotError):
    """The device or its control process is not there."""


class LimitViolatedError(RobotError):
    """A command beyond the arm's limits."""


def unknown_name(what: str, name: str, known: Iterable[str]) -> UsageError:
    """An error for a name that does not exist, with its nearest neighbours or the whole list."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return UsageError(f"unknown {what} {name!r}; {hint}")
