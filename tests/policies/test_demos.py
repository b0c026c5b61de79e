"""Demonstrations beside an online run: what a batch is made of, exact resume, and what is refused."""

import json

import numpy as np
import pytest
import torch

from poise.batch import Batch, Sample
from poise.datasets.episodes import EpisodeFile, EpisodeWriter, environment
from poise.datasets.offline import load
from poise.datasets.replay import Replay
from poise.errors import DatasetError, RunError, SpecError, UsageError
from poise.policies import demos
from poise.policies.checkpoint import load_checkpoint
from poise.policies.collect import collect
from poise.policies.policy_file import read_policy
from poise.policies.reward_scale import RewardScale
from poise.policies.run_replay import write_run
from poise.policies.sac import SAC
from poise.policies.sac_config import SACConfig
from poise.policies.train import resume, train
from poise.sim.make import load_task, make

PENDULUM = "gym:Pendulum-v1"
QUICK = {"num_envs": 2, "steps": 240, "learning_starts": 64, "batch_size": 32, "hidden": (16, 16), "compile": "off",
         "capacity": 1000, "evaluations": 0, "log_points": 4}  # fmt: skip


@pytest.fixture(scope="module")
def swings(tmp_path_factory):
    path = tmp_path_factory.mktemp("demos") / "swings.hdf5"
    collect(PENDULUM, path, "random", 2)
    return path


@pytest.fixture(scope="module")
def spec():
    env = make(PENDULUM)
    env.close()
    return env.spec


def test_the_share_asked_for_of_every_batch_is_demonstrations(swings, spec):
    data = demos.demonstrations([swings], PENDULUM, spec, torch.device("cpu"))
    assert data.num_rows == 400
    batch = demos.mixed(data, data, 0.25).sample(Sample(32, n_step=3, discount=0.9), np.random.default_rng(0))
    assert batch.origin is not None and batch.origin.tolist() == [0] * 24 + [1] * 8


def test_a_run_with_demonstrations_that_was_stopped_ends_as_one_that_was_not(swings, tmp_path):
    for name in ("a", "b"):
        train("sac/large", PENDULUM, tmp_path / name, demos=[f"{swings}:all"],
              settings={**QUICK, "steps": 120 if name == "b" else 240})  # fmt: skip
    resume(tmp_path / "b", steps=240)
    a, b = (read_policy(tmp_path / name / "policy.safetensors").tensors for name in ("a", "b"))
    assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
    entry = json.loads((tmp_path / "b" / "config.json").read_text())["demos"][0]
    assert entry["file"] == str(swings) and entry["filter"] == "all" and len(entry["sha256"]) == 64
    last = json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["demos/reward"] < 0 and last["replay/reward"] < 0


def test_demonstrations_that_changed_or_went_are_refused_on_resume(swings, tmp_path):
    own = tmp_path / "own.hdf5"
    own.write_bytes(swings.read_bytes())
    train("sac", PENDULUM, tmp_path / "run", demos=[own], settings={**QUICK, "steps": 100})
    with open(own, "ab") as file:
        file.write(b"more")
    with pytest.raises(RunError, match=r"own.hdf5 has changed since the run began \(SHA-256 was"):
        resume(tmp_path / "run", steps=200)
    own.unlink()
    with pytest.raises(RunError, match=r"not there any more: cannot read .*own.hdf5"):
        resume(tmp_path / "run", steps=200)


def test_a_learner_that_learns_from_its_own_steps_alone_takes_none(swings, tmp_path):
    for algorithm in ("ppo", "a2c", "reinforce", "dqn"):
        with pytest.raises(UsageError, match=f"^{algorithm} does not take --demos: sac, sac/demos, sac/large"):
            train(algorithm, PENDULUM, tmp_path / "run", demos=[swings])
    assert not (tmp_path / "run").exists()


def test_demonstrations_of_another_task_are_refused_with_every_difference(swings, tmp_path):
    with pytest.raises(SpecError, match=r"do not fit gym:MountainCarContinuous-v0:\n  .*\n  "):
        train("sac", "gym:MountainCarContinuous-v0", tmp_path / "run", demos=[swings], settings=QUICK)


