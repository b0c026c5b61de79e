"""A tiny random policy that looks through one camera, and an emulated camera, for the arm's tests."""

import contextlib
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np

from poise.policies.network_document import expected_tensors
from poise.policies.policy_file import PolicyFile, write_policy
from poise.robots import FR3
from poise.sim.tasks.reach import reach_spec
from poise.spec import ObsTerm


@contextlib.contextmanager
def emulated_camera(**settings):
    """Its address; settings such as width, height, fps."""
    command = [sys.executable, "-P", "-m", "poise.real_robot.emulators", "camera", "--set"]
    process = subprocess.Popen(command + [f"{k}={v}" for k, v in settings.items()], stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())["address"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def camera_policy(folder, robot=FR3, scale=0.01, intrinsics=(), task=""):
    """Its path and its Spec."""
    own = reach_spec(robot)
    state = tuple(t for t in own.observations["state"] if t.source not in ("goal", "external"))
    front = (ObsTerm("front", (84, 84, 3), "camera", dtype="uint8", intrinsics=intrinsics),)
    spec = replace(own, observations={"state": state, "front": front})
    network = {"kind": "mlp", "groups": ["state"], "hidden": [8], "activation": "elu", "head": "tanh",
               "conv": {"group": "front", "layers": [[4, 8, 8]], "activation": "relu", "features": 8}}  # fmt: skip
    rng = np.random.default_rng(0)
    tensors = {name: (scale * rng.normal(size=shape)).astype(np.float32)
               for name, shape in expected_tensors(spec, network).items()}  # fmt: skip
    write_policy(
        folder / "camera.safetensors", PolicyFile(spec, "random", network, tensors, {"task": task} if task else {})
    )
    return str(folder / "camera.safetensors"), spec
