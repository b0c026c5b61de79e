"""What a command answers that was given without its action: its help, and that it needs one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from .errors import UsageError


def needs_action(parser: argparse.ArgumentParser) -> Callable[[Any], dict[str, Any]]:
    """A handler for `poise data` or `poise robot` alone."""

    def run(options: Any) -> dict[str, Any]:
        parser.print_help()
        raise UsageError(f"{parser.prog} needs an action from the list above")

    return run
