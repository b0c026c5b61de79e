"""Pictures of a simulated world, without a screen, and videos of them.

A renderer owns a model and data of its own and is handed positions, so it cannot touch the physics that a
policy is trained or judged on. MUJOCO_GL is honoured; where it is unset, EGL is taken if its library is
there, else OSMesa.
"""

from __future__ import annotations

import atexit
import ctypes.util
import importlib
import os
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import mujoco
import numpy as np

from ..errors import PoiseError, UsageError, unknown_name
from .task import State, Task

_BACKENDS = {"egl": "EGL", "osmesa": "OSMesa", "glfw": "glfw"}  # value of MUJOCO_GL: library it needs


class Renderer:
    """Frames (height, width, 3) uint8 of the worlds of one task."""

    def __init__(self, task: Task, width: int = 640, height: int = 480, camera: str | None = None,
                 decorate: Callable[[mujoco.MjSpec], None] | None = None):  # fmt: skip
        """camera: a name in the model; the first one there is, or a free camera, by default.

        decorate: adds to the description what is to be seen and not in the task's physics.
        """
        spec = task.model()
        if decorate is not None:
            decorate(spec)
        spec.visual.global_.offwidth = max(spec.visual.global_.offwidth, width)
        spec.visual.global_.offheight = max(spec.visual.global_.offheight, height)
        self.model = spec.compile()
        self._data = mujoco.MjData(self.model)
        self._camera = _camera(self.model, camera)
        self._scene, self._options = mujoco.MjvScene(self.model, maxgeom=2000), mujoco.MjvOption()
        self._viewport = mujoco.MjrRect(0, 0, width, height)
        self._gl = _context(width, height)
        self._gl.make_current()
        self._mjr = mujoco.MjrContext(self.model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._mjr)
        self._close = weakref.finalize(self, _free, self._mjr, self._gl)
        atexit.register(self._close)  # where nobody closed it: before the platform's library is shut down

    def frame(self, qpos: Any, target_pos: Any = None) -> np.ndarray:
        """The world at qpos (nq,), the site `target` moved to target_pos (3,) [m] where one is given."""
        self._data.qpos[:] = qpos
        if target_pos is not None:
            self.model.site("target").pos[:] = target_pos
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)
        mujoco.mj_camlight(self.model, self._data)
        self._gl.make_current()
        mujoco.mjv_updateScene(self.model, self._data, self._options, None, self._camera,
                               mujoco.mjtCatBit.mjCAT_ALL, self._scene)  # fmt: skip
        pixels = np.empty((self._viewport.height, self._viewport.width, 3), np.uint8)
        mujoco.mjr_render(self._viewport, self._scene, self._mjr)
        mujoco.mjr_readPixels(pixels, None, self._viewport, self._mjr)
        return np.flipud(pixels)

    def world(self, state: State, world: int) -> np.ndarray:
        """One world of a TaskEnv's `state`, with its goal."""
        goal = state.memory.get("target_pos")
        return self.frame(np.asarray(state.qpos[world]), None if goal is None else np.asarray(goal[world]))

    def close(self) -> None:
        """Give the graphics context back."""
        self._close()
        atexit.unregister(self._close)


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames (height, width, 3) uint8, of even sizes, as an H.264 mp4 that every player shows.

    The file appears under its name only once it is complete.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"a video is written as .mp4, not {path.name!r}")
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: the folder {path.parent} does not exist")
    if not fps > 0:
        raise UsageError(f"frames per second must be positive, not {fps}")
    part, writer, shape = path.with_name(f".{path.stem}.part.mp4"), None, None
    try:
        for i, frame in enumerate(frames):
            if writer is None:
                shape = frame.shape
                _check_frame(frame)
                writer = imageio_ffmpeg.write_frames(str(part), (shape[1], shape[0]), fps=fps, codec="libx264",
                                                     pix_fmt_in="rgb24", pix_fmt_out="yuv420p", macro_block_size=2,
                                                     ffmpeg_log_level="error")  # fmt: skip
                writer.send(None)
            if frame.shape != shape or frame.dtype != np.uint8:
                raise UsageError(f"frame {i} of the video is {frame.dtype} {frame.shape}, the first one uint8 {shape}")
            writer.send(np.ascontiguousarray(frame))
        if writer is None:
            raise UsageError(f"cannot write {path}: there is not one frame")
        writer.close()
        os.replace(part, path)
    except OSError as error:
        raise PoiseError(f"cannot write the video {path}: {error}") from None
    finally:
        if writer is not None:
            writer.close()
        part.unlink(missing_ok=True)


def _check_frame(frame: np.ndarray) -> None:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise UsageError(f"a video frame is uint8 (height, width, 3), not {frame.dtype} {frame.shape}")
    if frame.shape[0] % 2 or frame.shape[1] % 2:
        raise UsageError(f"an mp4 needs an even height and width, got {frame.shape[0]} x {frame.shape[1]}")


def _camera(model: mujoco.MjModel, name: str | None) -> mujoco.MjvCamera:
    names = [model.camera(i).name for i in range(model.ncam)]
    if name is not None and name not in names:
        raise unknown_name("camera", name, names)
    camera = mujoco.MjvCamera()
    if names:
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, names.index(name) if name else 0
    else:
        mujoco.mjv_defaultFreeCamera(model, camera)
    return camera


def choose_backend() -> str:
    """How to draw without a screen: MUJOCO_GL, set here where it is unset; other people's renderers read it too."""
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if not chosen:
        chosen = next((b for b in ("egl", "osmesa") if ctypes.util.find_library(_BACKENDS[b])), "")
        if not chosen:
            raise PoiseError("rendering without a screen needs EGL or OSMesa, and neither library is installed; "
                             "on Debian or Ubuntu: apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri")  # fmt: skip
        os.environ["MUJOCO_GL"] = chosen  # for processes that this one starts
    if chosen not in _BACKENDS:
        raise UsageError(f"MUJOCO_GL is {chosen!r}; set it to {', '.join(_BACKENDS)}, or unset it")
    return chosen


def _context(width: int, height: int) -> Any:
    """An offscreen OpenGL context of the chosen kind."""
    chosen = choose_backend()
    try:
        return importlib.import_module(f"mujoco.{chosen}").GLContext(width, height)
    except Exception as error:  # PyOpenGL raises whatever its platform raises
        others = " or ".join(b for b in _BACKENDS if b != chosen)
        raise PoiseError(f"MUJOCO_GL={chosen} gives no picture here ({type(error).__name__}: {error}); "
                         f"try MUJOCO_GL={others}") from error  # fmt: skip


def _free(mjr: mujoco.MjrContext, gl: Any) -> None:
    gl.make_current()
    mjr.free()
    gl.free()
