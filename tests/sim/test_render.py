"""Pictures: the goal is where it should be, training's physics is untouched, videos are complete or absent."""

import subprocess

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from poise.errors import PoiseError, UsageError
from poise.sim import render
from poise.sim.make import make
from poise.sim.render import Renderer, write_video
from poise.sim.tasks.reach import Reach

from .two_link import TwoLink


@pytest.fixture(scope="module")
def renderer():
    r = Renderer(Reach(), 160, 120)
    yield r
    r.close()


def _red(frame: np.ndarray) -> np.ndarray:
    """Where the target's red is: (rows, columns)."""
    r, g, b = (frame[..., i].astype(int) for i in range(3))
    return np.argwhere((r > 120) & (r > 2 * g) & (r > 2 * b))


def test_a_frame_shows_the_target_where_the_goal_is(renderer):
    home = np.zeros(7)
    low, high = (renderer.frame(home, [0.6, 0.3, z]) for z in (0.2, 0.6))
    assert low.shape == (120, 160, 3) and low.dtype == np.uint8
    assert len(_red(low)) > 3 and len(_red(high)) > 3
    assert _red(high)[:, 0].mean() < _red(low)[:, 0].mean() - 20  # higher up is a smaller row


def test_rendering_leaves_the_simulation_to_the_bit_as_it_was(renderer):
    seen, unseen = (make("reach/fr3", 2, randomize="default", threads=1) for _ in range(2))
    seen.reset(0)
    unseen.reset(0)
    for t in range(5):
        action = torch.rand(2, 7, generator=torch.Generator().manual_seed(t)) * 2 - 1
        a, b = seen.step(action), unseen.step(action)
        renderer.world(seen.state, 1)
        assert torch.equal(a.obs["state"], b.obs["state"])
    assert seen.engine.state.tobytes() == unseen.engine.state.tobytes()


def test_a_model_without_cameras_is_seen_from_outside():
    r = Renderer(TwoLink(), 64, 48)
    assert np.ptp(r.frame([0.5, 0.5, 1, 0, 0, 1, 0, 0, 0])) > 20
    r.close()


def test_a_video_holds_all_frames(tmp_path):
    frames = [np.full((48, 64, 3), 20 * i, np.uint8) for i in range(10)]
    write_video(tmp_path / "x.mp4", frames, 20)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", "x.mp4", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert all(word in result.stderr for word in (b"h264", b"yuv420p", b"64x48", b"20 fps"))
    means = np.frombuffer(result.stdout, np.uint8).reshape(-1, 48 * 64 * 3).mean(axis=1)
    assert len(means) == 10 and np.allclose(means, np.arange(10) * 20.0, atol=6)


@pytest.mark.parametrize(
    ("path", "frames", "fps", "message"),
    [
        ("x.avi", [np.zeros((4, 4, 3), np.uint8)], 20, "written as .mp4"),
        ("no/x.mp4", [np.zeros((4, 4, 3), np.uint8)], 20, "the folder .*no does not exist"),
        ("x.mp4", [], 20, "there is not one frame"),
        ("x.mp4", [np.zeros((4, 5, 3), np.uint8)], 20, "an even height and width, got 4 x 5"),
        ("x.mp4", [np.zeros((4, 4, 3))], 20, "uint8 .*not float64"),
        ("x.mp4", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 8, 3), np.uint8)], 20, "frame 1 of the video"),
        ("x.mp4", [np.zeros((4, 4, 3), np.uint8)], 0, "must be positive"),
    ],
)
def test_a_video_that_cannot_be_is_refused_and_leaves_nothing(tmp_path, path, frames, fps, message):
    with pytest.raises(PoiseError, match=message):
        write_video(tmp_path / path, frames, fps)
    assert not list(tmp_path.iterdir())


def test_graphics_that_cannot_be_are_explained(monkeypatch):
    with pytest.raises(UsageError, match="unknown camera 'frnt'; did you mean front"):
        Renderer(Reach(), camera="frnt")
    monkeypatch.setenv("MUJOCO_GL", "vulkan")
    with pytest.raises(UsageError, match="MUJOCO_GL is 'vulkan'; set it to egl, osmesa, glfw, or unset it"):
        Renderer(Reach())
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(render.ctypes.util, "find_library", lambda name: None)
    with pytest.raises(PoiseError, match=r"needs EGL or OSMesa.*apt-get install libegl1"):
        Renderer(Reach())
