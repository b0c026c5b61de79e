"""The policy file: round trip, the numpy runner equal to torch, and every kind of bad file refused by name."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from poise.errors import PolicyFileError
from poise.policies.network_document import expected_tensors
from poise.policies.policy import Policy, load_policy
from poise.policies.policy_file import PolicyFile, read_policy, write_policy
from poise.policies.runner import Runner
from poise.spec import ActionTerm, ObsTerm, Spec

OBS, ACTIONS, HIDDEN = 5, 2, [16, 8]


def spec() -> Spec:
    term = ActionTerm("motor", "control", low=(-2.0,) * ACTIONS, high=(2.0,) * ACTIONS)
    groups = {"state": (ObsTerm("q", (OBS,)),), "privileged": (ObsTerm("mass", (1,)),)}
    return Spec(groups, (term,), control_dt=0.05)


def example(activation: str = "elu", head: str = "clip", clip: float | None = 10.0) -> PolicyFile:
    rng = np.random.default_rng(0)
    network = {"kind": "mlp", "groups": ["state"], "hidden": HIDDEN, "activation": activation, "head": head}
    if clip:
        network["normalizer_clip"] = clip
    shapes = expected_tensors(spec(), network)
    tensors = {k: (rng.normal(size=s) / s[-1] ** 0.5).astype(np.float32) for k, s in shapes.items()}
    if clip:
        tensors["normalizer.std"] = np.abs(tensors["normalizer.std"]) + 0.5
    return PolicyFile(spec(), "ppo", network, tensors, {"seed": 3}, {"return_mean": 1.5})


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "policy.safetensors"
    write_policy(path, example())
    return path


def tampered(path, change) -> None:
    """Rewrite the file after `change(document, tensors)`."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        document = json.loads(file.metadata()["poise"])
    tensors = load_file(path)
    change(document, tensors)
    save_file(tensors, path, metadata={"poise": json.dumps(document)})


@pytest.mark.parametrize("activation", ["elu", "relu", "tanh"])
@pytest.mark.parametrize(("head", "clip"), [("tanh", None), ("clip", 10.0)])
def test_the_numpy_runner_equals_torch(tmp_path, activation, head, clip):
    path = tmp_path / "p.safetensors"
    write_policy(path, example(activation, head, clip))
    x = np.random.default_rng(1).normal(size=(64, OBS)).astype(np.float32)
    theirs, _ = load_policy(path).act({"state": torch.from_numpy(x)}, {})
    ours, _ = Runner.load(path).act({"state": x}, {})
    assert ours.shape == (64, 1, ACTIONS)
    assert np.abs(ours).max() <= 1.0
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)


def test_a_policy_survives_saving_to_the_bit(path, tmp_path):
    again = tmp_path / "again.safetensors"
    Policy.load(path).save(again)
    a, b = read_policy(path), read_policy(again)
    assert a.spec == b.spec and a.network == b.network and a.provenance == b.provenance == {"seed": 3}
    assert all((a.tensors[k] == b.tensors[k]).all() for k in a.tensors)


def test_privileged_observations_never_reach_the_file(path):
    assert list(read_policy(path).spec.observations) == ["state"]


