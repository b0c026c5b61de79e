"""`poise view`: what is played, without a browser; then the page itself in headless Chromium."""

import contextlib
import io
import json
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

import poise
from poise.cli import main
from poise.errors import SpecError, UsageError
from poise.policies.evaluate import evaluate
from poise.policies.view import action_labels, numbers, view
from poise.policies.view_player import Player
from poise.policies.view_scene import MujocoScene, travelling_body

CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --ignore-gpu-blocklist --no-sandbox "
         "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync")  # fmt: skip


class Alternates:
    """Pushes left and right in turn."""

    def __init__(self, task: str):
        env = poise.make(task)
        self.spec = env.spec.for_policy_file()
        env.close()

    def initial_state(self, n):
        return {"count": torch.zeros(n, 1, dtype=torch.int64)}

    def act(self, obs, state):
        return (state["count"] % 2)[:, None], {"count": state["count"] + 1}


@pytest.fixture
def player():
    made = []

    def make(*arguments, **options) -> Player:
        made.append(Player(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_first_episode_is_the_one_that_evaluate_scores_first(player):
    policy = Alternates("gym:CartPole-v1")
    shown = player("gym:CartPole-v1", policy, seed=3)
    while not shown.ended:
        shown.step(shown.policy_action())
    assert shown.results == [(evaluate(policy, "gym:CartPole-v1", episodes=1, seed=3).return_mean, shown.steps, None)]
    shown.step(shown.policy_action())
    assert (shown.episode, shown.steps) == (1, 1), "the next step begins the next episode"


def test_restarting_an_episode_gives_the_same_start_and_the_next_one_another(player):
    arm = player("reach/fr3", seed=5)
    start, target = arm.data.qpos.copy(), arm.target_pos.copy()
    arm.step(torch.ones(1, 7))
    assert not np.array_equal(arm.data.qpos, start)
    first = arm.rewards
    arm.begin(0)
    assert np.array_equal(arm.data.qpos, start) and np.array_equal(arm.target_pos, target) and arm.rewards == []
    arm.step(torch.ones(1, 7))
    assert arm.rewards == first
    arm.begin(1)
    assert not np.array_equal(arm.target_pos, target)


def test_random_actions_fit_the_task_and_follow_from_the_seed(player):
    for task in ("reach/fr3", "gym:CartPole-v1", "gym:HalfCheetah-v5"):
        one, same, other = (player(task, seed=s) for s in (1, 1, 2))
        drawn = [one.random_action()]
        for _ in range(20):
            one.step(drawn[-1])
            drawn.append(one.random_action())
        assert torch.equal(drawn[0], same.random_action())
        assert len({tuple(a.flatten().tolist()) for a in drawn}) > 1
        assert other.env.spec.discrete or not torch.equal(drawn[0], other.random_action())


def test_what_is_drawn_is_the_model_where_there_is_one_and_else_a_picture(player):
    cheetah, pole = player("gym:HalfCheetah-v5"), player("gym:CartPole-v1")
    before = cheetah.data.qpos.copy()
    cheetah.step(torch.ones(1, 6))
    assert not np.array_equal(cheetah.data.qpos, before) and cheetah.target_pos is None
    assert pole.model is None and pole.picture().shape[2] == 3 and pole.picture().std() > 1
    game = player("gym:ALE/Breakout-v5")
    game.step(game.random_action())
    assert game.model is None and game.picture().shape == (210, 160, 3) and game.picture().std() > 1


@pytest.mark.parametrize(
    ("task", "follows"), [("gym:HalfCheetah-v5", True), ("gym:Ant-v5", True), ("gym:Reacher-v5", False),
                          ("gym:InvertedPendulum-v5", False), ("reach/fr3", False)]
)  # fmt: skip
def test_the_camera_follows_what_can_leave(player, task, follows):
    assert (travelling_body(player(task).model) > 0) == follows


class Recorder:
    """A viser server that remembers what was added to its scene: name -> arguments."""

    def __init__(self):
        self.added, self.scene, self.initial_camera = {}, self, SimpleNamespace()
        self.atomic = contextlib.nullcontext

    def __getattr__(self, name):
        assert name.startswith("add_")
        return lambda path, *a, **k: self.added.update({path: (*a, k)}) or SimpleNamespace()


def test_the_page_shows_the_colours_of_each_episode_and_what_the_camera_sees(player):
    looks = {"terms": [
        {"name": "c", "what": "geom_color", "target": ["table", "fore"], "range": [0, 1], "operation": "set"}]}  # fmt: skip
    arm, server = player("reach/planar", seed=3, randomize=looks), Recorder()
    scene = MujocoScene(server, arm.model)
    painted = []
    for episode in (0, 1):
        arm.begin(episode)
        server.added.clear()
        assert arm.look() and not arm.look()
        scene.repaint()
        assert len(server.added) == 2, "the table and one link"
        colours = {
            tuple(arguments[-1].get("color") or arguments[-1]["plane_color"]) for arguments in server.added.values()
        }
        drawn = np.round(255 * arm.env.params["c"].reshape(-1, 3)).astype(int)
        assert colours == {tuple(row) for row in drawn.tolist()}
        painted.append(colours)
    assert painted[0] != painted[1]
    server.added.clear()
    scene.repaint()
    assert not server.added
    (frame,) = arm.frames.values()
    assert frame.shape == (84, 84, 3) and frame.std() > 5 and player("reach/fr3").frames == {}


def test_the_numbers_of_the_page(player):
    arm = player("reach/fr3")
    assert "| state | paused |" in numbers(arm, False) and "| reward | – |" in numbers(arm, False)
    for _ in range(100):
        arm.step(torch.zeros(1, 7))
    text = numbers(arm, True)
    assert "| step | 100 (5.00 s) |" in text and "in 100 steps, no success" in text and "0 of 1" in text
    assert action_labels(arm.spec)[6] == "fr3_joint7"


def test_wrong_wishes_are_refused(player, monkeypatch, capsys):
    with pytest.raises(SpecError, match="does not fit gym:Acrobot-v1"):
        player("gym:Acrobot-v1", Alternates("gym:CartPole-v1"))
    with pytest.raises(UsageError, match="no policy"):
        player("reach/fr3").policy_action()
    for options, message in (({"episodes": 0}, "episodes = 0"), ({"port": 70000}, "port = 70000")):
        with pytest.raises(UsageError, match=message):
            view("reach/fr3", **options)
    assert main(["view"]) == 2 and "needs a task" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["view", "reach/fr3", "--port", str(port)]) == 1
        assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["view", "reach/fr3"]) == 1 and "pip install 'poise[view]'" in capsys.readouterr().err


