"""Asynchronous collecting: nothing is lost, nobody runs away, and whoever dies is noticed.

Actors are threads here, which speak over the same sockets and memory as processes do and start in no time; the last
test has real ones.
"""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from poise.batch import Sample
from poise.child import receive_bytes, send, told
from poise.datasets.replay import Replay
from poise.errors import PoiseError, UsageError
from poise.policies import actors as actors_module
from poise.policies.actor import ERROR, Actor, act_for
from poise.policies.actors import Actors
from poise.policies.checkpoint import load_checkpoint
from poise.policies.recipes import recipe
from poise.policies.train import resume, train
from poise.policies.weight_board import WeightBoard, pack
from poise.sim.make import make

TASK = "reach/planar-state"
ASYNC = {"collect": "async", "actors": 2, "max_lead": 3, "num_envs": 4, "evaluations": 0, "log_points": 2,
         "checkpoint_seconds": 1e6}  # fmt: skip
SAC = {**ASYNC, "learning_starts": 40, "batch_size": 16, "hidden": (16,), "updates": 2, "compile": "off"}
CPU = torch.device("cpu")


class Threaded(actors_module._Actor):
    """An actor in a thread of this process."""

    def start(self, order):
        self.connection, theirs = socket.socketpair()
        self._thread = threading.Thread(target=serve, args=(theirs, order))
        self._thread.start()

    def hang_up(self):
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def end(self, wait=0.0):
        self.hang_up()
        self._thread.join()
        return 1234, "was killed by SIGKILL"


def serve(connection, order):
    with connection:
        try:
            act_for(connection, order, receive_bytes(connection))
        except ConnectionError:
            pass
        except Exception as error:
            with contextlib.suppress(ConnectionError):
                connection.sendall(ERROR)
                send(connection, told(error))


@pytest.fixture
def threads(monkeypatch):
    monkeypatch.setattr(actors_module, "_Actor", Threaded)


def replay_of(folder: Path, learner: str = "sac"):
    """What a checkpoint holds: everything but the replay, and the replay's rows in order."""
    config = json.loads((folder / "config.json").read_text())
    env = make(config["task"])
    replay = Replay(env.spec, config["run"]["num_envs"], config["settings"]["capacity"])
    env.close()
    state, info = load_checkpoint(folder / "checkpoint", replay)
    return state, info, replay.sample(Sample(0), np.random.default_rng(0))


def lines_of(folder: Path):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def breaks(batch, num_envs: int) -> np.ndarray:
    """(step, world) of the rows whose successor is not what the next row begins with, though no episode ended."""
    obs, next_obs = batch.obs["state"], batch.next_obs["state"]
    goes_on = (obs[num_envs:] == next_obs[:-num_envs]).all(-1) | batch.done[:-num_envs]
    return np.argwhere(~goes_on.reshape(-1, num_envs).numpy())


def test_every_step_arrives_once_and_in_order_with_as_many_updates_as_in_step(threads, tmp_path):
    settings = {**SAC, "steps": 240, "normalize_obs": True, "noise_hold": 3}
    done = train("sac", TASK, tmp_path / "async", settings=settings)
    state, info, batch = replay_of(tmp_path / "async")
    assert done.steps == info["steps"] == 240 and len(batch.reward) == 240
    assert len(breaks(batch, 4)) == 0 and int(batch.done.sum()) == 4  # an episode of 50 steps in each world
    in_step = train("sac", TASK, tmp_path / "sync", settings={**settings, "collect": "sync"})
    expected, _, _ = replay_of(tmp_path / "sync")
    assert in_step.steps == 240
    for name in ("steps", "updates"):
        assert state["learner"][name] == expected["learner"][name]
    assert state["learner"]["normalizer"]["count"] == expected["learner"]["normalizer"]["count"] == 240
    lines = lines_of(tmp_path / "async")
    assert all(0 <= line["async/staleness"] <= line["async/staleness_max"] <= 3 for line in lines)
    assert all(0 <= line[f"async/waiting_{who}"] <= 1 for line in lines for who in ("learner", "actors"))
    assert lines[-1]["train/bad_worlds"] == 0 and "async/lost_actors" not in lines[-1]


def test_resuming_goes_on_with_the_very_episodes(threads, tmp_path):
    """Every row of a checkpoint with rows in flight is kept, and the worlds stand where the replay ends."""
    train("sac", TASK, tmp_path / "run", settings={**SAC, "steps": 120, "collect_steps": 7})
    assert resume(tmp_path / "run", steps=240).steps == 252  # whole phases of 28 steps
    _, info, batch = replay_of(tmp_path / "run")
    assert info["steps"] == len(batch.reward) == 252
    assert len(breaks(batch, 4)) == 0


