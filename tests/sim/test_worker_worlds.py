"""Worlds in worker processes: the same as in this process to the bit, whoever dies on the way."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from conformance import check_vec_env
from poise.errors import PoiseError, UsageError
from poise.sim.gymnasium_adapter import GymVecEnv, make_gym
from poise.sim.worker_worlds import WorkerWorlds

ACTION = torch.tensor([[0.5, -0.5]])


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    """The environments of worker_envs.py, in the registry for the length of a test."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    for name in ("Walk", "Filmed"):
        gymnasium.register(f"Poise{name}-v0", f"worker_envs:{name}", kwargs={"start": (0.5, -0.5)})
        gymnasium.register(f"PoiseFragile{name}-v0", f"worker_envs:{name}", kwargs={"folder": str(tmp_path)})
    yield
    for id in [id for id in gymnasium.registry if id.startswith("Poise")]:
        del gymnasium.registry[id]


@pytest.fixture
def make(request):
    """Worlds that are closed at the end of the test, and whose workers are gone then."""
    made = []

    def make(id, num_envs):
        made.append(make_gym(id, num_envs))
        return made[-1]

    yield make
    pids = [pid for env in made for pid in workers(env)]
    for env in made:
        env.close()
    assert not any(alive(pid) for pid in pids)


def workers(env: GymVecEnv) -> list[int]:
    """The process ids of an env's workers."""
    return [w._process.pid for w in env._env._workers if w._process] if isinstance(env._env, WorkerWorlds) else []


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not alive(pid)


def same(a, b) -> bool:
    tensors = [*a.obs.values(), *a.next_obs.values(), a.reward, a.terminated, a.truncated, a.success]
    others = [*b.obs.values(), *b.next_obs.values(), b.reward, b.terminated, b.truncated, b.success]
    return all(torch.equal(x, y) for x, y in zip(tensors, others, strict=True))


def act(env, seed):
    return torch.rand(env.num_envs, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ---- the same worlds -------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["PoiseWalk-v0", "PoiseFilmed-v0"])
@pytest.mark.parametrize("count", [2, 9])
def test_workers_give_the_steps_of_this_process_to_the_bit(make, id, count):
    here, there = make(id, 5), make(f"{id}?workers={count}", 5)
    assert len(workers(there)) == min(count, 5)
    assert there.spec == here.spec
    first = here.reset(3), there.reset(3)
    assert all(torch.equal(first[0][g], first[1][g]) for g in first[0])
    for t in range(30):
        assert same(here.step(act(here, t)), there.step(act(there, t))), t


def test_they_keep_the_contract_of_a_vec_env():
    check_vec_env(lambda n: make_gym("PoiseFilmed-v0?workers=2", n), longest=20)


def test_a_state_of_workers_goes_on_in_this_process_and_back(make):
    there, here = make("PoiseWalk-v0?workers=2", 3), make("PoiseWalk-v0", 3)
    there.reset(1)
    for t in range(8):
        there.step(act(there, t))
    here.load_state_dict(there.state_dict())
    again = make("PoiseWalk-v0?workers=3", 3)
    again.load_state_dict(here.state_dict())
    for t in range(10):
        step = there.step(act(there, t))
        assert same(step, here.step(act(here, t))) and same(step, again.step(act(again, t)))


def test_a_worker_that_dies_while_episodes_are_replayed_is_replaced_and_they_are_replayed_again(make, tmp_path):
    there, again = (make("PoiseFragileWalk-v0?workers=1", 2) for _ in range(2))
    there.reset(3)
    for t in range(11):
        there.step(act(there, t))
    state = there.state_dict()
    assert state["steps"].max() > 3
    (tmp_path / "step.exit").touch()
    again.load_state_dict(state)
    assert again.lost_workers == 1 and again.bad_worlds == 0 and not (tmp_path / "step.exit").exists()
    assert same(there.step(act(there, 11)), again.step(act(there, 11)))


# ---- workers that die ------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_its_episodes_are_truncated_and_the_others_go_on(make, caplog):
    env, plain = make("PoiseWalk-v0?workers=2", 4), make("PoiseWalk-v0", 4)
    env.reset(0), plain.reset(0)
    before, _ = env.step(act(env, 0)), plain.step(act(env, 0))
    pid = workers(env)[1]
    os.kill(pid, signal.SIGKILL)
    with caplog.at_level(logging.WARNING, "poise"):
        step, expected = env.step(act(env, 1)), plain.step(act(env, 1))
    assert caplog.messages == [f"gym:PoiseWalk-v0: the worker process {pid} with worlds 2 to 3 was killed by SIGKILL; it "
                               "is replaced, the open episodes of these worlds are truncated"]  # fmt: skip
    assert (env.lost_workers, env.bad_worlds) == (1, 2)
    assert step.truncated.tolist() == [False, False, True, True] and not step.terminated.any()
    assert step.reward.tolist()[2:] == [0.0, 0.0]
    assert torch.equal(step.next_obs["state"][2:], before.obs["state"][2:]), "the successor is the last sound one"
    assert not torch.equal(step.obs["state"][2:], before.obs["state"][2:]), "a new episode has begun"
    for t in range(2, 12):  # worlds 0 and 1 never notice; 2 and 3 are in their next episodes
        assert torch.equal(step.obs["state"][:2], expected.obs["state"][:2])
        step, expected = env.step(act(env, t)), plain.step(act(env, t))
        assert torch.isfinite(step.next_obs["state"]).all()
    fresh = make("PoiseWalk-v0", 4)
    fresh.load_state_dict(env.state_dict())
    assert (fresh.lost_workers, fresh.bad_worlds) == (1, 2)
    assert same(env.step(act(env, 50)), fresh.step(act(env, 50)))


