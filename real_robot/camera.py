"""A camera in a process of its own: frames with the time of their capture, into a ring. It decodes, and nobody waits.

    python -m poise.real_robot.camera --address mjpeg:http://127.0.0.1:8090/stream --ring N

    pixels      (height, width, 3) uint8, red first
    small       (h, w, 3) the same as a policy's Spec wants it: the middle of the picture in the Spec's aspect, each
                pixel the mean of what it covers (INTER_AREA)
    t_host      the machine's monotonic clock [s] when the frame had arrived, less the camera's own `latency`
    same        how many frames in a row have been equal to this one before it: a camera that hangs repeats itself
    reconnects  how often the line was lost and found again

Addresses: `v4l2:/dev/video0`, `mjpeg:http://HOST:PORT/PATH`; options after `?`, see CameraOptions.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..address import split_options
from ..errors import NotConnectedError, PoiseError, UsageError, unknown_name
from .ring import RingWriter

WAIT = 2.0  # [s] for a connection or a frame, after which the line counts as lost
AGAIN = 0.2  # [s] before another try


@dataclass(frozen=True)
class CameraOptions:
    """What an address says of a camera."""

    width: int = 640  # [pixels] of its pictures; others are refused
    height: int = 480
    fps: int = 30  # frames a second, asked of a v4l2 device
    latency: float = 0.0  # [s] from the light to the arrival here, as measured; taken from the stamps
    max_age: float = 0.2  # [s] of the newest frame, beyond which a policy is refused and the arm stops
    max_same: int = 30  # equal frames in a row, beyond which the camera counts as hung; 0: any number
    intrinsics: str = ""  # fx,fy,cx,cy [pixels] of the whole picture, where calibrated


def camera_dtype(options: CameraOptions, small: tuple[int, int]) -> np.dtype:
    """A frame of this camera; small: (h, w) for a policy."""
    return np.dtype([("pixels", "u1", (options.height, options.width, 3)), ("small", "u1", (*small, 3)),
                     ("t_host", "<f8"), ("same", "<u4"), ("reconnects", "<u4")])  # fmt: skip


def split_camera(address: str) -> tuple[str, str, CameraOptions]:
    """Kind (v4l2 or mjpeg), device and options of an address.

    Raises:
        UsageError: not of the form, or an unknown option.
    """
    head, texts = split_options(address)
    kind, _, device = head.partition(":")
    if kind not in ("v4l2", "mjpeg") or not device:
        raise UsageError("a camera's address looks like v4l2:/dev/video0 or mjpeg:http://127.0.0.1:8090/stream, "
                         f"not {address!r}")  # fmt: skip
    kinds: dict[str, Any] = {f.name: type(f.default) for f in fields(CameraOptions)}
    if unknown := [name for name in texts if name not in kinds]:
        raise unknown_name("camera option", unknown[0], kinds)
    try:
        options = CameraOptions(**{name: kinds[name](text) for name, text in texts.items()})
    except ValueError:
        raise UsageError(f"an option of {address!r} is no number where one belongs") from None
    if min(options.width, options.height, options.fps) < 1 or not options.max_age > 0 or options.latency < 0:
        raise UsageError(f"{address!r}: sizes, fps and max_age are above 0, latency at least 0")
    return kind, device, options


def shrink(picture: np.ndarray, small: tuple[int, int]) -> np.ndarray:
    """The middle of a picture (height, width, 3) in the aspect of `small` (h, w), in that size."""
    import cv2

    top, left, height, width = middle(picture.shape[:2], small)
    return cv2.resize(picture[top : top + height, left : left + width], small[::-1], interpolation=cv2.INTER_AREA)


def middle(size: tuple[int, ...], small: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest middle part of `size` (height, width) in the aspect of `small`."""
    height, width = size
    kept = min(height, round(width * small[0] / small[1])), min(width, round(height * small[1] / small[0]))
    return (height - kept[0]) // 2, (width - kept[1]) // 2, *kept


def small_intrinsics(options: CameraOptions, small: tuple[int, int]) -> tuple[float, ...]:
    """(fx, fy, cx, cy) [pixels] of the small picture; empty where the camera's are not known.

    Raises:
        UsageError: there are not four numbers.
    """
    if not options.intrinsics:
        return ()
    try:
        fx, fy, cx, cy = (float(x) for x in options.intrinsics.split(","))
    except ValueError:
        raise UsageError(f"intrinsics={options.intrinsics}: expected fx,fy,cx,cy in pixels") from None
    top, left, height, width = middle((options.height, options.width), small)
    down, across = small[0] / height, small[1] / width
    return fx * across, fy * down, (cx - left) * across, (cy - top) * down


class Source:
    """The device behind OpenCV, opened again whenever it is lost."""

    def __init__(self, address: str):
        self.address = address
        self._kind, self._device, self.options = split_camera(address)
        self._capture: Any = None
        self.reconnects = -1

    def frame(self) -> np.ndarray | None:
        """The next picture (height, width, 3), blue first; None where there is none at present.

        Raises:
            NotConnectedError: its size is another than the address says.
        """
        if self._capture is None and not self._open():
            time.sleep(AGAIN)
            return None
        assert self._capture is not None
        there, picture = self._capture.read()
        if not there:
            self._capture.release()
            self._capture = None
            return None
        if picture.shape != (self.options.height, self.options.width, 3):
            height, width = picture.shape[:2]
            raise NotConnectedError(f"{self.address} gives pictures of {width} x {height}; "
                                    f"write ?width={width}&height={height} after its address")  # fmt: skip
        return picture

    def _open(self) -> bool:
        import cv2

        if self._kind == "v4l2":
            capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2)
            for setting, value in ((cv2.CAP_PROP_FRAME_WIDTH, self.options.width),
                                   (cv2.CAP_PROP_FRAME_HEIGHT, self.options.height),
                                   (cv2.CAP_PROP_FPS, self.options.fps), (cv2.CAP_PROP_BUFFERSIZE, 1)):  # fmt: skip
                capture.set(setting, value)
        else:
            ms = round(1000 * WAIT)
            capture = cv2.VideoCapture(self._device, cv2.CAP_FFMPEG, [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, ms,
                                                                      cv2.CAP_PROP_READ_TIMEOUT_MSEC, ms])  # fmt: skip
        if not capture.isOpened():
            return False
        self._capture, self.reconnects = capture, self.reconnects + 1
        return True


def run(address: str, ring: RingWriter) -> None:
    """Frames into the ring until the process that started this one is gone."""
    source, parent = Source(address), os.getppid()
    small, same, before = ring.dtype["small"].shape[:2], 0, None
    while os.getppid() == parent:
        picture = source.frame()
        if picture is None:
            continue
        arrived = time.monotonic() - source.options.latency
        same = same + 1 if before is not None and np.array_equal(picture, before) else 0
        before = picture
        pixels = picture[..., ::-1]
        ring.write(pixels=pixels, small=shrink(picture, small)[..., ::-1], t_host=arrived, same=same,
                   reconnects=source.reconnects)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m poise.real_robot.camera")
    parser.add_argument("--address", required=True)
    parser.add_argument("--ring", type=int, required=True)
    options = parser.parse_args(argv)
    import cv2

    cv2.setNumThreads(1)
    try:
        run(options.address, RingWriter(options.ring))
    except PoiseError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
