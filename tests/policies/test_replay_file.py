"""Recorded episodes played again: exactly where the file is ours, and judged by the task where it is another's."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest

from poise.cli import main
from poise.datasets.layouts import robomimic
from poise.datasets.log import Episode, Log
from poise.errors import DatasetError, UsageError
from poise.policies.collect import collect
from poise.policies.replay_file import replay

REAL = Path(__file__).parents[1] / "data" / "robomimic_lift.hdf5"


@pytest.mark.parametrize("mode", ["states", "actions"])
def test_an_episode_of_ours_replays_without_any_difference(mode):
    collect("push/fr3", "a.hdf5", episodes=2, noise=0.1, seed=3, randomize="default")
    for one in replay("a.hdf5", mode="actions"):
        assert one.beyond is None and max(one.largest.values()) == 0.0
        assert np.array_equal(one.rewards, one.recorded_rewards)
    if mode == "states":
        collect("push/fr3", "b.hdf5", episodes=1, noise=0.1, seed=3)
        (one,) = replay("b.hdf5", mode="states")
        assert one.beyond is None
        assert one.rewards == pytest.approx(one.recorded_rewards, abs=1e-6)


def test_another_action_shows_from_the_step_after_it():
    collect("reach/fr3", "a.hdf5", episodes=1, seed=1)
    with open_copy("a.hdf5", "b.hdf5") as h5:
        actions = h5["data/demo_0/actions"]
        actions[5] = -actions[5]
    (one,) = replay("b.hdf5", mode="actions")
    assert one.beyond == 6 and one.divergence["state"][:6].max() == 0.0
    assert one.largest["states"] > 0.0


def test_a_robosuite_file_of_2020_turns_successful_at_the_recorded_step():
    (one,) = replay(REAL)
    assert one.first_success == 401 and len(one.rewards) == 412
    assert np.array_equal(one.rewards[:-1], one.recorded_rewards[:-1]) and np.isnan(one.rewards[-1])
    assert one.largest["robot0_eef_pos"] < 1e-6


def test_a_gymnasium_world_replays_from_its_states_and_from_its_first_alone():
    log_of_half_cheetah("a.hdf5")
    for mode in ("states", "actions"):
        (one,) = replay("a.hdf5", "gym:HalfCheetah-v5", mode=mode, tolerance=1e-4)
        assert one.beyond is None  # controls are scaled in single precision, which contacts amplify
        assert one.returns[1] == pytest.approx(one.returns[0], abs=1e-4)


def test_what_a_file_does_not_tell_is_refused_by_name():
    log_of_half_cheetah("a.hdf5")
    with pytest.raises(UsageError, match="does not say which task"):
        replay("a.hdf5")
    with pytest.raises(DatasetError, match="a state of this task is 13 finite numbers"):
        replay("a.hdf5", "gym:Hopper-v5")
    with pytest.raises(DatasetError, match="goals or timers"):
        replay("a.hdf5", "reach/fr3")
    with pytest.raises(UsageError, match="expected states or actions"):
        replay("a.hdf5", "gym:HalfCheetah-v5", mode="both")
    with pytest.raises(UsageError, match="only MuJoCo worlds"):
        replay("a.hdf5", "gym:Pendulum-v1")


def test_the_command_says_where_it_parts_and_films_it(capsys):
    collect("reach/planar-state", "a.hdf5", "random", episodes=1)
    assert main(["data", "replay", "a.hdf5", "--video", "a.mp4"]) == 0
    assert "never beyond tolerance" in capsys.readouterr().out
    assert Path("a.mp4").stat().st_size > 1000


def log_of_half_cheetah(path: str) -> None:
    env = gymnasium.make("HalfCheetah-v5").unwrapped
    obs, _ = env.reset(seed=0)
    env.set_state(env.data.qpos.copy(), env.data.qvel.copy())
    rows = {"states": [], "obs/state": [], "actions": [], "rewards": []}
    for action in np.random.default_rng(0).uniform(-1, 1, (8, 6)).astype(np.float32):
        rows["states"].append(np.concatenate([[env.data.time], env.data.qpos, env.data.qvel]))
        rows["obs/state"].append(obs)
        obs, reward, *_ = env.step(action)
        rows["actions"].append(action)
        rows["rewards"].append(reward)
    env.close()
    episode = Episode("demo_0", {name: np.array(values) for name, values in rows.items()})
    robomimic.write(Path(path), Log(Path(path), "robomimic", [episode]))


def open_copy(source: str, target: str):
    import h5py

    Path(target).write_bytes(Path(source).read_bytes())
    return h5py.File(target, "r+")
