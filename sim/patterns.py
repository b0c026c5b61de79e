"""Patterns: grey textures that a geom's colour shines through, for worlds that look different.

Three are MuJoCo's own; the others are drawn here, from fixed seeds, so that every machine shows the same ones. Each is
there twice: flat, for planes, and on the six sides of a cube, for everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

SIZE = 64  # [pixels] of a side
_BUILTIN = {"checker": mujoco.mjtBuiltin.mjBUILTIN_CHECKER, "gradient": mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
            "dots": mujoco.mjtBuiltin.mjBUILTIN_FLAT}  # fmt: skip


def wood(rng: np.random.Generator) -> np.ndarray:
    """Rings of a trunk that was cut along: (SIZE, SIZE) in [0, 1], as the others below."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    radius = np.hypot(x - 0.4, 0.2 * (y - 0.3)) + 0.06 * clouds(rng)
    return 0.55 + 0.45 * (10.0 * radius % 1.0)


def brushed(rng: np.random.Generator) -> np.ndarray:
    """Fine lines along one side, as on metal."""
    noise = rng.random((SIZE, SIZE))
    along = np.mean([np.roll(noise, shift, axis=1) for shift in range(16)], axis=0)
    return np.clip(0.75 + (along - along.mean()) / along.std() * 0.1, 0.0, 1.0)


def cells(rng: np.random.Generator) -> np.ndarray:
    """Stones with joints between: each pixel belongs to the nearest of 24 points (Voronoi's diagram on a torus)."""
    points, shade = rng.random((24, 2)), rng.uniform(0.5, 1.0, 24)
    pixels = np.moveaxis(np.mgrid[0:SIZE, 0:SIZE], 0, -1)[:, :, None] / SIZE
    offset = np.abs(pixels - points)  # (SIZE, SIZE, 24, 2)
    distance = np.linalg.norm(np.minimum(offset, 1.0 - offset), axis=-1)
    nearest = np.sort(distance, axis=-1)
    return np.where(nearest[..., 1] - nearest[..., 0] < 0.02, 0.25, shade[distance.argmin(axis=-1)])


def clouds(rng: np.random.Generator) -> np.ndarray:
    """Smooth spots of four sizes, each half as large and half as strong as the last."""
    total = np.zeros((SIZE, SIZE))
    for octave in range(4):
        count = 3 * 2**octave
        grid = rng.random((count, count))
        at = np.arange(SIZE) * count / SIZE
        low, share = at.astype(int), at % 1.0
        share = share * share * (3.0 - 2.0 * share)
        rows = grid[low] * (1.0 - share)[:, None] + grid[(low + 1) % count] * share[:, None]
        total += (rows[:, low] * (1.0 - share) + rows[:, (low + 1) % count] * share) / 2**octave
    return (total - total.min()) / (total.max() - total.min())


_DRAWN: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "wood": wood, "brushed": brushed, "cells": cells, "clouds": clouds,
}  # fmt: skip
PATTERNS = ("plain", *_BUILTIN, *_DRAWN)  # what the numbers of geom_pattern mean


def add_pattern(spec: mujoco.MjSpec, name: str, kind: str) -> None:
    """Add the material `pattern/NAME/KIND` with its texture; kind: 2d | cube."""
    title, texture = f"pattern/{name}/{kind}", mujoco.mjtTexture.mjTEXTURE_2D
    height = SIZE if kind == "2d" else 6 * SIZE
    if kind == "cube":
        texture = mujoco.mjtTexture.mjTEXTURE_CUBE
    settings: dict[str, Any] = {}
    if name in _BUILTIN:
        settings = {"builtin": _BUILTIN[name], "rgb1": [1.0, 1.0, 1.0], "rgb2": [0.5, 0.5, 0.5]}
    if name == "dots":
        settings |= {"mark": mujoco.mjtMark.mjMARK_RANDOM, "random": 0.05, "markrgb": [0.0, 0.0, 0.0]}
    made = spec.add_texture(name=title, type=texture, width=SIZE, height=height, **settings)
    if name in _DRAWN:
        grey = np.round(255 * _DRAWN[name](np.random.default_rng(PATTERNS.index(name)))).astype(np.uint8)
        made.nchannel = 3
        made.data = np.repeat(np.tile(grey, (height // SIZE, 1))[:, :, None], 3, axis=2).tobytes()
    spec.add_material(name=title).textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = title
