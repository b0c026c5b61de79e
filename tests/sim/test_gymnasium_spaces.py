"""Cameras and Dicts through the gym: adapter, each frame checked against the one that the environment drew."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from conformance import check_vec_env
from poise.sim.gymnasium_adapter import GymVecEnv, make_gym
from poise.sim.gymnasium_spaces import Groups

BYTES = (0, 255)
RGB = spaces.Box(*BYTES, (5, 7, 3), np.uint8)


class Filmed(gymnasium.Env):
    """Every observation is drawn from its own generator, so that each step's frame is different."""

    metadata = {"render_modes": [], "history": 2}  # noqa: RUF012 (Gymnasium's own form)
    action_space = spaces.Discrete(2)

    def __init__(self, observation):
        self.observation_space = observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._obs(), {}

    def step(self, action):
        return self._obs(), 0.0, False, False, {}

    def _obs(self):
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self.observation_space.sample()


@pytest.fixture(autouse=True)
def registered():
    before = dict(gymnasium.registry)
    yield
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


def register(space, limit=4):
    gymnasium.register("PoiseFilmed-v0", Filmed, max_episode_steps=limit, kwargs={"observation": space})


@pytest.mark.parametrize(
    ("shape", "frame", "pixel"),
    [
        ((5, 7), (5, 7, 1), lambda raw: raw[:, 3, 2]),
        ((5, 7, 3), (5, 7, 3), lambda raw: raw[:, 3, 2]),
        ((3, 5, 7), (5, 7, 3), lambda raw: raw[:, :, 3, 2]),
        ((4, 5, 5), (5, 5, 4), lambda raw: raw[:, :, 3, 2]),
        ((5, 5, 5), (5, 5, 5), lambda raw: raw[:, 3, 2]),
    ],
)
def test_a_camera_is_height_width_channels_however_it_lies(shape, frame, pixel):
    groups = Groups(spaces.Box(*BYTES, shape, np.uint8), "gym:x")
    raw = np.random.default_rng(0).integers(0, 255, (2, *shape), np.uint8)
    obs = groups.pack(raw)["camera"]
    assert groups.terms["camera"][0].shape == frame and obs.shape == (2, *frame)
    assert obs.dtype == torch.uint8 and obs.is_contiguous()
    np.testing.assert_array_equal(obs[:, 3, 2].numpy().reshape(2, -1), pixel(raw).reshape(2, -1))
    raw[:] = 0
    assert obs.any()  # in memory of its own


def test_a_dict_gives_one_vector_and_its_camera():
    space = spaces.Dict(
        arm=spaces.Box(-1, 1, (2, 2)), eye=RGB, mode=spaces.Discrete(3, start=1), ram=spaces.Box(*BYTES, (4,), np.uint8)
    )
    groups = Groups(space, "gym:x", history=3)
    assert [(t.name, t.size) for t in groups.terms["state"]] == [("arm", 4), ("mode", 3), ("ram", 4)]
    assert (groups.terms["camera"][0].history, groups.terms["state"][0].history) == (3, 1)
    raw = {"arm": np.arange(4.0).reshape(1, 2, 2), "eye": np.ones((1, 5, 7, 3), np.uint8), "mode": np.array([2]),
           "ram": np.array([[9, 8, 7, 255]], np.uint8)}  # fmt: skip
    obs = groups.pack(raw)
    assert obs["state"].tolist() == [[0, 1, 2, 3, 0, 1, 0, 9, 8, 7, 255]]
    assert obs["camera"].shape == (1, 5, 7, 3)


def test_several_cameras_are_named_by_their_keys():
    groups = Groups(spaces.Dict(left=RGB, right=spaces.Box(*BYTES, (4, 4), np.uint8)), "gym:x")
    assert {g: t[0].shape for g, t in groups.terms.items()} == {"camera_left": (5, 7, 3), "camera_right": (4, 4, 1)}


@pytest.mark.parametrize("space", [RGB, spaces.Dict(arm=spaces.Box(-1, 1, (2,)), eye=RGB)])
def test_worlds_with_cameras_keep_the_contract_and_say_their_history(space):
    register(space)
    check_vec_env(lambda n: make_gym("PoiseFilmed-v0", n))
    assert make_gym("PoiseFilmed-v0", 1).spec.history("camera") == 2


@pytest.mark.parametrize("space", [RGB, spaces.Dict(arm=spaces.Box(-1, 1, (2,)), eye=RGB)])
def test_the_true_successor_of_an_episode_s_end_keeps_its_frame(space):
    register(space, limit=3)
    vector = SyncVectorEnv([lambda: gymnasium.make("PoiseFilmed-v0")] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    env, plain = GymVecEnv(vector), make_gym("PoiseFilmed-v0", 1)
    env.reset(0)
    for _ in range(3):
        step = env.step(torch.zeros(2, 1, dtype=torch.int64))
    assert step.truncated.all()
    assert env.spec.check(obs=step.next_obs) is None
    for group in env.spec.observations:
        assert (step.next_obs[group] != step.obs[group]).any()
        assert step.next_obs[group].dtype == step.obs[group].dtype
    assert plain.spec == env.spec
