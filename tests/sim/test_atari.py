"""Atari: every picture against one computed from the console's raw screens, and pictures that were once right."""

import importlib.util
import zlib

import ale_py
import cv2
import gymnasium
import numpy as np
import pytest
import torch
from ale_py import roms

from conformance import check_vec_env
from poise.errors import UsageError
from poise.keyed import Stream
from poise.sim.make import make

PONG = "gym:ALE/Pong-v5"
# (id, ROM) and the checksum of the 61 pictures of world 0 under seed 4 and the actions below
GOLDEN = {("Pong", "pong"): 1269738446, ("Breakout", "breakout"): 4131395226, ("Seaquest", "seaquest"): 2798374225}


def console(rom):
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", 0)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path(rom))
    ale.reset_game()
    return ale


def choices(n, count, worlds=1):
    return torch.from_numpy(np.random.default_rng(0).integers(0, n, (count, worlds, 1)))


def luminance(rgb):
    return (0.2989 * rgb[..., 0] + 0.5870 * rgb[..., 1] + 0.1140 * rgb[..., 2]).round()


def by_area(picture):
    """(210, 160) to (84, 84): the mean over the area that a pixel covers, as two matrix products."""

    def weights(size):
        edges = np.linspace(0, size, 85)
        cells = np.arange(size)
        return np.maximum(np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells), 0) * 84 / size

    return weights(210) @ picture @ weights(160).T


@pytest.mark.parametrize(("game", "rom"), GOLDEN)
def test_pictures_and_scores_are_those_of_the_raw_console(game, rom):
    env, ale = make(f"gym:ALE/{game}-v5", 1), console(rom)
    actions = ale.getMinimalActionSet()
    assert env.spec.choices == len(actions) and env.spec.obs_shape("camera") == (84, 84, 1)
    obs = env.reset(4)["camera"][0, ..., 0].numpy()
    for _ in range(1 + int(Stream(4, "atari/noop").uniform(0, 0, 1)[0, 0] * 31)):
        ale.act(ale_py.Action.NOOP)
    np.testing.assert_array_equal(obs, cv2.resize(ale.getScreenGrayscale(), (84, 84), interpolation=cv2.INTER_AREA))
    checksum = zlib.crc32(obs.tobytes())
    for choice in choices(len(actions), 60):
        step, score, screens = env.step(choice), 0, []
        for _ in range(4):
            score += ale.act(actions[int(choice)])
            screens.append(ale.getScreenRGB().astype(float))
        picture = step.next_obs["camera"][0, ..., 0].numpy()
        expected = by_area(np.maximum(luminance(screens[-2]), luminance(screens[-1])))
        assert np.abs(picture - expected).max() <= 1.01  # ale-py and OpenCV round on their way
        assert float(step.reward) == score and not step.done
        checksum = zlib.crc32(picture.tobytes(), checksum)
    assert checksum == GOLDEN[game, rom]


@pytest.mark.parametrize(
    "id", ["Breakout-v5?max_frames=160", "Seaquest-v5?max_frames=120&repeat_action_probability=0.25", "Pong-v5"]
)
def test_games_keep_the_contract_of_a_vec_env(id):
    check_vec_env(lambda n: make(f"gym:ALE/{id}", n), longest=100)


def test_the_spec_says_history_period_and_time_limit():
    env = make(f"{PONG}?frame_skip=2&max_frames=1000&full_action_space=1", 1)
    assert (env.spec.history("camera"), env.spec.control_dt, env.spec.choices) == (4, pytest.approx(1 / 30), 18)
    assert env.max_episode_steps == 500 and make(PONG, 1).max_episode_steps == 27_000


def test_episodes_begin_with_up_to_thirty_frames_without_action_and_repeat_under_their_key():
    env = make(f"{PONG}?max_frames=4", 8)
    frames = []
    env.reset(0)
    for _ in range(12):
        frames += [console_.getEpisodeFrameNumber() for console_ in env._consoles]
        env.step(torch.zeros(8, 1, dtype=torch.int64))
    begun = np.array(frames) - min(frames)
    assert begun.max() <= 30 and len(set(frames)) > 20
    plain = make(f"{PONG}?noop_max=0", 3).reset(0)["camera"]
    assert torch.equal(plain[0], plain[1]) and torch.equal(plain[0], plain[2])


def test_an_action_is_repeated_as_often_as_asked():
    """With certainty, the console never leaves the first action: nothing a policy does matters."""
    a, b = (make(f"{PONG}?repeat_action_probability={p}", 1) for p in (0.999999, 0.0))
    a.reset(0), b.reset(0)
    for t in range(40):
        stuck = a.step(torch.tensor([[2 + t // 8 % 2]]))
        idle = b.step(torch.tensor([[0]]))
    assert torch.equal(stuck.obs["camera"], idle.obs["camera"])


def test_a_lost_life_is_terminal_in_training_alone_and_the_game_goes_on():
    ends = {}
    for training in (True, False):
        env = make("gym:ALE/Breakout-v5?life_loss=1&max_frames=3000", 4, training=training)
        env.reset(0)
        before = env._episode.copy()
        ends[training] = []
        for choice in choices(4, 120, 4):
            step = env.step(choice)
            over = env._episode > before
            before = env._episode.copy()
            for world in np.flatnonzero(step.terminated.numpy() & ~over):
                assert torch.equal(step.obs["camera"][world], step.next_obs["camera"][world])
            ends[training].append((step.terminated.numpy(), over))
    lost, games = (sum(int(e[i].sum()) for e in ends[True]) for i in (0, 1))
    assert lost > 2 * games and sum(int(e[0].sum()) for e in ends[False]) == games


def test_rewards_are_the_game_s_own_scores():
    env = make("gym:ALE/Seaquest-v5", 4)
    env.reset(0)
    assert max(float(env.step(c).reward.max()) for c in choices(18, 150, 4)) == 20.0


def test_a_snapshot_brings_back_a_long_game_without_playing_it_again():
    env = make(f"{PONG}?repeat_action_probability=0.25", 1)
    env.reset(0)
    for choice in choices(6, 200):
        env.step(choice)
    fresh = make(f"{PONG}?repeat_action_probability=0.25", 1)
    fresh.load_state_dict(env.state_dict())
    played = fresh._consoles[0].getFrameNumber()
    for choice in choices(6, 30):
        a, b = env.step(choice), fresh.step(choice)
        assert torch.equal(a.obs["camera"], b.obs["camera"]) and torch.equal(a.reward, b.reward)
    assert played == env._consoles[0].getFrameNumber() - 120
    assert env.render().shape == (210, 160, 3) and np.ptp(env.render()) > 0


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("Pong-v5?noops=3", "unknown option of Atari games 'noops'.*noop_max"),
        ("Pong-v5?life_loss=maybe", "life_loss=maybe: expected 0 or 1"),
        ("Pong-v5?frame_skip=x", "frame_skip=x: expected a number"),
        ("Pong-v5?frame_skip=0", "frame_skip = 0: expected at least 1"),
        ("Pong-v5?noop_max", "should read name=value"),
        ("Pang-v5", "did you mean"),
    ],
)
def test_a_game_that_cannot_be_is_refused_in_one_line(id, message):
    with pytest.raises(UsageError, match=message):
        make(f"gym:ALE/{id}")


def test_without_ale_py_the_command_that_installs_it_is_named(monkeypatch):
    ids = [id for id in gymnasium.registry if id.startswith("ALE/")]
    for id in ids:
        monkeypatch.delitem(gymnasium.registry, id)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'poise\[atari\]'"):
        make(PONG)
