"""Options after a name: `gym:ALE/Pong-v5?noop_max=0`, `twin:fr3?latency=0.04&mass=1.1`."""

from __future__ import annotations

import importlib
import json
from typing import Any
from urllib.parse import parse_qsl, quote

from .errors import UsageError, unknown_name


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


def value_of(text: str) -> Any:
    """The value of an option: as JSON has it, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def positive(name: str, text: str, kind: type = float, unit: str = "") -> Any:
    """The value of an option that is a number above 0, whole where kind is int.

    Raises:
        UsageError: it is none, or absurdly large.
    """
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:  # False for NaN too
        whole = "whole " if kind is int else ""
        raise UsageError(f"{name}={text}: expected a {whole}number {f'of {unit} ' if unit else ''}above 0")
    return value


def with_option(address: str, name: str, value: str) -> str:
    """The address with one more option, which takes the place of the same one in it."""
    head, options = split_options(address)
    return f"{head}?" + "&".join(f"{k}={quote(v, safe='/:')}" for k, v in {**options, name: value}.items())


def without_workers(task: str) -> tuple[str, int]:
    """A task's name without the option `workers`, which changes where worlds are stepped and nothing else; its value.

    Raises:
        UsageError: the value is no number of processes.
    """
    head, options = split_options(task)
    if (text := options.pop("workers", None)) is None:
        return task, 0
    if not text.isdecimal():
        raise UsageError(f"workers={text} in {task!r}: expected a number of processes, 0 for none")
    others = "&".join(option for option in task.partition("?")[2].split("&") if not option.startswith("workers="))
    return f"{head}?{others}" if others else head, int(text)


def own_attribute(name: str) -> Any:
    """What the name py:module:attribute of something of somebody's own stands for.

    Raises:
        UsageError: not of the form, or nothing there.
    """
    module_name, _, attribute = name.removeprefix("py:").partition(":")
    if not module_name or not attribute:
        raise UsageError(f"what is your own is named py:module:attribute, not {name!r}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f"cannot import {module_name!r} for {name}: {error}; is its folder on PYTHONPATH?") from None
    if not hasattr(module, attribute):
        known = [n for n in vars(module) if not n.startswith("_")]
        raise unknown_name(f"attribute of module {module_name}:", attribute, known)
    return getattr(module, attribute)
