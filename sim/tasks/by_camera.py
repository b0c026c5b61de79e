"""Tasks that can be told where things are, or shown them: 84 x 84 pictures take the place of what cameras tell."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from ...errors import unknown_name
from ...spec import ObsTerm

FRAME = (84, 84, 3)


def lens(fovy: float) -> tuple[float, ...]:
    """fx, fy, cx, cy [pixels] of a FRAME of a simulated camera; fovy: its vertical angle of view [degrees]."""
    height, width, _ = FRAME
    focal = 0.5 * height / math.tan(0.5 * math.radians(fovy))
    return focal, focal, 0.5 * width, 0.5 * height


def groups(own: Iterable[ObsTerm], outside: Iterable[ObsTerm], camera: str, cameras: Collection[str],
           intrinsics: tuple[float, ...] = ()) -> dict[str, tuple[ObsTerm, ...]]:  # fmt: skip
    """Observation groups: what the robot knows of itself, and what is outside of it or, with a camera, its picture.

    What is outside then is `privileged`, which never reaches a policy file. intrinsics: of the camera.

    Raises:
        UsageError: no such camera, with those there are.
    """
    if not camera:
        return {"state": (*own, *outside)}
    if camera not in cameras:
        raise unknown_name("camera", camera, cameras)
    picture = ObsTerm(camera, FRAME, "camera", dtype="uint8", intrinsics=intrinsics)
    return {"state": tuple(own), camera: (picture,), "privileged": tuple(outside)}
