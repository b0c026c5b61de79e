"""Our transitions of a D4RL file beside those of d4rl's own qlearning_dataset, each known difference by itself.

d4rl runs in a process of its own: it imports gym, which greets everybody on standard error.
"""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from poise.batch import Sample
from poise.datasets.offline import load

REAL = Path(__file__).parents[1] / "data/d4rl_push_ball.hdf5"
CODE = """
import sys
from types import SimpleNamespace
import numpy as np, h5py, d4rl
for path, horizon in zip(sys.argv[1::2], sys.argv[2::2]):
    with h5py.File(path) as h5:
        shapes = SimpleNamespace(shape=h5["observations"].shape[1:]), SimpleNamespace(shape=h5["actions"].shape[1:])
    env = SimpleNamespace(observation_space=shapes[0], action_space=shapes[1], _max_episode_steps=int(horizon))
    env.get_dataset = lambda: d4rl.offline_env.OfflineEnv.get_dataset(env, path)
    for end in (False, True):
        np.savez(f"{path}.{end}.npz", **d4rl.qlearning_dataset(env, terminate_on_end=end))
"""
ROWS = np.arange(12)
AFTER = np.stack([ROWS + 1, (ROWS + 1) ** 2], 1).astype(np.float32)
AFTER[[3, 7, 11]] = [[33, 0], [77, 0], [99, 0]]
FILES = {  # name -> what it has otherwise, the environment's time limit
    "plain": ({}, 1000),
    "own": ({"next_observations": AFTER}, 1000),
    "untimed": ({"timeouts": None}, 5),
    "wide": ({"rewards": np.arange(12, dtype=np.float32)[:, None]}, 1000),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every file, and beside it what qlearning_dataset makes of it, without and with terminate_on_end."""
    folder = tmp_path_factory.mktemp("files")
    limits = {write(folder / name, **arrays): limit for name, (arrays, limit) in FILES.items()}
    (folder / "real").write_bytes(REAL.read_bytes())
    limits[folder / "real"] = 10_000
    told = [str(x) for pair in limits.items() for x in pair]
    done = subprocess.run([sys.executable, "-c", CODE, *told], cwd=folder, capture_output=True, text=True, timeout=120,
                          env={"D4RL_SUPPRESS_IMPORT_ERROR": "1", "D4RL_DATASET_DIR": str(folder), "HOME": str(folder)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def theirs(path):
    return [dict(np.load(f"{path}.{end}.npz")) for end in (False, True)]


def ours(path, **settings):
    batch = load([path], actions="scale", **settings).sample(Sample(0), np.random.default_rng(0))
    return {
        "observations": batch.obs["state"].numpy(),
        "next_observations": batch.next_obs["state"].numpy(),
        "rewards": batch.reward.numpy(),
        "terminals": batch.terminated.numpy(),
    }


def write(path, **arrays):
    """Twelve rows: terminates at 3, out of time at 7, terminates at 11, the last; None leaves an array out."""
    found = {
        "observations": np.stack([ROWS, ROWS**2], 1).astype(np.float32),
        "actions": np.linspace(-1, 1, 12, dtype=np.float32)[:, None],
        "rewards": ROWS.astype(np.float32),
        "terminals": np.isin(ROWS, (3, 11)),
        "timeouts": ROWS == 7,
    } | arrays
    with h5py.File(path, "w") as h5:
        for name, value in found.items():
            if value is not None:
                h5[name] = value
    return path


def rows_of(transitions):
    """Which rows of the file they are, by the first number of the observation."""
    return transitions["observations"][:, 0].astype(int).tolist()


def same(one, other, one_rows, other_rows, but=()):
    for name in {"observations", "next_observations", "rewards", "terminals"} - set(but):
        np.testing.assert_array_equal(one[name][one_rows], other[name][other_rows], name)


def test_both_drop_the_last_step_before_a_time_limit_and_d4rl_the_files_last_row_too(folder):
    (their, _), our = theirs(folder / "plain"), ours(folder / "plain")
    assert rows_of(their) == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]
    assert rows_of(our) == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11]  # 11 terminates: nothing has to follow it
    same(our, their, slice(0, 10), slice(None), but=["next_observations"])
    goes_on = ~their["terminals"]
    np.testing.assert_array_equal(our["next_observations"][:10][goes_on], their["next_observations"][goes_on])


def test_after_a_terminal_d4rl_shows_the_next_episodes_start_which_counts_for_nothing(folder):
    (their, _), our = theirs(folder / "plain"), ours(folder / "plain")
    assert their["terminals"][3] and our["terminals"][3]
    np.testing.assert_array_equal(their["next_observations"][3], [4, 16])
    np.testing.assert_array_equal(our["next_observations"][3], [3, 9])


def test_a_files_own_next_observations_are_ours_and_not_d4rls(folder):
    (their, _), our = theirs(folder / "own"), ours(folder / "own")
    assert rows_of(our) == list(range(12))  # 7 too: what followed it is known
    np.testing.assert_array_equal(our["next_observations"], AFTER)
    np.testing.assert_array_equal(their["next_observations"][3], [4, 16])


def test_terminate_on_end_keeps_time_limits_with_a_wrong_successor_and_without_done(folder):
    _, their = theirs(folder / "plain")
    assert rows_of(their) == list(range(11))
    np.testing.assert_array_equal(their["next_observations"][7], [8, 64])  # of the next episode
    assert not their["terminals"][7]


def test_without_timeouts_d4rl_counts_one_step_too_many_after_a_terminal(folder):
    (their, _), our = theirs(folder / "untimed"), ours(folder / "untimed", layout="d4rl?horizon=5")
    assert rows_of(their) == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]  # the limit is 5, and 4 … 7 are four steps
    assert rows_of(our) == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    same(our, their, slice(4, 7), slice(4, 7))


def test_rewards_in_a_column_of_their_own_are_the_same(folder):
    (their, _), our = theirs(folder / "wide"), ours(folder / "wide")
    np.testing.assert_array_equal(our["rewards"][:10], their["rewards"])


def test_on_a_real_file_both_give_the_same(folder):
    (their, _), our = theirs(folder / "real"), ours(folder / "real")
    assert (len(their["rewards"]), len(our["rewards"])) == (1999, 2000)
    same(our, their, slice(0, 1999), slice(None))