def test_reading_and_running_load_neither_torch_nor_mujoco(path):
    code = ("import sys; from poise.policies.runner import Runner; Runner.load(sys.argv[1]);"
            "assert not {'torch', 'mujoco', 'onnx', 'onnxruntime'} & set(sys.modules)")  # fmt: skip
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_a_truncated_file_is_refused(path):
    data = path.read_bytes()
    for cut in (0, 4, 20, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(PolicyFileError, match="damaged or cut short"):
            read_policy(path)


def test_a_missing_file_says_what_writes_one(tmp_path):
    with pytest.raises(PolicyFileError, match="poise train"):
        read_policy(tmp_path / "none.safetensors")


def test_a_renamed_tensor_is_named_both_ways(path):
    tampered(path, lambda d, t: t.__setitem__("actor.0.wieght", t.pop("actor.0.weight")))
    with pytest.raises(PolicyFileError, match=r"actor\.0\.weight is missing; found instead actor\.0\.wieght"):
        read_policy(path)


def test_a_nan_is_refused_with_the_tensors_name(path):
    tampered(path, lambda d, t: t["actor.1.bias"].__setitem__(0, np.nan))
    with pytest.raises(PolicyFileError, match=r"actor\.1\.bias holds 1 values that are NaN"):
        read_policy(path)


def test_a_nan_is_never_written(tmp_path):
    bad = example()
    bad.tensors["actor.0.bias"][:] = np.inf
    with pytest.raises(PolicyFileError, match="NaN or infinite"):
        write_policy(tmp_path / "bad.safetensors", bad)
    assert not list(tmp_path.iterdir())


def test_another_version_is_refused(path):
    tampered(path, lambda d, t: d.__setitem__("format", 99))
    with pytest.raises(PolicyFileError, match="format version 99; this Poise reads version 1"):
        read_policy(path)


def test_a_wrong_shape_is_refused_with_both_shapes(path):
    tampered(path, lambda d, t: t.__setitem__("actor.0.weight", t["actor.0.weight"][:, :-1].copy()))
    with pytest.raises(PolicyFileError, match=r"actor\.0\.weight has shape \(16, 4\), expected \(16, 5\)"):
        read_policy(path)


def test_a_wrong_type_is_refused(path):
    tampered(path, lambda d, t: t.__setitem__("actor.0.bias", t["actor.0.bias"].astype(np.float64)))
    with pytest.raises(PolicyFileError, match="has type float64, expected float32"):
        read_policy(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("kind", "transformer", "kind"), ("groups", ["camera"], "groups"), ("hidden", [16, -1], "hidden"),
     ("hidden", 3, "hidden"), ("activation", "os.system", "activation"), ("head", None, "head"),
     ("normalizer_clip", -1, "normalizer_clip")],
)  # fmt: skip
def test_a_strange_network_is_refused_by_field(path, field, value, message):
    tampered(path, lambda d, t: d["network"].__setitem__(field, value))
    with pytest.raises(PolicyFileError, match=f"network {message}"):
        read_policy(path)


CAMERA = ObsTerm("view", (12, 10, 3), "camera", dtype="uint8", history=2)
CONV = {"group": "camera", "layers": [[4, 3, 2]], "activation": "relu"}


def all_of_it(**changes) -> tuple[Spec, dict]:
    """A Spec and a network that use everything there is, with fields of the network changed; None removes one."""
    groups = {**spec().observations, "camera": (CAMERA,), "byte": (ObsTerm("ram", (4,), dtype="uint8"),)}
    network = {"kind": "mlp", "groups": ["state"], "conv": CONV, "lstm": 4, "hidden": [8], "activation": "silu",
               "norm": "layer", "head": "tanh", "normalizer_clip": 5.0}  # fmt: skip
    return replace(spec(), observations=groups), {k: v for k, v in {**network, **changes}.items() if v is not None}


