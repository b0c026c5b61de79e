"""Options after a name: `gym:ALE/Pong-v5?noop_max=0`, `twin:fr3?latency=0.04&mass=1.1`."""

from __future__ import annotations

from urllib.parse import parse_qsl

from .errors import UsageError


def split_options(address: str) -> tuple[str, dict[str, str]]:
    """What stands before the question mark, and the options after it.

    Raises:
        UsageError: the options are not of the form name=value&name=value, or one stands twice.
    """
    head, _, query = address.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise UsageError(f"the options in {address!r} should read name=value&name=value") from None
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"option {twice[0]!r} stands twice in {address!r}")
    return head, dict(pairs)
