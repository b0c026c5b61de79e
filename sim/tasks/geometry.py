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


def quat_matrix(quat_wxyz: Any) -> Any:
    """The rotations (N, 3, 3) of unit quaternions (N, 4)."""
    xp = array_namespace(quat_wxyz)
    w, x, y, z = (quat_wxyz[:, i] for i in range(4))
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]  # fmt: skip
    return xp.stack(rows, axis=1).reshape((-1, 3, 3))
