"""Cameras by name: their processes for whoever starts them, and their newest frames for whoever looks.

    with Cameras({"front": "mjpeg:http://127.0.0.1:8090/stream"}) as cameras:
        frames, numbers = cameras.view().newest()

A frame is used only while it is fresh: `trouble` says of a camera that is late or repeats itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

import numpy as np

from ..errors import NotConnectedError
from .camera import CameraOptions, camera_dtype, split_camera
from .ring import RingReader, make_ring

START_WAIT = 20.0  # [s] for the first frame
SLOTS = 48  # frames in a ring
SMALL = (84, 84)  # of a picture that no policy asks for


class View:
    """The newest frames of some cameras, for one process; name -> (ring, what the address says)."""

    def __init__(self, rings: Mapping[str, tuple[RingReader, CameraOptions]]):
        self.rings = dict(rings)

    @property
    def options(self) -> dict[str, CameraOptions]:
        """What their addresses say, by name."""
        return {name: options for name, (_, options) in self.rings.items()}

    def newest(self) -> tuple[dict[str, np.ndarray], dict[str, int]]:
        """(h, w, 3) uint8 of each camera, and their numbers in the rings."""
        frames, numbers = {}, {}
        for name, (ring, _) in self.rings.items():
            if (found := ring.newest()) is not None:
                numbers[name], frames[name] = found[0], found[1]["small"].copy()
        return frames, numbers

    def trouble(self, names: tuple[str, ...]) -> str:
        """What is wrong with one of these cameras at present; "" where all are well."""
        for name in names:
            ring, options = self.rings[name]
            if (found := ring.newest()) is None:
                return f"camera {name} has shown nothing yet"
            if (age := time.monotonic() - found[1]["t_host"]) > options.max_age:
                return f"camera {name}: its newest frame is {age:.2f} s old, at most {options.max_age:g} s are allowed"
            if 0 < options.max_same < found[1]["same"]:
                return f"camera {name} hangs: {found[1]['same']} frames in a row are equal"
        return ""


class Cameras:
    """A process for each camera. Use as a context manager.

    small: name -> (h, w) that a policy wants of it.

    Raises:
        NotConnectedError: one shows nothing within START_WAIT, with what it said.
    """

    def __init__(self, addresses: Mapping[str, str], small: Mapping[str, tuple[int, int]] | None = None):
        self.addresses, self.options = dict(addresses), {n: split_camera(a)[2] for n, a in addresses.items()}
        sizes = {name: (small or {}).get(name, SMALL) for name in addresses}
        self.rings = {name: make_ring(camera_dtype(o, sizes[name]), SLOTS) for name, o in self.options.items()}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._said = {name: tempfile.TemporaryFile() for name in addresses}  # noqa: SIM115
        for name, address in self.addresses.items():
            command = [sys.executable, "-P", "-m", "poise.real_robot.camera", "--address", address]
            command += ["--ring", str(self.rings[name])]
            self.processes[name] = subprocess.Popen(command, pass_fds=[self.rings[name]], stdin=subprocess.DEVNULL,
                                                    stdout=subprocess.DEVNULL, stderr=self._said[name])  # fmt: skip
        try:
            self._wait()
        except NotConnectedError:
            self.close()
            raise

    def view(self) -> View:
        """Readers of one's own."""
        return View({name: (RingReader(os.dup(ring)), self.options[name]) for name, ring in self.rings.items()})

    def close(self) -> None:
        """End the processes; safe to call twice."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        for file in self._said.values():
            file.close()
        for ring in self.rings.values():
            os.close(ring)
        self.rings, self.processes = {}, {}

    def __enter__(self) -> Cameras:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self) -> None:
        view, end = self.view(), time.monotonic() + START_WAIT
        for name, (ring, _) in view.rings.items():
            while not ring.head:
                if self.processes[name].poll() is not None or time.monotonic() > end:
                    self._said[name].seek(0)
                    said = self._said[name].read().decode(errors="replace").strip().splitlines()
                    raise NotConnectedError(f"camera {name} at {self.addresses[name]} shows nothing"
                                            f"{': ' + said[-1] if said else ''}")  # fmt: skip
                time.sleep(0.01)
            ring.close()
