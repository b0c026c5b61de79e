"""Philox against its published vectors, and what keyed numbers promise: value = f(key), nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.keyed import Stream, philox4x32, uniforms

small = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123, tests/kat_vectors, philox4x32 with 10 rounds
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_vectors(counter, key, expected):
    words = philox4x32(np.array([[int(w, 16) for w in counter.split()]]), tuple(int(w, 16) for w in key.split()))
    assert [f"{w:08x}" for w in words[0]] == expected.split()


def test_philox_of_many_counters_is_philox_of_each():
    counters = np.random.default_rng(0).integers(0, 2**32, (3, 5, 4), np.uint64)
    together = philox4x32(counters, (1, 2))
    for i in range(3):
        for j in range(5):
            np.testing.assert_array_equal(together[i, j], philox4x32(counters[i, j], (1, 2)))


@pytest.mark.parametrize("n", [1, 40])
def test_numbers_of_several_streams_at_once_are_those_of_each(n):
    worlds, streams = np.arange(n), [Stream(0, "a"), Stream(0, "b"), Stream(9, "a")]
    asked = [(streams[0], worlds, 1, 5, 0), (streams[1], worlds, 0, 2, worlds), (streams[2], 3, 2, 9, 1)]
    for (stream, *rest), together in zip(asked, uniforms(asked), strict=True):
        np.testing.assert_array_equal(together, stream.uniform(*rest))
    np.testing.assert_array_equal(uniforms(asked)[0][:1], streams[0].uniform(0, 1, 5))


@given(seed=st.integers(0, 2**63), world=small, episode=small, step=small, size=st.integers(1, 9))
def test_a_value_depends_on_its_key_alone(seed, world, episode, step, size):
    alone = Stream(seed, "friction").uniform(world, episode, size, step)
    worlds = np.array([7, world, 3])
    episodes = np.array([1, episode, 2])
    in_a_crowd = Stream(seed, "friction").uniform(worlds, episodes, size + 5, np.array([0, step, 9]))
    np.testing.assert_array_equal(alone[0], in_a_crowd[1, :size])


@given(world=small, episode=small, few=st.integers(1, 9), more=st.integers(0, 9))
def test_asking_for_more_normal_numbers_leaves_the_first_ones_as_they_were(world, episode, few, more):
    stream = Stream(0, "noise")
    np.testing.assert_array_equal(
        stream.normal(world, episode, few), stream.normal(world, episode, few + more)[:, :few]
    )


@pytest.mark.parametrize("other", [(1, "a", 0, 0, 0), (0, "b", 0, 0, 0), (0, "a", 1, 0, 0), (0, "a", 0, 1, 0),
                                   (0, "a", 0, 0, 1)])  # fmt: skip
def test_another_seed_name_world_episode_or_step_gives_other_numbers(other):
    seed, name, world, episode, step = other
    here = Stream(0, "a").uniform(0, 0, 8, 0)
    assert np.all(here != Stream(seed, name).uniform(world, episode, 8, step))


def test_a_seed_and_a_name_never_run_together():
    assert np.all(Stream(1, "2/x").uniform(0, 0, 8) != Stream(12, "x").uniform(0, 0, 8))


def test_uniform_numbers_fill_the_open_unit_interval_evenly():
    u = Stream(3, "u").uniform(np.arange(20_000), 5, 10)
    assert u.shape == (20_000, 10)
    assert 0 < u.min() < 1e-4 and 1 - 1e-4 < u.max() < 1
    np.testing.assert_allclose(u.mean(0), 0.5, atol=0.01)  # 5 standard errors of 1/sqrt(12 * 20000)
    counts, _ = np.histogram(u, bins=50, range=(0, 1))
    chi2 = ((counts - 4000) ** 2 / 4000).sum()
    assert chi2 < 85  # 49 degrees of freedom, 0.1 % tail


def test_normal_numbers_have_the_moments_of_a_normal():
    z = Stream(4, "z").normal(np.arange(50_000), 0, 5)
    n = z.size
    assert abs(z.mean()) < 4 / np.sqrt(n)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / n)


def test_neighbouring_worlds_episodes_steps_and_columns_are_uncorrelated():
    stream, n, bound = Stream(5, "c"), 20_000, 5 / np.sqrt(20_000)
    at_zero = stream.normal(np.arange(n), 0, 4)
    columns = np.corrcoef(at_zero.T) - np.eye(4)
    assert np.abs(columns).max() < bound
    for neighbour in (stream.normal(np.arange(1, n + 1), 0, 4), stream.normal(np.arange(n), 1, 4),
                      stream.normal(np.arange(n), 0, 4, 1)):  # fmt: skip
        assert abs(np.corrcoef(at_zero.ravel(), neighbour.ravel())[0, 1]) < bound


def test_integers_fill_their_range():
    i = Stream(6, "i").integer(np.arange(100_000), 0)
    assert i.dtype == np.int64 and i.min() >= 0 and i.max() < 2**31
    assert abs(i.mean() / 2**30 - 1) < 0.01
    assert len(np.unique(i)) > 99_990  # about 2.3 collisions expected


def test_world_episode_and_step_broadcast_against_each_other():
    stream = Stream(0, "b")
    rows = stream.uniform(np.arange(4), 2, 3, step=np.array([5, 6, 7, 8]))
    for w in range(4):
        np.testing.assert_array_equal(rows[w], stream.uniform(w, 2, 3, step=5 + w)[0])
