"""Tiny policies and a hand-made driver for the arm's tests."""

import socket
from dataclasses import replace

import pytest

from poise.sim.tasks.reach import reach_spec
from random_policy import write_random


@pytest.fixture
def free_port():
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def policy_path(tmp_path_factory):
    """A small random reach policy, mild enough to stay off the walls for a while."""
    return write_random(tmp_path_factory.mktemp("policy") / "policy.safetensors", scale=0.05)


@pytest.fixture(scope="session")
def wild_policy_path(tmp_path_factory):
    """A random policy that throws the arm about."""
    return write_random(tmp_path_factory.mktemp("policy") / "wild.safetensors", scale=2.0)


@pytest.fixture(scope="session")
def recurrent_policy_path(tmp_path_factory):
    """A random policy that remembers: two frames and an LSTM."""
    spec = reach_spec()
    stacked = replace(spec, observations={"state": tuple(replace(t, history=2) for t in spec.observations["state"])})
    return write_random(tmp_path_factory.mktemp("policy") / "recurrent.safetensors", 0.2, stacked, lstm=4)


@pytest.fixture(scope="session")
def chunk_policy_path(tmp_path_factory):
    """A random reach policy that plans eight actions at a time."""
    path = tmp_path_factory.mktemp("policy") / "chunks.safetensors"
    return write_random(path, 0.05, replace(reach_spec(), action_horizon=8))