def test_the_tensors_of_a_network_with_everything():
    assert expected_tensors(*all_of_it(conv={**CONV, "features": 7})) == {
        "encoder.conv.0.weight": (4, 6, 3, 3), "encoder.conv.0.bias": (4,),  # two frames of three channels
        "encoder.features.weight": (7, 4 * 5 * 4), "encoder.features.bias": (7,),
        "encoder.norm.weight": (7,), "encoder.norm.bias": (7,),
        "lstm.weight_ih": (16, 5 + 7), "lstm.weight_hh": (16, 4), "lstm.bias": (16,),
        "actor.0.weight": (8, 4), "actor.0.bias": (8,), "actor.0.norm.weight": (8,), "actor.0.norm.bias": (8,),
        "actor.1.weight": (2, 8), "actor.1.bias": (2,),
        "normalizer.mean": (5,), "normalizer.std": (5,),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 0.1}, "field 'dropout' is 0.1, expected only kind, groups"),
        ({"groups": ["state", "state"]}, "groups .* each once: state"),
        ({"groups": ["byte"]}, "groups is .*float32 groups"),
        ({"groups": ["camera"]}, "groups is .*camera"),
        ({"groups": ["privileged"]}, "groups"),
        ({"groups": [["state"]]}, "groups"),
        ({"groups": [], "conv": None, "normalizer_clip": None}, "at least one group, or a conv encoder"),
        ({"groups": []}, "normalizer_clip is 5.0, expected .* a vector group to normalize"),
        ({"conv": {**CONV, "group": "wrist"}}, "conv.group is 'wrist', expected one of the spec's cameras: camera"),
        ({"conv": {**CONV, "padding": 1}}, "conv is .*an object of group, layers"),
        ({"conv": [4, 3, 2]}, "conv is .*an object of"),
        ({"conv": {**CONV, "layers": []}}, "conv.layers"),
        ({"conv": {**CONV, "layers": [[4, 3, 0]]}}, "conv.layers"),
        ({"conv": {**CONV, "layers": [[4, 3, 2], [4, 5, 1]]}}, "a kernel of 5 meets 5 x 4"),
        ({"conv": {**CONV, "activation": "gelu"}}, "conv.activation"),
        ({"conv": {**CONV, "features": 0}}, "conv.features"),
        ({"lstm": True}, "lstm is True"),
        ({"lstm": 60000}, "size is .* at most 268435456 weights"),
        ({"hidden": [65536, 65536]}, "size is"),
        ({"norm": "batch"}, "norm is 'batch', expected 'layer'"),
        (
            {"head": "argmax"},
            "head is 'argmax', expected 'tanh', 'clip' or 'mixture', since the spec's actions are continuous",
        ),
    ],
)
def test_a_network_that_does_not_suit_the_spec_is_refused_by_field(tmp_path, changes, message):
    seen, network = all_of_it(**changes)
    with pytest.raises(PolicyFileError, match=f"network .*{message}"):
        write_policy(tmp_path / "p.safetensors", PolicyFile(seen, "x", network, {}))
    assert not list(tmp_path.iterdir())


def test_discrete_actions_need_the_head_that_chooses(tmp_path):
    choice, two = ActionTerm("a", "discrete", n=3), ActionTerm("b", "discrete", n=2)
    for actions, head, message in [((choice,), "tanh", "'argmax', since the spec's actions are discrete"),
                                   ((choice, two), "argmax", "one discrete action; the spec has a, b")]:  # fmt: skip
        seen, network = all_of_it(head=head)
        with pytest.raises(PolicyFileError, match=message):
            write_policy(tmp_path / "p.safetensors", PolicyFile(replace(seen, actions=actions), "x", network, {}))


def test_a_history_beyond_all_reason_is_refused_before_memory_is_taken(tmp_path):
    seen, network = all_of_it()
    groups = {**seen.observations, "state": (ObsTerm("q", (OBS,), history=10**9),)}
    with pytest.raises(PolicyFileError, match="network input is 5000000720, expected at most"):
        write_policy(tmp_path / "p.safetensors", PolicyFile(replace(seen, observations=groups), "x", network, {}))


@pytest.mark.parametrize("field", ["algorithm", "network", "spec"])
def test_a_header_without_a_field_is_refused(path, field):
    tampered(path, lambda d, t: d.pop(field))
    with pytest.raises(PolicyFileError, match=field):
        read_policy(path)


def test_a_spec_without_a_field_is_refused(path):
    tampered(path, lambda d, t: d["spec"].pop("control_dt"))
    with pytest.raises(PolicyFileError, match="control_dt"):
        read_policy(path)


class Bomb:
    """Unpickling this would leave a file behind."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def test_a_pickle_is_refused_and_never_run(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "policy.safetensors"
    path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(PolicyFileError, match="never unpickles"):
        read_policy(path)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(PolicyFileError, match="zip archive"):
        read_policy(path)
    assert not trace.exists()


def test_a_header_whose_length_looks_like_a_pickle_is_read(path):
    first = []
    for padding in range(300):
        tampered(path, lambda d, t, n=padding: d["provenance"].__setitem__("padding", " " * n))
        read_policy(path)
        first.append(path.read_bytes()[:1])
    assert b"\x80" in first


def test_somebody_elses_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "theirs.safetensors"
    save_file({"a": np.zeros(1, np.float32)}, path)
    with pytest.raises(PolicyFileError, match="without Poise's header"):
        read_policy(path)


def test_a_failed_write_leaves_the_old_file(path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(PolicyFileError, match="No space left"):
        write_policy(path, example("relu"))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
