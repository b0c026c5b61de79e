"""Which keys make which observation group, and where a log does not fit a task."""

import json

import numpy as np
import pytest

from poise.datasets.log_spec import default_mapping, parse_mapping, spec_of
from poise.errors import DatasetError, UsageError
from poise.spec import ActionTerm, ObsTerm, Spec
from small_logs import episode, log

ACTION = ActionTerm("motors", "control", low=(-1, -1), high=(1, 1))
TASK = Spec({"state": (ObsTerm("x", (2,)), ObsTerm("y", (1,)))}, (ACTION,), 0.05)


def test_flat_keys_make_the_state_and_cameras_groups_of_their_own():
    pixels = np.zeros((2, 4, 5, 3), np.uint8)
    some = log(episode("demo_0", 1, 2, **{"obs/front": pixels, "next_obs/front": pixels}))
    assert default_mapping(some) == {"state": ["x", "y"], "front": ["front"]}
    spec = spec_of(some)
    assert spec.images == ("front",) and spec.obs_shape("front") == (4, 5, 3) and spec.obs_dim() == 3
    with pytest.raises(DatasetError, match="front is a camera, and a camera is a group of its own"):
        spec_of(some, {"state": ["x", "front"]})


def test_a_mapping_is_told_by_words_or_by_a_file(tmp_path):
    assert parse_mapping(["state=x,y", "goal=z"]) == {"state": ["x", "y"], "goal": ["z"]}
    (tmp_path / "map.json").write_text(json.dumps({"state": ["x"]}))
    assert parse_mapping([str(tmp_path / "map.json")]) == {"state": ["x"]}
    (tmp_path / "bad.json").write_text('{"state": "x"}')
    with pytest.raises(UsageError, match="should hold groups with lists of keys"):
        parse_mapping([str(tmp_path / "bad.json")])
    for words, message in ((["state="], "should be GROUP=KEY,KEY"), (["nowhere"], "no mapping of observations")):
        with pytest.raises(UsageError, match=message):
            parse_mapping(words)


def test_the_terms_of_a_group_are_called_after_the_keys_and_what_is_not_told_is_unknown():
    spec = spec_of(log(episode("demo_0", 1, 2)), {"state": ["y", "x"]})
    assert [(t.name, t.shape, t.source) for t in spec.observations["state"]] == [
        ("y", (), "unknown"),
        ("x", (2,), "unknown"),
    ]
    assert spec.actions[0].kind == "unknown" and spec.notes == {"control_dt": "unknown"}
    with pytest.raises(DatasetError, match="has no observation 'z'; it has x, y"):
        spec_of(log(episode("demo_0", 1, 2)), {"state": ["z"]})


def test_the_control_period_is_what_the_file_says():
    arguments = json.dumps({"env_name": "Lift", "env_kwargs": {"control_freq": 20}})
    spec = spec_of(log(episode("demo_0", 1, 2), env_args=arguments))
    assert spec.control_dt == 0.05 and spec.notes == {}
    assert spec_of(log(episode("demo_0", 1, 2), control_dt=0.1)).control_dt == 0.1


def test_a_tasks_spec_is_taken_with_the_mapping_noted():
    spec = spec_of(log(episode("demo_0", 1, 2)), {"state": ["x", "y"]}, TASK)
    assert spec == TASK and spec.notes["obs_map"] == {"state": ["x", "y"]}


@pytest.mark.parametrize("mapping, task, message", [
    ({"state": ["y", "x"]}, TASK, "has in another order; say --obs state=x,y"),
    ({"state": ["x"]}, TASK, r"state is made of x \(2,\), in all \(2,\); the task has \(3,\) there, of x \(2,\), y \(1,\)"),
    ({"goal": ["x"]}, TASK, "the task sees the observation group 'state', and some.hdf5 gives goal; .* --obs state=KEY,KEY"),
    (None, Spec(TASK.observations, (ActionTerm("m", "control", low=(-1,), high=(1,)),), 0.05), "actions of 2 numbers, the task of 1"),
])  # fmt: skip
def test_a_log_that_does_not_fit_the_task_is_refused(mapping, task, message):
    with pytest.raises(DatasetError, match=message):
        spec_of(log(episode("demo_0", 1, 2)), mapping, task)


def test_a_file_of_our_own_carries_its_spec():
    own = Spec({"x": (ObsTerm("position", (2,), unit="m", history=2),)}, (ACTION,), 0.02, robot="fr3")
    some = log(episode("demo_0", 1, 2, without=["obs/y", "next_obs/y"]), poise_spec=json.dumps(own.to_json()))
    assert spec_of(some) == own
    wrong = Spec({"x": (ObsTerm("position", (3,)),)}, (ACTION,), 0.02)
    with pytest.raises(DatasetError, match="its own spec has \\(3,\\) there"):
        spec_of(log(episode("demo_0", 1, 2), poise_spec=json.dumps(wrong.to_json())))
    lacking = Spec({"z": (ObsTerm("position", (2,)),)}, (ACTION,), 0.02)
    with pytest.raises(DatasetError, match="has the observation group 'z', and its episodes do not"):
        spec_of(log(episode("demo_0", 1, 2), poise_spec=json.dumps(lacking.to_json())))


def test_bounds_that_are_none_are_refused():
    with pytest.raises(DatasetError, match="are no bounds of 2 numbers"):
        spec_of(log(episode("demo_0", 1, 2), action_low=[0], action_high=[1]))
