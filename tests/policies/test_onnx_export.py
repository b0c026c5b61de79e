"""ONNX export: what the model takes and gives, the check against torch, missing packages, and the command."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from conformance_policy import DiscreteImageDrift
from poise.cli import main
from poise.errors import PolicyFileError, UsageError
from poise.policies import onnx_export
from poise.policies.network_document import expected_tensors
from poise.policies.onnx_export import OnnxPolicy, compare, export_onnx
from poise.policies.onnx_graph import onnx_model
from poise.policies.policy import Policy
from poise.policies.policy_file import PolicyFile, write_policy
from poise.spec import ActionTerm, ObsTerm, Spec

CONV = {"group": "camera", "layers": [[4, 4, 2]], "activation": "relu"}
RECURRENT = {"kind": "mlp", "groups": ["state"], "conv": CONV, "lstm": 3, "hidden": [8], "activation": "tanh",
             "head": "tanh", "normalizer_clip": 4.0}  # fmt: skip


def recurrent() -> PolicyFile:
    spec = Spec(
        {"state": (ObsTerm("x", (2,), history=2),), "camera": (ObsTerm("view", (8, 9, 1), "camera", dtype="uint8", history=3),)},
        (ActionTerm("push", "control", low=(-1.0,) * 2, high=(1.0,) * 2),), control_dt=0.1,
    )  # fmt: skip
    return drawn(spec, RECURRENT)


def drawn(spec: Spec, network: dict) -> PolicyFile:
    rng = np.random.default_rng(0)
    tensors = {k: (rng.normal(size=s) * 0.5).astype(np.float32) for k, s in expected_tensors(spec, network).items()}
    if "normalizer.std" in tensors:
        tensors["normalizer.std"] = 0.5 + np.abs(tensors["normalizer.std"])
    return PolicyFile(spec, "ppo", network, tensors, {"seed": 3})


@pytest.fixture
def path(tmp_path):
    write_policy(tmp_path / "policy.safetensors", recurrent())
    return tmp_path / "policy.safetensors"


def test_the_model_names_its_inputs_outputs_and_where_it_comes_from(path):
    exported = export_onnx(path)
    assert exported.path == path.with_suffix(".onnx")
    state = {"history.state": "float32 (B, 2)", "history.camera": "uint8 (B, 8, 9, 2)",
             "lstm.h": "float32 (B, 3)", "lstm.c": "float32 (B, 3)"}  # fmt: skip
    assert exported.inputs == {"state": "float32 (B, 2)", "camera": "uint8 (B, 8, 9, 1)", **state}
    assert exported.outputs == {"action": "float32 (B, 1, 2)", **{f"next.{k}": v for k, v in state.items()}}
    assert exported.difference is not None and 0.0 <= exported.difference <= 1e-5
    meta = onnxruntime.InferenceSession(exported.path).get_modelmeta()
    assert Spec.from_json(meta.custom_metadata_map["spec"]) == recurrent().spec
    assert meta.custom_metadata_map["algorithm"] == "ppo" and meta.producer_name == "poise"
    assert json.loads(meta.custom_metadata_map["provenance"]) == {"seed": 3}


def test_the_model_remembers_and_starts_anew_as_torch_does():
    file = recurrent()
    policy, model = Policy.of(file), OnnxPolicy(onnx_model(file).SerializeToString())
    rng = np.random.default_rng(1)
    state, theirs = policy.initial_state(4), model.initial_state(4)
    for t in range(12):
        if t == 5:  # two rows start a new episode
            state = {
                k: torch.where(torch.tensor([True, True, False, False]).view(-1, *[1] * (v.ndim - 1)), 0, v)
                for k, v in state.items()
            }
            theirs = {k: np.concatenate([0 * v[:2], v[2:]]) for k, v in theirs.items()}
        obs = {
            "state": rng.normal(size=(4, 2)).astype(np.float32),
            "camera": rng.integers(0, 256, (4, 8, 9, 1), np.uint8),
        }
        chunk, state = policy.act({k: torch.from_numpy(x) for k, x in obs.items()}, state)
        action, theirs = model.act(obs, theirs)
        np.testing.assert_allclose(action, chunk.numpy(), atol=1e-5)
    for name, x in state.items():
        np.testing.assert_allclose(theirs[name], x.numpy(), atol=1e-5)


def test_the_same_policy_gives_the_same_bytes(path, tmp_path):
    a, b = export_onnx(path, tmp_path / "a.onnx"), export_onnx(path, tmp_path / "b.onnx")
    assert a.path.read_bytes() == b.path.read_bytes()


def test_a_model_that_acts_otherwise_is_found(path, monkeypatch):
    model = onnx_model(recurrent())
    weights = {w.name: w for w in model.graph.initializer}["actor.1.weight"]
    changed = onnx.numpy_helper.to_array(weights) + np.float32(1e-3)
    weights.CopyFrom(onnx.numpy_helper.from_array(changed, "actor.1.weight"))
    with pytest.raises(PolicyFileError, match="differs from the torch policy by"):
        compare(recurrent(), model.SerializeToString())
    monkeypatch.setattr(onnx_export, "onnx_model", lambda file: model)
    with pytest.raises(PolicyFileError, match="nothing was written"):
        export_onnx(path)
    assert not path.with_suffix(".onnx").exists()


def test_choices_are_compared_by_what_they_are_worth():
    network = {"kind": "mlp", "groups": [], "conv": CONV, "hidden": [8], "activation": "relu", "head": "argmax"}
    file = drawn(DiscreteImageDrift.spec, network)
    assert compare(file, onnx_model(file).SerializeToString()) <= 1e-5
    file.tensors["actor.1.weight"][:] = file.tensors["actor.1.bias"][:] = 0.0  # all choices are worth the same
    other = drawn(DiscreteImageDrift.spec, network)
    assert compare(file, onnx_model(other).SerializeToString()) == 0.0
    with pytest.raises(PolicyFileError, match="differs"):
        compare(other, onnx_model(file).SerializeToString())


def test_an_action_group_is_refused_since_the_output_has_that_name():
    spec = Spec({"action": (ObsTerm("last", (2,)),)}, recurrent().spec.actions, 0.1)
    network = {"kind": "mlp", "groups": ["action"], "hidden": [], "activation": "relu", "head": "clip"}
    with pytest.raises(PolicyFileError, match="rename the group"):
        onnx_model(drawn(spec, network))


def test_a_missing_package_is_named_with_the_command_that_installs_it(path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(path)]) == 0
    assert "not checked: that needs onnxruntime, pip install 'poise[export]'" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"needs the package onnx: pip install 'poise\[export\]'"):
        export_onnx(path)
    assert main(["export", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_says_what_was_written(path, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    assert main(["export", str(path), "--format", "onnx", "--out", str(out), "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert result["ok"] and result["onnx"] == str(out) and out.exists() and result["difference"] <= 1e-5
    assert result["inputs"]["camera"] == "uint8 (B, 8, 9, 1)"
    assert any("checked against torch" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [(["{policy}", "--out", "{policy}"], 2, "is the policy itself"), (["none.safetensors"], 1, "no policy file"),
     (["{policy}", "--format", "tflite"], 2, "tflite"), (["{policy}", "--out", "{policy}/x.onnx"], 1, "cannot write")],
)  # fmt: skip
def test_a_wrong_request_is_one_line(path, capsys, arguments, code, message):
    before = path.read_bytes()
    assert main(["export", *(a.format(policy=path) for a in arguments)]) == code
    assert message in capsys.readouterr().err
    assert path.read_bytes() == before