def test_demonstrations_with_other_rewards_of_the_same_arm_are_refused(tmp_path):
    spec, path = load_task("lift/fr3").spec, tmp_path / "lift.hdf5"
    state, one = {"state": np.zeros((1, *spec.obs_shape("state")))}, np.zeros(1)
    episode = {"obs": state, "next_obs": state, "actions": np.zeros((1, spec.action_dim)), "rewards": one,
               "terminations": one, "truncations": one}  # fmt: skip
    with EpisodeWriter(path, spec, environment("lift/fr3")) as writer:
        writer.add(episode)
    demos.demonstrations([path], "lift/fr3?workers=2", spec, torch.device("cpu"))
    with pytest.raises(DatasetError, match=r"episodes of lift/fr3, with its rewards.*poise data collect OUT"):
        demos.demonstrations([path], "lift/fr3?reward=sparse", spec, torch.device("cpu"))


def test_what_the_demonstrations_show_is_in_the_normalizer_and_what_they_earn_in_the_scale(swings, spec):
    config = SACConfig(normalize_obs=True, normalize_rewards=True, v_max=5.0, discount=0.5)
    learner = SAC(spec, config, 2, 0)
    data = demos.demonstrations([swings], PENDULUM, spec, torch.device("cpu"))
    learner.look_at(data)
    with EpisodeFile(swings) as file:
        states = np.concatenate([file[name]["obs"]["state"] for name in file.names])
    assert learner.normalizer is not None and learner.rewards is not None
    np.testing.assert_allclose(learner.normalizer.mean32, states.mean(0), rtol=1e-4, atol=1e-6)
    largest = np.abs(data.discounted_returns(0.5)).max()
    assert learner.rewards(torch.tensor([float(largest)])).item() == pytest.approx(5.0)


def test_a_scale_covers_no_less_than_before():
    scale = RewardScale(1, 0.9, 5.0, torch.device("cpu"))
    scale.cover(20.0)
    scale.cover(10.0)
    assert scale(torch.tensor([20.0])).item() == pytest.approx(5.0)


def rows_of(batch: Batch) -> list[bytes]:
    """Every transition's bytes, in an order that does not depend on where it was kept."""
    parts = (batch.obs["state"], batch.action, batch.reward[:, None], batch.next_obs["state"],
             batch.terminated[:, None].float())  # fmt: skip
    return sorted(row.tobytes() for row in torch.cat(parts, 1).numpy())


def test_a_run_s_replay_is_written_as_demonstrations_that_another_run_takes(tmp_path, spec):
    train("sac", PENDULUM, tmp_path / "first", settings={**QUICK, "steps": 500})
    done = write_run(tmp_path / "first", tmp_path / "replay.hdf5")
    assert done.steps == 500 and done.episodes == 4 and done.return_mean is not None
    assert len(done.notes) == 1 and done.notes[0].startswith("2 of 4 episodes were still going on")
    assert write_run(tmp_path / "first", tmp_path / "early.hdf5", first=300).steps == 300
    replay = Replay(spec, 2, 1000)
    load_checkpoint(tmp_path / "first" / "checkpoint", replay)
    kept, written = (rows_of(source.sample(Sample(0), np.random.default_rng(0)))
                     for source in (replay, load([tmp_path / "replay.hdf5"])))  # fmt: skip
    assert len(kept) == 500 and kept == written
    with EpisodeFile(tmp_path / "replay.hdf5") as file:
        assert file.filter("whole") == ["demo_0", "demo_1"]
        assert file.provenance["run"]["algorithm"] == "sac" and file.env_args["env_name"] == PENDULUM
    train("sac", PENDULUM, tmp_path / "second", demos=[f"{tmp_path / 'replay.hdf5'}:whole"],
          settings={**QUICK, "steps": 80})  # fmt: skip


def test_a_run_without_a_replay_says_so(tmp_path):
    train("ppo", PENDULUM, tmp_path / "run", settings={"num_envs": 2, "steps": 64, "collect_steps": 32, "hidden": (8,),
                                                       "evaluations": 0, "minibatches": 1})  # fmt: skip
    with pytest.raises(RunError, match="a run of ppo, which keeps no replay"):
        write_run(tmp_path / "run", tmp_path / "replay.hdf5")
