"""Collected files: what is in them follows from the seed, and replays in the simulator they came from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from poise.cli import main
from poise.datasets.episodes import EpisodeFile
from poise.errors import DatasetError, UsageError
from poise.policies.collect import collect
from poise.sim.make import make


def episodes_of(path) -> list[dict]:
    with EpisodeFile(path) as file:
        return [file[name] for name in file.names]


def test_a_file_depends_on_the_seed_and_not_on_how_many_worlds_made_it():
    collect("reach/fr3", "a.hdf5", episodes=3, noise=0.1, seed=5, num_envs=3, randomize="default")
    collect("reach/fr3", "b.hdf5", episodes=3, noise=0.1, seed=5, num_envs=2, randomize="default")
    for a, b in zip(episodes_of("a.hdf5"), episodes_of("b.hdf5"), strict=True):
        assert np.array_equal(a["actions"], b["actions"])
        assert np.array_equal(a["obs"]["state"], b["obs"]["state"])
        assert a["attributes"]["episode_seed"] == b["attributes"]["episode_seed"]


def test_random_actions_follow_from_the_number_of_an_episode():
    collect("Hopper-v5", "a.hdf5", "random", episodes=3, seed=2, num_envs=3)
    collect("Hopper-v5", "b.hdf5", "random", episodes=3, seed=2, num_envs=1)
    for a, b in zip(episodes_of("a.hdf5"), episodes_of("b.hdf5"), strict=True):
        assert np.array_equal(a["actions"], b["actions"])


def test_successors_are_the_next_observations_and_the_last_step_ends_the_episode():
    collect("reach/fr3", "a.hdf5", episodes=2)
    for e in episodes_of("a.hdf5"):
        assert np.array_equal(e["next_obs"]["state"][:-1], e["obs"]["state"][1:])
        assert list(np.flatnonzero(e["dones"])) == [len(e["actions"]) - 1]
        assert e["attributes"]["episode_return"] == pytest.approx(e["rewards"].sum(), rel=1e-5)


def test_executed_actions_are_noisy_and_clean_ones_stand_beside_them():
    collect("reach/fr3", "a.hdf5", episodes=8, noise=0.2)
    added = np.concatenate([e["actions"] - e["actions_asked"] for e in episodes_of("a.hdf5")])
    inside = np.concatenate([np.abs(e["actions"]) < 1.0 for e in episodes_of("a.hdf5")])
    assert np.abs(added).max() > 0.4 and np.std(added[inside]) == pytest.approx(0.2, rel=0.1)
    assert max(np.abs(e["actions"]).max() for e in episodes_of("a.hdf5")) <= 1.0


def test_the_actions_of_a_file_replay_its_states_in_a_fresh_world():
    collect("push/fr3", "a.hdf5", episodes=1, noise=0.1, seed=3)
    (episode,) = episodes_of("a.hdf5")
    env = make("push/fr3", num_envs=1, seed=3, randomize="none")
    try:
        env.reset(3, np.array([int(episode["attributes"]["episode_seed"])]))
        for state, action in zip(episode["states"], episode["actions"], strict=True):
            nq = env.engine.qpos.shape[1]
            assert np.array_equal(env.engine.qpos[0], state[1 : 1 + nq])
            env.step(torch.from_numpy(action)[None])
    finally:
        env.close()


def test_only_successes_are_written_and_the_tried_are_counted():
    found = collect("push/fr3", "a.hdf5", "expert", episodes=4, noise=0.3, only_success=True)
    assert found.episodes == 4 and found.tried >= 4
    assert all(e["attributes"]["success"] for e in episodes_of("a.hdf5"))


def test_a_task_without_success_or_expert_is_refused_with_the_reason():
    with pytest.raises(UsageError, match="does not say what success is"):
        collect("InvertedPendulum-v5", "a.hdf5", "random", episodes=1, only_success=True)
    with pytest.raises(UsageError, match="no scripted expert"):
        collect("HalfCheetah-v5", "b.hdf5", episodes=1)


def test_the_command_writes_a_file_and_says_what_is_in_it(capsys):
    assert main(["data", "collect", "hop.hdf5", "--task", "Hopper-v5", "--policy", "random", "--episodes", "3"]) == 0
    assert "hop.hdf5: 3 episodes" in capsys.readouterr().out
    assert main(["data", "collect", "hop.hdf5", "--task", "Hopper-v5", "--policy", "random"]) == 1
    assert "exists" in capsys.readouterr().err


def test_appending_gives_what_one_go_would_have_given():
    collect("reach/fr3", "one.hdf5", episodes=5, noise=0.1, randomize="default")
    collect("reach/fr3", "two.hdf5", episodes=3, noise=0.1, randomize="default", append=True)
    done = collect("reach/fr3", "two.hdf5", episodes=2, noise=0.1, randomize="default", append=True)
    assert done.episodes == 2
    for a, b in zip(episodes_of("one.hdf5"), episodes_of("two.hdf5"), strict=True):
        assert np.array_equal(a["actions"], b["actions"]) and np.array_equal(a["obs"]["state"], b["obs"]["state"])
        assert a["attributes"]["episode_seed"] == b["attributes"]["episode_seed"]


def test_a_file_of_another_seed_is_not_appended_to():
    collect("reach/fr3", "a.hdf5", episodes=1)
    with pytest.raises(DatasetError, match="collected with seed 0, by which its episodes replay"):
        collect("reach/fr3", "a.hdf5", episodes=1, seed=1, append=True)