def test_rows_in_flight_at_a_checkpoint_are_counted_when_their_turn_comes(threads, tmp_path):
    settings = {**SAC, "steps": 160, "checkpoint_seconds": 0.0}
    train("sac", TASK, tmp_path / "run", settings=settings)
    state, info, batch = replay_of(tmp_path / "run")
    assert state["early"] == 0 and info["steps"] == len(batch.reward) == 160
    assert state["learner"]["updates"] == 2 * (40 - 9)  # from step 40 on
    assert len(breaks(batch, 4)) == 0
    assert all(line["async/staleness_max"] <= 3 for line in lines_of(tmp_path / "run"))


def test_evaluations_stop_nobody(threads, tmp_path, monkeypatch):
    asked = []
    aside = SimpleNamespace(ask=lambda what, order: asked.append(what.step), answers=lambda wait: [], pending=list,
                            saved=lambda: None, close=lambda: None)  # fmt: skip
    monkeypatch.setattr("poise.policies.run.Aside", lambda folder: aside)
    train("sac", TASK, tmp_path / "run", settings={**SAC, "steps": 80, "evaluations": 2})
    assert asked == [40, 80]


def actors_of(**changes) -> tuple[Actors, WeightBoard]:
    chosen = recipe("sac", TASK, {**SAC, **changes})
    actors = Actors("sac", TASK, chosen, "none")
    learner = chosen.learner(actors.spec, chosen.settings, actors.num_envs, 0, "cpu")
    board = WeightBoard(learner.acting())
    board.publish(pack(learner.acting()).numpy())
    return actors, board


def test_actors_stay_within_their_lead_and_the_end_of_the_run(threads):
    actors, board = actors_of()
    try:
        actors.start(0, 5, board.descriptor, CPU, count=2)
        for row, coming in enumerate((3, 3, 3, 2, 1, 0)):
            actors.give()
            assert (actors.row, actors.coming) == (row, coming)
            actors.ask_states()
            if actors.coming:
                actors.take(CPU)
            for actor in actors._actors:
                while actor.asked:
                    actors._hear(actor)
                assert actor.state["env"]["steps"].tolist() == [actors.given] * 2 and actor.written == actors.given
    finally:
        actors.close()


def test_rows_tell_the_version_that_they_were_acted_with(threads):
    actors, board = actors_of(max_lead=1)
    try:
        first = actors.start(0, 9, board.descriptor, CPU, count=2)
        assert first.version.tolist() == [1] * 4 and first.step.mask is not None and not first.step.mask.any()
        versions = []
        for _ in range(3):
            actors.give()
            versions.append(actors.take(CPU)[0].version.tolist())
            board.publish(board._places[board.version % 2].copy())
        assert versions == [[1] * 4, [2] * 4, [3] * 4]
    finally:
        actors.close()


def killed_at(monkeypatch, *rows: int):
    """The second actor is gone after these rows, in the middle of the next."""
    remaining, step = list(rows), Actor.step

    def dying(self):
        if self._actor == 1 and remaining and self.row >= remaining[0]:
            remaining.pop(0)
            raise ConnectionResetError
        step(self)

    monkeypatch.setattr(Actor, "step", dying)


def test_an_actor_that_dies_is_replaced_and_its_worlds_begin_anew(threads, tmp_path, monkeypatch, caplog):
    killed_at(monkeypatch, 30, 60)
    train("sac", TASK, tmp_path / "run", settings={**SAC, "steps": 400, "n_step": 3})
    who = "the actor process 1234 with worlds 2 to 3 was killed by SIGKILL; it is replaced"
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [who in message for message in warned] == [True, True]
    _, info, batch = replay_of(tmp_path / "run")
    assert info["steps"] == 400 and len(batch.reward) == 400 - 2 * 2  # a row lost each time, in two worlds
    lines = lines_of(tmp_path / "run")
    assert lines[-1]["async/lost_actors"] == 2
    # of 50 steps each, but for the four episodes that were lost: after 31 and 30
    assert [(line["train/episodes"], line["train/length"]) for line in lines] == [(4, 40.5), (4, 40.0)]


