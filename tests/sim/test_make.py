"""Names to environments: native tasks, your own, and clear words for everything else."""

import json
import sys
from pathlib import Path

import pytest
import torch

from poise.errors import UsageError
from poise.sim.make import load_task, make
from poise.sim.randomization import Randomization
from poise.sim.tasks.reach import Reach


def test_a_native_task_is_made_by_its_name():
    env = make("reach/fr3", num_envs=3, seed=0, randomize="default", threads=1)
    assert env.num_envs == 3 and env.spec.robot == "fr3" and env.randomization == Reach().randomization
    assert env.reset(0)["state"].shape == (3, 27)
    assert env.step(torch.zeros(3, 7)).reward.shape == (3,)


def test_randomization_comes_by_name_file_or_value(tmp_path):
    some = Randomization(Reach().randomization.terms[:2])
    path = tmp_path / "dr.json"
    path.write_text(json.dumps(some.to_json()))
    for given in (some, path, str(path), some.to_json()):
        assert make("reach/fr3", randomize=given, threads=1).randomization == some
    assert make("reach/fr3", threads=1).randomization == Randomization()
    with pytest.raises(UsageError, match="cannot read the randomization file hefault"):
        make("reach/fr3", randomize="hefault")


def test_a_gymnasium_id_is_made_by_the_adapter():
    env = make("gym:CartPole-v1", num_envs=2, seed=3)
    assert env.reset(3)["state"].shape == (2, 4)
    env.close()
    with pytest.raises(UsageError, match="gym:CartPole-v1 cannot be randomized"):
        make("gym:CartPole-v1", randomize=Reach().randomization)


def test_a_task_of_your_own_is_made_from_a_module_outside(tmp_path, monkeypatch):
    source = Path(__file__).with_name("two_link.py").read_text()
    (tmp_path / "my_arm.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    env = make("py:my_arm:TwoLink", num_envs=2, randomize="default", threads=1)
    assert env.task.name == "test/two_link" and env.reset(0)["state"].shape == (2, 5)
    with pytest.raises(UsageError, match="unknown attribute of module my_arm: 'TwoLinks'; did you mean TwoLink"):
        load_task("py:my_arm:TwoLinks")
    sys.modules.pop("my_arm")


@pytest.mark.parametrize(
    ("name", "message"),
    [("reach/fr4", "unknown task 'reach/fr4'; did you mean reach/fr3"),
     ("fly/bee", "unknown task 'fly/bee'; known: Ant-v5, .*gym:ID, .*reach/fr3"),
     ("py:nowhere_at_all:Task", "cannot import 'nowhere_at_all'.*PYTHONPATH"),
     ("py:module", "named py:module:attribute, not 'py:module'")],
)  # fmt: skip
def test_an_unknown_task_is_one_clear_message(name, message):
    with pytest.raises(UsageError, match=message):
        make(name)


def test_options_after_a_gymnasium_id_are_its_arguments():
    slippery, dry = (make(f"gym:FrozenLake-v1?is_slippery={word}&map_name=4x4", 1) for word in ("true", "false"))
    ends = {}
    for name, env in (("slippery", slippery), ("dry", dry)):
        places = set()
        for seed in range(20):
            env.reset(seed)
            places.add(int(env.step(torch.tensor([[1]])).next_obs["state"].argmax()))
        ends[name] = places
    assert ends["dry"] == {4} and ends["slippery"] == {0, 1, 4}
    with pytest.raises(UsageError, match=r"FrozenLake-v1.*cannot be made with these options.*sliperry"):
        make("gym:FrozenLake-v1?sliperry=1")
    with pytest.raises(UsageError, match="stands twice"):
        make("gym:FrozenLake-v1?is_slippery=1&is_slippery=0")


def test_an_unknown_name_of_poise_s_own_environments_lists_its_neighbour():
    with pytest.raises(UsageError, match=r"did you mean poise/Catch-v0"):
        make("gym:poise/Cach-v0")
