"""An emulated camera: an MJPEG stream over HTTP, with a frame counter in the picture's upper edge.

GET /stream gives multipart JPEG, to any number of clients. GET /do/freeze repeats one picture, /do/stall sends nothing,
/do/drop hangs up on everybody, /do/clear ends these.

The counter: 16 squares of 16 pixels from the left, white for 1 and black for 0, the highest bit first. Below it, a
pattern that moves with a little noise; or with `task=reach/fr3` that task's arm, moving, drawn by MuJoCo (needs GL).
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from ...errors import UsageError

BITS, SQUARE = 16, 16
WORDS = ("freeze", "stall", "drop", "clear")


def counter_of(picture: np.ndarray) -> int:
    """The frame's number in a picture (height, width, 3), at least 256 wide."""
    squares = picture[4 : SQUARE - 4, : BITS * SQUARE].mean((0, 2)).reshape(BITS, SQUARE)[:, 4:-4].mean(1)
    return int("".join("1" if white else "0" for white in squares > 127), 2)


def pattern(width: int, height: int) -> Callable[[int], np.ndarray]:
    """Pictures by number: slanted colours that move, and noise as a sensor has it."""
    y, x = np.mgrid[:height, :width]
    slanted = np.stack([x + y, 2 * x - y, x - 2 * y], -1)
    noise = np.random.default_rng(0).integers(0, 12, (8, height, width, 3)).astype(np.uint8)

    def picture(number: int) -> np.ndarray:
        return ((slanted + 3 * number) // 2 % 200).astype(np.uint8) + noise[number % 8]

    return picture


def scene(task: str, width: int, height: int) -> Callable[[int], np.ndarray]:
    """Pictures by number: a task's arm, swinging about where an episode begins."""
    from ...sim.make import load_task
    from ...sim.render import Renderer
    from ...sim.task import Key

    what = load_task(task)
    renderer, qpos = Renderer(what, width, height), what.reset(Key(0, np.array([0]), np.array([0])), {})[0][0]

    def picture(number: int) -> np.ndarray:
        moved = np.array(qpos)
        moved[0] += 0.5 * np.sin(0.05 * number)
        return renderer.frame(moved).copy()

    return picture


class CameraEmulator:
    """Serves until killed."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, width: int = 640, height: int = 480, fps: float = 30.0,
                 task: str = ""):  # fmt: skip
        if not (width >= BITS * SQUARE and height > SQUARE and 0 < fps <= 1000):
            raise UsageError(f"an emulated camera is at least {BITS * SQUARE} x {SQUARE + 1} pixels, at up to 1000 fps")
        self._size, self._period, self._task = (width, height), 1.0 / fps, task
        self._news, self._jpeg, self.number, self.word = threading.Condition(), b"", 0, "clear"
        self._server = ThreadingHTTPServer((host, port), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_address[1]}/stream"

    @property
    def address(self) -> str:
        """For Cameras and `--camera`."""
        return f"mjpeg:{self.url}?width={self._size[0]}&height={self._size[1]}"

    def run(self) -> None:
        """Serve, and draw in this thread."""
        import cv2

        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        draw = scene(self._task, *self._size) if self._task else pattern(*self._size)
        due = time.monotonic()
        while True:
            if self.word != "freeze" or not self._jpeg:
                picture = np.ascontiguousarray(draw(self.number)[..., ::-1])
                for bit in range(BITS):
                    white = 255 * (self.number >> (BITS - 1 - bit) & 1)
                    picture[:SQUARE, bit * SQUARE : (bit + 1) * SQUARE] = white
                jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            with self._news:
                self._jpeg, self.number = jpeg, (self.number + 1) % (1 << BITS)
                self._news.notify_all()
            due = max(due + self._period, time.monotonic() - self._period)
            time.sleep(max(0.0, due - time.monotonic()))

    def _handler(self) -> Any:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/stream":
                    camera._stream(self)
                elif (word := self.path.removeprefix("/do/")) in WORDS:
                    camera.word = word
                    self.send_response(204)
                    self.end_headers()
                else:
                    self.send_error(404)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def _stream(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        try:
            while self.word != "drop":
                with self._news:
                    self._news.wait(1.0)
                    jpeg = self._jpeg
                if self.word != "stall":
                    handler.wfile.write(
                        b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
                    )
                    handler.wfile.write(jpeg + b"\r\n")
        except OSError:
            pass  # the client has gone


def run_camera(host: str, settings: Sequence[str]) -> int:
    """Start one by texts such as fps=15, say where it is as JSON, and serve."""
    texts = {text.partition("=")[0]: text.partition("=")[2] for text in settings}
    kinds: dict[str, Any] = {"port": int, "width": int, "height": int, "fps": float, "task": str}
    try:
        camera = CameraEmulator(host, **{name: kinds[name](text) for name, text in texts.items()})
    except (KeyError, ValueError) as error:
        raise UsageError(f"--set takes port, width, height, fps or task for a camera: {error}") from None
    except OSError as error:
        raise UsageError(f"cannot listen on {host}: {error.strerror}; choose another port") from None
    print(json.dumps({"address": camera.address}), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        camera.run()
    return 0
