"""Settings: frozen dataclasses whose fields carry a sentence of help and know how to be set from text.

Order of precedence: recipe < the task's changes < --config FILE < --set key=value.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar

from ..errors import UsageError, unknown_name

T = TypeVar("T")


def setting(default: Any, help: str) -> Any:
    """A dataclass field with a default and one sentence of help: meaning and unit."""
    return dataclasses.field(default=default, metadata={"help": help})


def require(condition: bool, name: str, value: Any, valid: str) -> None:
    """Raise UsageError unless `condition`: the setting, its value, and what would be valid."""
    if not condition:
        raise UsageError(f"setting {name} = {value!r}: expected {valid}")


def with_changes(config: T, changes: Mapping[str, Any], where: str) -> T:
    """`config` with some settings replaced; values may be text, as they come from --set.

    Raises:
        UsageError: an unknown setting (with its neighbours) or a value of the wrong type.
    """
    types = typing.get_type_hints(type(config))
    values = {}
    for name, value in changes.items():
        if name not in types:
            raise unknown_name(f"setting in {where}", name, types)
        values[name] = _convert(name, value, types[name])
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def describe(config: Any) -> list[tuple[str, str, str]]:
    """(name, default, help) of every setting, for --help."""
    return [(f.name, _show(getattr(config, f.name)), f.metadata.get("help", "")) for f in dataclasses.fields(config)]


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """{"key": "value"} of a list of key=value texts."""
    result = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"--set takes key=value, got {text!r}")
        result[name.strip()] = value.strip()
    return result


def _show(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _convert(name: str, value: Any, kind: Any) -> Any:
    """`value` as the annotated type of the setting `name`."""
    options = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, UnionType) else (kind,)
    if type(None) in options and (value is None or value in ("none", "None")):
        return None
    for option in options:
        if option is not type(None):
            kind = option
    try:
        if typing.get_origin(kind) is tuple:
            parts = json.loads(f"[{value}]") if isinstance(value, str) else list(value)
            inner = typing.get_args(kind)[0]
            return tuple(inner(p) for p in parts)
        if typing.get_origin(kind) is typing.Literal:
            if value not in typing.get_args(kind):
                raise UsageError(f"setting {name} = {value!r}: expected one of {', '.join(typing.get_args(kind))}")
            return value
        if kind is bool:
            return {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}[str(value).lower()]
        if kind is int:
            number = float(value)
            if number != int(number):
                raise ValueError
            return int(number)
        return kind(value)
    except (ValueError, KeyError, TypeError, OverflowError):
        raise UsageError(f"setting {name} = {value!r}: expected {getattr(kind, '__name__', str(kind))}") from None
