"""The recorder: a process of its own that reads along and writes one HDF5 file. Nobody waits for it.

    python -m poise.real_robot.recorder --fd N --servo RING --camera front=RING

    /data, /mask           episodes, in the layout of datasets/episodes.py, also the one that is going on
    /log/servo/<field>     (T, …) a row of every servo period, as real_robot/servo_log.py has it; attrs missed
    /log/cameras/<name>/
        jpeg               (bytes,) uint8: pictures one after the other, as the camera took them, coded here
        end                (F,) int64: where each ends
        t_host             (F,) float64: when each was taken, on the machine's monotonic clock [s]
        sequence           (F,) int64: their numbers in the camera's ring; attrs missed

It is told of steps and episodes over the socket N (see recording.py) and drains the rings. The file is published every
PERIOD, so that a kill of this process loses less than a second. If the other side dies, it writes what is left and
ends. If the disk refuses the file, it says so once, keeps what is in the file, and goes on draining without writing.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..datasets.growing_episodes import GrowingEpisodes
from ..datasets.growing_file import GrowingFile
from ..errors import DatasetError, PoiseError
from ..spec import Spec
from .channel import Channel
from .ring import RingReader

PERIOD = 0.4  # [s] between publications
POLL = 0.02  # [s] between looks at the rings
QUALITY = 95  # of the JPEG pictures in the log
KEPT = 64  # small pictures of each camera that wait for the step that saw them


class Recorder:
    """Drains the rings into the file."""

    def __init__(self, channel: Channel, servo: RingReader, cameras: Mapping[str, RingReader], request: dict[str, Any]):
        self.channel, self.servo, self.cameras, self.fault = channel, servo, dict(cameras), ""
        self.file = GrowingFile(request["path"])
        self.episodes = GrowingEpisodes(self.file, Spec.from_json(request["spec"]), request["env_args"],
                                        request["provenance"])  # fmt: skip
        self.missed = dict.fromkeys(("servo", *self.cameras), 0)
        self.rows = dict.fromkeys(self.missed, 0)
        self._end = dict.fromkeys(self.cameras, 0)  # bytes of pictures so far
        self._small: dict[str, dict[int, np.ndarray]] = {name: {} for name in self.cameras}
        servo.seen = servo.head  # what was before is not of this recording
        for ring in self.cameras.values():
            ring.seen = ring.head
        self._due = 0.0
        self.publish()

    def drain(self) -> None:
        """Everything that is new in the rings."""
        records, _, missed = self.servo.read()
        if len(records) and not self.fault:
            for name in self.servo.dtype.names or ():
                self.file.add(f"log/servo/{name}", records[name])
        self._count("servo", len(records), missed)
        for name, ring in self.cameras.items():
            frames, sequence, missed = ring.read()
            for frame, number in zip(frames, sequence.tolist(), strict=True):
                self._picture(name, frame, number)
            self._count(name, len(frames), missed)

    def take(self, message: dict[str, Any]) -> None:
        """What the other side tells."""
        match message["do"]:
            case "step":
                self._guarded(lambda: self.episodes.step(self._seen(message), message["values"]))
            case "end":
                self._guarded(lambda: self.episodes.end(self._seen(message), message["filters"], message["attributes"]))
            case "flush":
                self.drain()
                self.publish()
                self.channel.send({"flushed": self.rows, "missed": self.missed, "fault": self.fault})

    def publish(self) -> None:
        """Put what there is into the file."""
        self._due = time.monotonic() + PERIOD
        if not self.fault:
            self._guarded(self.file.publish)

    def run(self) -> None:
        """Until the other side closes the line or dies."""
        try:
            while True:
                message = self.channel.receive(POLL)
                self.drain()  # first, so that pictures are here before the step that saw them
                if message is not None:
                    self.take(message)
                # however many messages wait: where pictures take long to code, there is always one
                if time.monotonic() >= self._due:
                    self.publish()
        except EOFError:
            self.drain()
            self.publish()
        finally:
            self.file.close()

    def _guarded(self, write: Any) -> None:
        if self.fault:
            return
        try:
            write()
        except DatasetError as error:
            self.fault = str(error)
            with contextlib.suppress(EOFError):
                self.channel.send({"fault": self.fault}, wait=False)

    def _count(self, name: str, rows: int, missed: int) -> None:
        self.rows[name] += rows
        if missed and not self.fault:
            self.missed[name] += missed
            self.file.say("log/servo" if name == "servo" else f"log/cameras/{name}", {"missed": self.missed[name]})

    def _picture(self, name: str, frame: np.ndarray, number: int) -> None:
        import cv2

        small = self._small[name]
        small[number] = frame["small"]
        while len(small) > KEPT:
            del small[next(iter(small))]
        if self.fault:
            return
        picture = np.ascontiguousarray(frame["pixels"][..., ::-1])  # OpenCV has blue first
        coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].reshape(-1)
        self._end[name] += len(coded)
        place = f"log/cameras/{name}"
        self.file.add(f"{place}/jpeg", coded)
        self.file.add(f"{place}/end", np.array([self._end[name]]))
        self.file.add(f"{place}/t_host", frame["t_host"][None])
        self.file.add(f"{place}/sequence", np.array([number]))

    def _seen(self, message: dict[str, Any]) -> dict[str, Any]:
        """The observation groups; of a camera the message names the frame's number."""
        obs = dict(message["obs"])
        for group, number in message.get("frames", {}).items():
            if number not in self._small[group] and (record := self.cameras[group].at(number)) is not None:
                self._small[group][number] = record["small"]  # from before the recording began
            if number not in self._small[group]:
                raise DatasetError(f"frame {number} of camera {group} was overrun before its step was recorded")
            obs[group] = self._small[group][number]
        return obs


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m poise.real_robot.recorder")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--servo", type=int, required=True)
    parser.add_argument("--camera", action="append", default=[], metavar="NAME=RING")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes the line
    channel = Channel(socket.socket(fileno=options.fd))
    cameras = {name: RingReader(int(ring)) for name, _, ring in (text.partition("=") for text in options.camera)}
    try:
        request = channel.receive()
        assert request is not None
        recorder = Recorder(channel, RingReader(options.servo), cameras, request)
        if recorder.fault:
            return 1
        channel.send({"ready": True})
        recorder.run()
    except EOFError:
        return 0
    except PoiseError as error:
        with contextlib.suppress(EOFError):
            channel.send({"fault": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
