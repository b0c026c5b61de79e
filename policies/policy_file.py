"""The policy file: one .safetensors file with weights, and in its header one JSON document. No torch here.

    header["poise"]  = {"format": 1, "role": "policy", "algorithm", "network", "spec", "provenance", "evaluation"}
    tensors          float32, under the names and with the shapes that network_document.py gives

Reading runs no code from the file and imports nothing that it names. Everything a reader relies on is checked
here, once: format, role, the tensors that network and Spec call for, their shapes, types and finiteness.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import PolicyFileError, SpecError
from ..files import replace_durably
from ..spec import Spec
from .network_document import check_network, expected_tensors

FORMAT = 1


@dataclass(frozen=True)
class PolicyFile:
    """What a policy file holds, checked."""

    spec: Spec
    algorithm: str
    network: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)


def write_policy(path: str | os.PathLike[str], policy: PolicyFile) -> None:
    """Write the file in one piece: a reader sees the old file or the new one, never half of one.

    Raises:
        PolicyFileError: the contents do not fit together, or the disk refused them.
    """
    path = Path(path)
    spec = policy.spec.for_policy_file()
    check_network(policy.network, spec, path)
    _check_tensors(policy.tensors, expected_tensors(spec, policy.network), path)
    document = {
        "format": FORMAT,
        "role": "policy",
        "algorithm": policy.algorithm,
        "network": dict(policy.network),
        "spec": spec.to_json(),
        "provenance": dict(policy.provenance),
        "evaluation": dict(policy.evaluation),
    }
    tensors = {k: np.ascontiguousarray(v) for k, v in sorted(policy.tensors.items())}
    payload = save(tensors, metadata={"poise": json.dumps(document, sort_keys=True, allow_nan=False)})
    try:
        replace_durably(path, payload)
    except OSError as error:
        raise PolicyFileError(f"cannot write the policy file {path}: {error.strerror}; "
                              f"the file that was there is unchanged") from error  # fmt: skip


def read_policy(path: str | os.PathLike[str]) -> PolicyFile:
    """The checked contents of a policy file.

    Raises:
        PolicyFileError: naming the field, what was expected and what was found.
    """
    path = Path(path)
    _refuse_other_formats(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise PolicyFileError(f"{path} is damaged or cut short, not a complete .safetensors file ({error}); "
                              f"copy it again or train anew") from None  # fmt: skip
    document = _document(metadata, path)
    try:
        spec = Spec.from_json(document["spec"])
    except SpecError as error:
        raise PolicyFileError(f"{path}: {error}") from None
    network = document["network"]
    check_network(network, spec, path)
    _check_tensors(tensors, expected_tensors(spec, network), path)
    return PolicyFile(spec, document["algorithm"], network, tensors,
                      document.get("provenance", {}), document.get("evaluation", {}))  # fmt: skip


def _refuse_other_formats(path: Path) -> None:
    """Say plainly what a file is that is no safetensors file, before anything tries to parse it."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except FileNotFoundError:
        raise PolicyFileError(f"no policy file at {path}; `poise train` writes one as RUN/policy.safetensors") from None
    except OSError as error:
        raise PolicyFileError(f"cannot read {path}: {error.strerror}") from None
    # a safetensors file starts with the header's length, whose bytes may be anything, and then a brace
    if head[8:9] != b"{" and (head[:1] == b"\x80" or head[:2] == b"PK"):
        kind = "a Python pickle" if head[:1] == b"\x80" else "a zip archive, as torch.save and Stable-Baselines3 write"
        raise PolicyFileError(f"{path} is {kind}; Poise never unpickles, since that runs code from the file. "
                              f"Expected a .safetensors policy written by Poise")  # fmt: skip


def _document(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    if "poise" not in metadata:
        raise PolicyFileError(f"{path} is a .safetensors file without Poise's header; found keys: "
                              f"{', '.join(metadata) or 'none'}. Expected a policy written by Poise")  # fmt: skip
    try:
        document = json.loads(metadata["poise"])
    except json.JSONDecodeError as error:
        raise PolicyFileError(f"{path}: the header is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise PolicyFileError(f"{path}: the header should be an object, found {type(document).__name__}")
    if document.get("format") != FORMAT:
        raise PolicyFileError(f"{path}: format version {document.get('format')!r}; this Poise reads version {FORMAT}. "
                              f"Use the release that wrote it, or train anew")  # fmt: skip
    if document.get("role") != "policy":
        raise PolicyFileError(f"{path}: role {document.get('role')!r}, expected 'policy'")
    for name, kind in (("algorithm", str), ("network", dict), ("spec", dict)):
        if not isinstance(document.get(name), kind):
            raise PolicyFileError(f"{path}: the header's {name!r} should be {kind.__name__}, "
                                  f"found {type(document.get(name)).__name__}")  # fmt: skip
    return document


def _check_tensors(tensors: Mapping[str, np.ndarray], expected: dict[str, tuple[int, ...]], path: Path) -> None:
    missing, unknown = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or unknown:
        found = f"; found instead {', '.join(unknown)}" if unknown else ""
        lack = f"tensor {', '.join(missing)} is missing" if missing else "there are tensors that the network lacks"
        raise PolicyFileError(f"{path}: {lack}{found}")
    for name, shape in expected.items():
        array = tensors[name]
        if tuple(array.shape) != shape:
            raise PolicyFileError(f"{path}: tensor {name} has shape {tuple(array.shape)}, expected {shape}")
        if array.dtype != np.float32:
            raise PolicyFileError(f"{path}: tensor {name} has type {array.dtype}, expected float32")
        if not np.isfinite(array).all():
            count = int(array.size - np.isfinite(array).sum())
            raise PolicyFileError(f"{path}: tensor {name} holds {count} values that are NaN or infinite; "
                                  f"such a policy is never run")  # fmt: skip
    if "normalizer.std" in expected and not (tensors["normalizer.std"] > 0).all():
        raise PolicyFileError(f"{path}: tensor normalizer.std holds values that are not positive")
