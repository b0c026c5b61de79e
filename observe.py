"""From readings to observation groups, the same in simulation, in evaluation and on the arm.

A reading is one named quantity with leading batch axes: joint_pos (..., 7), tool_pos (..., 3), …
Array-agnostic: numpy arrays give numpy observations, torch tensors give torch ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from array_api_compat import array_namespace

from .errors import SpecError
from .kinematics import forward_kinematics
from .robots import RobotSpec
from .spec import Spec


def add_kinematics(readings: dict[str, Any], robot: RobotSpec) -> dict[str, Any]:
    """Readings with the tool's pose in the base frame, computed from the *measured* joint positions.

    `tool_pos` (..., 3) [m]; `tool_rot` (..., 6): the tool's x and y axes, the first two columns of its rotation
    (Zhou et al. 2019, "On the continuity of rotation representations": six numbers without a jump).

    A policy in simulation thereby sees the tool where the arm's own encoders, with their noise and
    bias, say that it is: just what the real arm will tell it.
    """
    tool_pos, rotation = forward_kinematics(robot, readings["joint_pos"])
    xp = array_namespace(rotation)
    tool_rot = xp.concat([rotation[..., 0], rotation[..., 1]], axis=-1)
    return {**readings, "tool_pos": tool_pos, "tool_rot": tool_rot}


def observe(spec: Spec, readings: Mapping[str, Any], frames: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Observation groups of `spec`: each a flat float32 array (..., obs_dim), terms in the Spec's order.

    frames: group -> uint8 (..., height, width, channels), the newest picture of every camera.

    Raises:
        SpecError: a term has no reading, or its reading has another shape.
    """
    return {group: _frame(spec, group, frames or {}) if spec.is_image(group) else _flat(terms, readings, group)
            for group, terms in spec.observations.items()}  # fmt: skip


def _frame(spec: Spec, group: str, frames: Mapping[str, Any]) -> Any:
    if group not in frames:
        raise SpecError(f"observation {group} has no frame; there are {', '.join(sorted(frames)) or 'none'}")
    frame, shape = frames[group], spec.obs_shape(group)
    if tuple(frame.shape[-3:]) != shape or str(frame.dtype).removeprefix("torch.") != "uint8":
        raise SpecError(f"observation {group}: expected uint8 (..., {', '.join(map(str, shape))}), "
                        f"got {frame.dtype} of shape {tuple(frame.shape)}")  # fmt: skip
    return frame


def _flat(terms, readings: Mapping[str, Any], group: str):
    columns = []
    for term in terms:
        if term.name not in readings:
            raise SpecError(f"observation {group}/{term.name} has no reading; there are {', '.join(sorted(readings))}")
        reading = readings[term.name]
        batch = reading.shape[: reading.ndim - len(term.shape)]
        if tuple(reading.shape[len(batch) :]) != term.shape:
            raise SpecError(f"observation {group}/{term.name}: expected (..., {', '.join(map(str, term.shape))}), "
                            f"got shape {tuple(reading.shape)}")  # fmt: skip
        columns.append(reading.reshape(*batch, term.size))
    xp = array_namespace(*columns)
    return xp.astype(xp.concat(columns, axis=-1), xp.float32)
