"""Videos: the right number of frames, something to see in them, and clear errors."""

import itertools
import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from poise.errors import SpecError, UsageError
from poise.policies.film import film
from poise.sim.make import make


def read(path, height: int, width: int) -> np.ndarray:
    """The frames (T, height, width, 3) of a video."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


class Still:
    """A policy that does nothing in whatever task."""

    def __init__(self, task: str):
        env = make(task)
        self.spec = env.spec.for_policy_file()
        env.close()

    def initial_state(self, n):
        return {}

    def act(self, obs, state):
        n = len(next(iter(obs.values())))
        if self.spec.discrete:
            return torch.zeros(n, 1, 1, dtype=torch.int64), state
        return torch.zeros(n, 1, self.spec.action_dim), state


def test_a_film_of_a_native_task_shows_every_step_and_the_arm(tmp_path):
    path = film(Still("reach/fr3"), "reach/fr3", tmp_path / "reach.mp4", episodes=2, randomize="default")
    frames = read(path, 480, 640)
    assert len(frames) == 2 * (100 + 10)  # 0.5 s of pause at 20 Hz
    assert frames[0].std() > 20
    assert abs(frames[0].astype(int) - frames[-1].astype(int)).mean() > 0.1, "another start, another target"


def test_a_film_of_a_gymnasium_task(tmp_path):
    path = film(Still("gym:InvertedPendulum-v5"), "gym:InvertedPendulum-v5", tmp_path / "pole.mp4", episodes=1)
    frames = read(path, 480, 480)
    assert len(frames) > 10 and frames[0].std() > 5


@pytest.mark.parametrize(
    ("task", "height", "width"),
    [
        ("gym:CartPole-v1", 400, 600),
        ("gym:poise/Catch-v0", 84, 84),
        ("gym:ALE/Pong-v5", 210, 160),
        ("reach/planar", 480, 640),
        ("robosuite:Lift/Panda?horizon=10", 480, 640),
    ],
)
def test_tasks_of_choices_and_of_cameras_are_filmed(tmp_path, monkeypatch, task, height, width):
    if "ALE" in task:  # a whole game takes minutes: stop it
        from poise.policies import film as module

        whole = module._frames
        monkeypatch.setattr(module, "_frames", lambda *a: itertools.islice(whole(*a), 20))
    frames = read(film(Still(task), task, tmp_path / "film.mp4", episodes=1), height, width)
    assert len(frames) > 8 and frames[0].std() > 5
    assert any((frame != frames[0]).any() for frame in frames), "something moves"


def test_a_film_shows_the_looks_of_each_episode(tmp_path):
    colours = {"terms": [{"name": "c", "what": "geom_color", "target": "*", "range": [0, 1], "operation": "set"}]}
    films = [film(Still("reach/planar"), "reach/planar", tmp_path / f"{i}.mp4", episodes=2, randomize=randomize)
             for i, randomize in enumerate(("none", colours))]  # fmt: skip
    plain, coloured = (read(path, 480, 640)[[0, -1]].astype(float) for path in films)
    assert np.abs(plain[0] - coloured[0]).mean() > 10 and np.abs(coloured[0] - coloured[1]).mean() > 10
    assert np.abs(plain[0] - plain[1]).mean() < 5, "unless told to, episodes look alike"


def test_a_policy_of_another_task_and_a_wrong_name_are_refused(tmp_path):
    with pytest.raises(SpecError, match="control_dt"):
        film(Still("reach/fr3"), "gym:Hopper-v5", tmp_path / "x.mp4")
    with pytest.raises(UsageError, match=r"\.mp4"):
        film(Still("reach/fr3"), "reach/fr3", tmp_path / "x.gif", episodes=1)
