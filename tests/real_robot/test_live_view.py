"""The live view: its numbers by hand, its page in headless Chromium, its stop button, and its death."""

import os
import signal
import time

import numpy as np
import pytest

from poise.errors import PoiseError, UsageError
from poise.real_robot.live_page import Digest
from poise.real_robot.live_view import LiveView
from poise.real_robot.robot import Robot
from poise.real_robot.servo_log import servo_dtype
from poise.robots import FR3, SO101

CHROMIUM = "/usr/bin/chromium"
FLAGS = "--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --ignore-gpu-blocklist --no-sandbox"


def records(count, dt=0.01, verdict=0, rule=b"", start=0.0):
    rows = np.zeros(count, servo_dtype(5))
    rows["t_host"] = rows["t_mono"] = start + dt * np.arange(count)
    rows["verdict"], rows["rule"] = verdict, rule
    return rows


def test_the_numbers_of_the_page():
    digest = Digest(SO101)
    assert digest.table() == "waiting for the arm"
    rows = records(100)
    rows["joint_pos"][:, 0] = SO101.position_high[0]
    rows["joint_vel"][:, 1] = 4.7
    rows["sent"] = rows["joint_pos"]
    rows["sent"][:, 2] += 0.002
    rows["asked"][:10] = np.nan
    digest.add(rows, 0)
    rate, longest = digest.rate()
    assert rate == pytest.approx(100.0) and longest == pytest.approx(0.01)
    assert digest.counts == {"passed": 90, "clipped": 0, "rejected": 0}, "braking is no verdict"
    time, position, speed = digest.curves()
    assert time[-1] == 0.0 and time[0] >= -1.0 and position[-1, 0] == pytest.approx(1.0) and speed[-1, 1] == 1.0
    text = digest.table()
    assert "| shoulder_pan | 1.920 | 100 % | 0.00 | 0.0 mrad |" in text and "| 2.0 mrad |" in text
    assert "| stop latched | none |" in text


def test_reasons_are_told_once_each_and_the_latched_stop_stands_out():
    digest = Digest(SO101)
    digest.add(records(5, verdict=1, rule=b"velocity"), 0)
    late = records(3, verdict=2, rule=b"workspace", start=20.0)
    late["fault"] = b"workspace"
    digest.add(late, 7)
    assert digest.counts == {"passed": 0, "clipped": 5, "rejected": 3} and digest.missed == 7
    assert list(digest.reasons) == ["0.00 s  clipped: velocity", "20.00 s  rejected: workspace"]
    assert "| stop latched | **workspace** |" in digest.table()
    assert len(digest.curves()[0]) == 2, "what is older than ten seconds is forgotten"


def test_wrong_ports_are_one_message(monkeypatch):
    import socket

    with Robot("twin:fr3", in_process=True) as robot, socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(UsageError, match="port = 0"):
            LiveView(robot, port=0)
        with pytest.raises(PoiseError, match="cannot listen on"):
            LiveView(robot, port=taken.getsockname()[1])
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(PoiseError, match=r"poise\[view\]"):
            LiveView(robot)


def says(page, text, timeout=150.0):
    """Wait for a text; software rendering on a busy machine takes its time."""
    end = time.monotonic() + timeout
    while text not in page.evaluate("document.body.innerText"):
        assert time.monotonic() < end, page.evaluate("document.body.innerText")
        page.wait_for_timeout(200)


def test_the_page_shows_the_arm_stops_it_and_may_die(free_port):
    from playwright.sync_api import sync_playwright

    with Robot("twin:fr3?realtime=1") as robot, sync_playwright() as playwright:
        view = LiveView(robot, "reach.safetensors", port=free_port)
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = chromium.new_page(viewport={"width": 560, "height": 360})
        page.set_default_timeout(120_000)  # software rendering, on a busy machine
        page.goto(view.url, wait_until="commit")
        says(page, "fr3_joint7")
        says(page, "of 200; longest")
        assert "stop latched\tnone" in page.evaluate("document.body.innerText")
        page.evaluate("[...document.querySelectorAll('button')].find(b => b.innerText.includes('STOP')).click()")
        end = time.monotonic() + 60
        while "operator" not in robot.status()["fault"]:
            assert time.monotonic() < end, "the button does not stop the arm"
        says(page, "stop latched\toperator")
        chromium.close()
        assert view.was_stopped
        robot.clear_fault()

        os.kill(view.process.pid, signal.SIGSTOP)  # a page that hangs
        before = robot.status()["counts"]["arrived"]
        robot.move_to(np.array(FR3.home) + 0.05, 0.2)
        os.kill(view.process.pid, signal.SIGKILL)  # and one that dies
        robot.move_to(FR3.home, 0.2)
        counts = robot.status()["counts"]
        assert robot.fault == "" and counts["out_of_limit"] == 0 and counts["arrived"] > before + 50
        view.close()
        view.close()