def test_a_replay_on_the_learners_device_takes_rows_too_and_lost_ones_as_broken_worlds(
    threads, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(
        Actors, "on_device", True, raising=False
    )  # as a GPU's are, and every call but the copy works here
    killed_at(monkeypatch, 30)
    settings = {**SAC, "steps": 140, "normalize_obs": True, "noise_hold": 3}
    train("sac", TASK, tmp_path / "run", settings=settings)
    resume(tmp_path / "run", steps=200)
    state, info, batch = replay_of(tmp_path / "run")
    assert "is replaced" in caplog.text
    assert info["steps"] == len(batch.reward) == state["learner"]["normalizer"]["count"] == 200
    assert state["learner"]["updates"] == 2 * (50 - 9) and len(breaks(batch, 4)) == 0
    lost = (batch.obs["state"] == batch.next_obs["state"]).all(-1).nonzero().squeeze(-1)
    assert lost.tolist() == [30 * 4 + 2, 30 * 4 + 3]
    assert batch.truncated[lost].all() and not batch.terminated.any() and batch.reward[lost].tolist() == [0.0, 0.0]


def test_an_actor_that_dies_again_and_again_ends_the_run(threads, tmp_path, monkeypatch):
    killed_at(monkeypatch, *[20] * 9)
    with pytest.raises(PoiseError, match="worlds 2 to 3 was killed by SIGKILL, after 3 starts without a step"):
        train("sac", TASK, tmp_path / "run", settings={**SAC, "steps": 400})


def test_what_a_simulator_raises_is_told(threads, tmp_path, monkeypatch):
    def broken(self):
        raise ValueError("the table has three legs")

    monkeypatch.setattr(Actor, "step", broken)
    with pytest.raises(
        PoiseError, match=r"actor with worlds 0 to 1 cannot go on: ValueError: the table has three legs"
    ):
        train("sac", TASK, tmp_path / "run", settings={**SAC, "steps": 400})


def test_dqn_explores_by_the_steps_of_all_actors(threads, tmp_path):
    settings = {**ASYNC, "steps": 200, "learning_starts": 100, "batch_size": 16, "hidden": (16,), "n_step": 2,
                "prioritized": True, "normalize_obs": True, "epsilon_fraction": 0.5}  # fmt: skip
    train("dqn", "gym:CartPole-v1", tmp_path / "run", settings=settings)
    state, info, batch = replay_of(tmp_path / "run")
    assert info["steps"] == state["learner"]["steps"] == len(batch.reward) == 200
    assert state["learner"]["normalizer"]["count"] == 200 and state["learner"]["updates"] == 26
    assert len(breaks(batch, 4)) == 0


def test_what_cannot_be_is_refused_in_one_line(tmp_path):
    with pytest.raises(UsageError, match="collect = async: ppo learns from steps of its newest policy alone"):
        train("ppo", TASK, tmp_path / "run", settings={"collect": "async"})
    with pytest.raises(UsageError, match=r"ranges that adapt .randomize=adr. follow all episodes"):
        train("sac", "reach/fr3", tmp_path / "run", settings={"collect": "async", "randomize": "adr"})
    with pytest.raises(UsageError, match="setting collect = 'both': expected sync or async"):
        train("sac", TASK, tmp_path / "run", settings={"collect": "both"})
    assert not (tmp_path / "run").exists()


def test_a_learner_that_is_killed_leaves_no_actor_behind_and_its_run_goes_on(tmp_path):
    settings = {**SAC, "hidden": "16", "checkpoint_seconds": 0, "actors": 1}
    sets = [x for name, value in settings.items() for x in ("--set", f"{name}={value}")]
    command = [sys.executable, "-P", "-m", "poise", "train", "sac", "--task", TASK, "--steps", "100000000",
               "--out", str(tmp_path / "run"), *sets]  # fmt: skip
    learner = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "checkpoint" / "manifest.json").exists():
        assert learner.poll() is None, learner.communicate()
        time.sleep(0.02)
    children = Path(f"/proc/{learner.pid}/task/{learner.pid}/children").read_text().split()
    actors = [os.pidfd_open(int(child)) for child in children]
    learner.kill()
    assert len(actors) == 1
    for actor in actors:  # readable at its end
        assert select.select([actor], [], [], 60.0)[0]
        os.close(actor)
    learner.communicate()
    before = json.loads((tmp_path / "run" / "checkpoint" / "manifest.json").read_text())["info"]["steps"]
    result = resume(tmp_path / "run", before + 40)
    assert result.steps == before + 40