# ---- in a browser ------------------------------------------------------------------------------


@pytest.fixture
def serve():
    """Starts `poise view` on a free port; the process and the page's address."""
    started = []

    def start(*arguments: str) -> tuple[subprocess.Popen, str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        process = subprocess.Popen([sys.executable, "-P", "-m", "poise", "view", *arguments, "--port", str(port)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line, process.communicate()
        return process, f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(120_000)  # software rendering, on a busy machine
        yield page
        chromium.close()


def row(page, name: str) -> str:
    return page.locator(f"tr:has(td:text-is('{name}')) td").nth(1).inner_text()


def colours(page) -> np.ndarray:
    """The pixels (H, W, 3) left of the panel."""
    return imageio.imread(io.BytesIO(page.screenshot()))[:, :900, :3].astype(float)


def test_the_page_plays_pauses_steps_and_restarts_an_arm(serve, browser):
    process, url = serve("reach/fr3", "--json")
    browser.goto(url)
    browser.wait_for_selector("td:text-is('playing')")
    browser.get_by_role("button", name="Pause").click()
    browser.wait_for_selector("td:text-is('paused')")
    step = row(browser, "step")
    browser.wait_for_timeout(300)
    assert row(browser, "step") == step, "a paused world stands still"

    browser.get_by_role("button", name="Restart").click()
    browser.wait_for_selector("td:text-is('0 (0.00 s)')")
    browser.get_by_role("button", name="Step").click()
    browser.wait_for_selector("td:text-is('1 (0.05 s)')")
    browser.get_by_role("button", name="Next").click()
    browser.wait_for_selector("td:text-is('0 (0.00 s)')")
    assert int(row(browser, "episode").split()[0]) >= 2

    for _ in range(100):  # swiftshader draws when it comes to it
        picture = colours(browser)[200:]
        if picture.std() > 10 and (np.abs(picture - [242, 38, 25]).max(-1) < 90).any():  # the target is red
            break
        browser.wait_for_timeout(200)
    else:
        pytest.fail(f"no arm and no target in the picture: standard deviation {picture.std():.1f}")

    browser.get_by_role("button", name="Play").click()
    browser.wait_for_selector("td:text-is('playing')")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and err == "", err
    assert json.loads(out.splitlines()[-1])["task"] == "reach/fr3"


def test_a_world_without_a_model_is_a_picture_and_ends_by_itself(serve, browser):
    process, url = serve("gym:CartPole-v1", "--episodes", "4", "--json")
    browser.goto(url)
    browser.wait_for_selector("td:text-is('playing')")
    assert process.wait(timeout=60) == 0
    episodes = json.loads(process.stdout.read().splitlines()[-1])["episodes"]
    assert len(episodes) == 4 and all(e["return"] == e["length"] > 5 and e["success"] is None for e in episodes)
