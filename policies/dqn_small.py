"""The derivative of dqn_update.py's loss in numpy, for small networks on the CPU.

An update of two layers of 64 units and a batch of 32 is some thirty operations on a few thousand numbers: in torch
their calls take twice as long as the arithmetic. The equations are those of dqn_update.py and returns.py, where they
are explained; tests/policies/test_dqn.py holds the two against each other, setting by setting.

Legend: B batch, A choices, O observation.
"""

from __future__ import annotations

import math

import numpy as np

from ..batch import Batch
from .perceptron import SmallPerceptron


def small_gradient(
    network: SmallPerceptron,
    target: SmallPerceptron,
    obs: np.ndarray,
    next_obs: np.ndarray,
    batch: Batch,
    discount: float,
    double: bool,
    huber: bool,
    max_norm: float | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """L, the mean of Q(s, .) and the errors y - Q(s, a) (B,); the gradient is left in `network.flat_gradient`.

    obs, next_obs: (B, O) as the networks see them; `target` tells the value of s'.
    """
    rows = np.arange(len(obs))
    q_after, _ = target.forward(next_obs)
    if double:
        value = q_after[rows, network.forward(next_obs)[0].argmax(1)]
    else:
        value = q_after.max(1)
    factor = (
        np.float32(discount) if batch.steps is None else np.float32(discount) ** batch.steps.numpy().astype(np.float32)
    )
    y = batch.reward.numpy() + factor * np.where(batch.terminated.numpy(), np.float32(0.0), value)

    q, units = network.forward(obs)
    action = batch.action.numpy()[:, 0]
    error = y - q[rows, action]
    bounded = np.minimum(np.maximum(error, -1.0), 1.0) if huber else error
    slope = bounded if batch.weight is None else bounded * batch.weight.numpy()
    loss = np.dot(slope, error - 0.5 * bounded if huber else error) / len(obs)
    d_q = np.zeros_like(q)
    d_q[rows, action] = slope * ((-1.0 if huber else -2.0) / len(obs))

    network.backward(obs, units, d_q)
    if max_norm is not None:
        flat = network.numpy_gradient
        norm = math.sqrt(np.dot(flat, flat))
        if norm > max_norm:
            flat *= max_norm / norm
    return loss, q.mean(), error
