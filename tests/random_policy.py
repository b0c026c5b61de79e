"""A policy file with random weights, for tests in which it matters little what a policy does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from poise.policies.network_document import expected_tensors
from poise.policies.policy_file import PolicyFile, write_policy
from poise.sim.tasks.reach import reach_spec
from poise.spec import Spec


def write_random(
    path: str | os.PathLike[str], scale: float, spec: Spec | None = None, task: str = "reach/fr3", **parts: Any
) -> str:
    """Write one of a small network with normal weights of that scale, and return its path."""
    spec = spec or reach_spec()
    network = {"kind": "mlp", "groups": ["state"], "hidden": [8], "activation": "elu", "head": "tanh", **parts}
    rng = np.random.default_rng(0)
    tensors = {name: (scale * rng.normal(size=shape)).astype(np.float32)
               for name, shape in expected_tensors(spec, network).items()}  # fmt: skip
    write_policy(Path(path), PolicyFile(spec, "random", network, tensors, {"task": task} if task else {}))
    return str(path)