@pytest.mark.parametrize(("what", "how"), [("segv", "was killed by SIGSEGV"), ("exit", "ended with exit code 3")])
@pytest.mark.parametrize("doing", ["step", "reset"])
def test_a_worker_that_dies_in_its_environment_is_replaced(make, caplog, tmp_path, doing, what, how):
    env = make("PoiseFragileFilmed-v0?workers=1", 2)
    env.reset(0)
    (tmp_path / f"{doing}.{what}").touch()
    ended = torch.zeros(2, dtype=torch.bool)
    for t in range(12):
        step = env.step(act(env, t))
        ended |= step.done
        assert torch.isfinite(step.next_obs["state"]).all()
    assert env.lost_workers == 1 and how in caplog.text
    assert ended.all()


def test_a_worker_that_dies_again_and_again_is_an_error(make, tmp_path):
    env = make("PoiseFragileWalk-v0?workers=1", 1)
    env.reset(0)
    (tmp_path / "reset.exit").touch()
    (tmp_path / "always").touch()
    with pytest.raises(PoiseError, match=r"world 0 ended with exit code 3, after 3 starts without a step"):
        env.reset(0)


def test_an_exception_in_a_world_is_an_error_that_names_it(make, tmp_path):
    env = make("PoiseFragileWalk-v0?workers=2", 4)
    env.reset(0)
    (tmp_path / "step.raise").touch()
    with pytest.raises(
        PoiseError, match=r"world \d raised ValueError: the leg came off \(worker_envs.py, line \d+\)"
    ) as e:
        for t in range(12):
            env.step(act(env, t))
    assert "in _happen" in e.value.__notes__[0]
    assert env.reset(0)["state"].shape == (4, 2), "a reset starts anew"


def test_after_a_call_that_was_broken_off_all_worlds_begin_anew(make, tmp_path):
    env = make("PoiseFragileWalk-v0?workers=2", 2)
    env.reset(0)
    (tmp_path / "step.hang").touch()
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            for t in range(12):
                env.step(act(env, t))
    finally:
        signal.signal(signal.SIGALRM, before)
    step = env.step(act(env, 3))
    assert step.truncated.all() and (env.lost_workers, env.bad_worlds) == (0, 2)


@pytest.mark.parametrize("hang", [False, True])
def test_workers_end_when_the_process_that_wanted_them_is_killed(tmp_path, hang):
    code = f"""
import sys, torch, gymnasium
sys.path.insert(0, {str(Path(__file__).parent)!r})
from poise.sim.gymnasium_adapter import make_gym
gymnasium.register("Walk-v0", "worker_envs:Walk", kwargs={{"folder": {str(tmp_path)!r}}})
env = make_gym("Walk-v0?workers=1", 1)
env.reset(0)
print(env._env._workers[0]._process.pid, flush=True)
while True:
    env.step(torch.zeros(1, 2))
"""
    if hang:
        (tmp_path / "step.hang").touch()
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    time.sleep(0.2)
    assert alive(pid)
    parent.kill()
    parent.wait()
    assert gone_within(pid, 20.0)


# ---- what cannot be --------------------------------------------------------------------------


def test_an_environment_that_no_other_process_can_make_is_refused(monkeypatch):
    class Local(gymnasium.Env):
        observation_space = action_space = gymnasium.spaces.Discrete(2)

    gymnasium.register("PoiseLocal-v0", Local)
    with pytest.raises(UsageError, match="a worker process cannot import; move it to a module of its own"):
        make_gym("PoiseLocal-v0?workers=2", 2)


def test_arguments_that_cannot_be_sent_are_refused():
    gymnasium.register("PoiseOdd-v0", "worker_envs:Walk", kwargs={"start": np.zeros(2)})
    with pytest.raises(UsageError, match="can be told texts, finite numbers, lists, dicts and tuples"):
        make_gym("PoiseOdd-v0?workers=2", 2)


def test_what_a_worker_cannot_do_is_said_by_its_environment(monkeypatch, tmp_path):
    (tmp_path / "here_alone.py").write_text(
        "import os, worker_envs\nassert 'ONLY_HERE' in os.environ\nclass Walk(worker_envs.Walk): pass\n")  # fmt: skip
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ONLY_HERE", "1")
    gymnasium.register("PoiseHere-v0", "here_alone:Walk")
    gymnasium.make("PoiseHere-v0").close()
    monkeypatch.delenv("ONLY_HERE")
    with pytest.raises(PoiseError, match=r"gym:PoiseHere-v0 cannot be made in a worker process: AssertionError"):
        make_gym("PoiseHere-v0?workers=2", 2)


@pytest.mark.parametrize("text", ["-1", "many", "1.5", ""])
def test_the_number_of_workers_must_be_one(text):
    with pytest.raises(UsageError, match="expected a number of processes, 0 for none"):
        make_gym(f"PoiseWalk-v0?workers={text}", 2)


def test_no_workers_are_this_process(make):
    assert workers(make("PoiseWalk-v0?workers=0", 2)) == []


def test_atari_refuses_workers():
    with pytest.raises(UsageError, match="consoles are stepped in this process, so leave workers=2 out"):
        make_gym("ALE/Pong-v5?workers=2", 2)


def test_a_worker_loads_no_torch(make):
    maps = Path(f"/proc/{workers(make('PoiseWalk-v0?workers=1', 1))[0]}/maps").read_text()
    assert "libpython" in maps or "_multiarray" in maps
    assert "libtorch" not in maps


def test_one_worker_at_most_for_every_world(make):
    env = make("PoiseWalk-v0?workers=3", 2)
    np.testing.assert_array_equal(np.concatenate([w.worlds for w in env._env._workers]), [0, 1])
