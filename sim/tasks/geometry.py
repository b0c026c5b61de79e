"""Lengths and angles in tasks, array-agnostic. Legend: N worlds."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from ...arrays import constant


def distance(a: Any, b: Any) -> Any:
    """(N,) between points (N, k)."""
    xp = array_namespace(a)
    return xp.sqrt(xp.sum((a - b) ** 2, axis=-1))


def uniform_in(u: Any, low: tuple[float, ...], high: tuple[float, ...]) -> Any:
    """Points (n, k) of a box between two corners, from uniform numbers (n, k) in (0, 1)."""
    corner = constant(low, u)
    return corner + (constant(high, u) - corner) * u


def cos_sin(angle: Any) -> Any:
    """(N, 2) of angles (N,) [rad]."""
    xp = array_namespace(angle)
    return xp.stack([xp.cos(angle), xp.sin(angle)], axis=1)
