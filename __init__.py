"""Poise: simulation and demonstrations into a policy that a real arm runs safely.

    make(task, num_envs, seed, randomize)   N worlds of a task
    train(…)                                an online run: worlds, learner, policy file
    fit(…)                                  a policy from demonstration files
    evaluate(…)                             score a policy file
    deploy(…)                               run a policy file on an arm or its twin
    load_policy(path)                       the policy of a file
    export_onnx(policy, out)                write a policy file as an ONNX model
    Spec, Batch                             what a policy sees and does; what a learner learns from

The names load what they need when first asked for (PEP 562): `import poise` itself imports neither torch
nor MuJoCo, so that the command line answers at once and the arm's control process stays lean.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batch import Batch
    from .policies.evaluate import evaluate
    from .policies.fit import fit
    from .policies.onnx_export import export_onnx
    from .policies.policy import load_policy
    from .policies.train import train
    from .real_robot.deploy import deploy
    from .sim.make import make
    from .spec import Spec

    __version__: str

__all__ = ["Batch", "Spec", "__version__", "deploy", "evaluate", "export_onnx", "fit", "load_policy", "make", "train"]

_HOME = {  # public name -> the module that defines it
    "Batch": ".batch",
    "Spec": ".spec",
    "deploy": ".real_robot.deploy",
    "evaluate": ".policies.evaluate",
    "export_onnx": ".policies.onnx_export",
    "fit": ".policies.fit",
    "load_policy": ".policies.policy",
    "make": ".sim.make",
    "train": ".policies.train",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name], __name__), name)
    elif name == "__version__":
        from importlib.metadata import version

        value = version("poise")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
