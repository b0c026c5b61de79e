"""The picture of the live view in docs/deploy.md: `python tests/live_view_picture.py docs/images/live.png`.

The page of a twin whose arm swings about its home, as Chromium draws it in software; it takes a minute or two. Needs
`pip install playwright` and Debian's chromium, as the page's test does.
"""

from __future__ import annotations

import io
import socket
import sys
import threading
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

from poise.real_robot.live_view import LiveView
from poise.real_robot.robot import Robot
from poise.robots import FR3

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
         "--ignore-gpu-blocklist"]  # fmt: skip
SIZE, COLOURS = {"width": 1280, "height": 800}, 64


def swing(robot: Robot, ended: threading.Event) -> None:
    """To and fro, until told to end."""
    home = np.array(FR3.home)
    while not ended.is_set():
        for by in (0.4, -0.4):
            robot.move_to(home + by * np.array([1.0, 0.5, 0.0, 0.5, 0.0, 0.3, 0.0]), 0.25)


def main(out: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Robot("twin:fr3?realtime=1") as robot, sync_playwright() as playwright:
        view, ended = LiveView(robot, "reach.safetensors", port=port), threading.Event()
        mover = threading.Thread(target=swing, args=(robot, ended))
        mover.start()
        try:
            page = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS).new_page(viewport=SIZE)
            page.set_default_timeout(300_000)
            page.goto(view.url, wait_until="commit")
            page.wait_for_function("document.body.innerText.includes('of 200; longest')")
            page.wait_for_timeout(15_000)  # until the arm is drawn, too
            page.evaluate("document.querySelectorAll('[class*=Notification]').forEach(e => e.remove())")  # no GPU here
            picture = Image.open(io.BytesIO(page.screenshot()))
        finally:
            ended.set()
            mover.join()
            view.close()
    picture.convert("RGB").quantize(COLOURS).save(out, optimize=True)
    print(f"{out}: {Path(out).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1])
