"""Frames stacked for a policy that sees more than the newest: oldest first, along the last axis.

Worlds and drivers deliver the newest frame, buffers store each once; the frames before it travel in the policy's
state, which starts anew with an episode. So the first frames of an episode are stacked on zeros.

    vector   history h, frame (..., dim)                  stacked (..., h dim)
    image    history h, frame (..., height, width, C)     stacked (..., height, width, h C)

Array-agnostic: numpy arrays on the arm, torch tensors in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from array_api_compat import array_namespace

from .spec import Spec

PREFIX = "history."  # of the state's entries, followed by the group


def stacked_shape(spec: Spec, group: str) -> tuple[int, ...]:
    """Shape of what a network reads of a group."""
    *leading, last = spec.obs_shape(group)
    return (*leading, last * spec.history(group))


def initial_history(spec: Spec, n: int, zeros: Any) -> dict[str, Any]:
    """No frames yet, for n worlds: the entries that a policy of this Spec carries in its state.

    zeros: zeros(shape, dtype_name) makes an array, such as `lambda s, d: np.zeros(s, d)`.
    """
    result = {}
    for group, terms in spec.observations.items():
        if (history := spec.history(group)) > 1:
            *leading, last = spec.obs_shape(group)
            result[PREFIX + group] = zeros((n, *leading, (history - 1) * last), terms[0].dtype)
    return result


def stack_history(
    spec: Spec, obs: Mapping[str, Any], state: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what the networks read, the state's next entries) for the newest frames `obs`, group -> (n, ...)."""
    stacked, after = dict(obs), {}
    for group in spec.observations:
        if (earlier := state.get(PREFIX + group)) is not None:
            frames = array_namespace(earlier).concat([earlier, obs[group]], axis=-1)
            stacked[group] = frames
            after[PREFIX + group] = frames[..., spec.obs_shape(group)[-1] :]
    return stacked, after
