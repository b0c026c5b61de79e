"""`poise view`: a task, or a policy in it, in a web browser, through viser.

The browser draws; this process simulates, in real time times the chosen speed, and listens on the loopback interface
unless told otherwise: whoever reaches the page can press its buttons.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from .evaluate import Acts
from .interrupts import interrupts
from .view_player import Player
from .view_server import LOOPBACK, require_viser, serve, stop

FRAMES_DT, TEXT_DT, PLOT_DT = 1 / 30, 0.1, 0.5  # [s] between two updates of the picture, the numbers, the curves
PAUSE = 0.5  # [s] that the end of an episode stays in view
SPEEDS = ("0.1×", "0.25×", "0.5×", "1×", "2×", "4×", "as fast as it goes")
_log = logging.getLogger("poise.view")


def view(
    task: str,
    policy: Acts | None = None,
    *,
    seed: int = 0,
    episodes: int | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    randomize: Any = "none",
    name: str = "",
) -> dict[str, Any]:
    """Show `task` in a browser until Ctrl-C, or until `episodes` episodes ended; what was seen, as plain data.

    Without a policy the actions are random, or the page's sliders. `name` is what the page calls the policy.

    Raises:
        UsageError: the task or a number is wrong. PoiseError: viser is not installed, or the port is taken.
    """
    if episodes is not None and episodes < 1:
        raise UsageError(f"episodes = {episodes}: expected at least 1")
    require_viser("poise view", port)
    player = Player(task, policy, seed, randomize)
    server, url = None, ""
    try:
        server = serve(host, port, task)
        url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{server.get_port()}"
        if host not in LOOPBACK:
            _log.warning("warning: --host %s lets every machine that reaches this one press the buttons", host)
        print(f"{task} is at {url} (Ctrl-C ends)", flush=True)
        with interrupts() as interrupted:
            _Page(server, player, name).run(episodes, interrupted)
    except KeyboardInterrupt:
        print()
    finally:
        if server is not None:
            stop(server)
        player.close()
    rows = [{"return": r, "length": n, "success": s} for r, n, s in player.results]
    return {"task": task, "url": url, "episodes": rows}


class _Page:
    """The scene, the panel beside it, and the loop that plays."""

    def __init__(self, server: Any, player: Player, name: str):
        from .view_scene import MujocoScene, PictureScene

        self.server, self.player = server, player
        self.requests: queue.SimpleQueue[str] = queue.SimpleQueue()  # from viser's threads to the loop
        self.playing = True
        pictures = player.model is None
        self.scene: Any = PictureScene(server, player.picture()) if pictures else MujocoScene(server, player.model)
        self._build_panel(name)
        self._shown: dict[str, float] = {"frame": 0.0, "text": 0.0, "plot": 0.0}
        self.show(everything=True)

    # ---- the panel ---------------------------------------------------------------------------

    def _build_panel(self, name: str) -> None:
        import viser.uplot as uplot

        gui, spec = self.server.gui, self.player.spec
        gui.add_markdown(f"**{self.player.task}**" + (f"  \n{name}" if name else ""))
        self.text = gui.add_markdown("")
        self.cameras = {g: gui.add_image(frame, label=g) for g, frame in self.player.frames.items()}
        self.play_button = gui.add_button("Pause", icon="player-pause")
        self.play_button.on_click(lambda _: self.requests.put("play"))
        buttons = gui.add_button_group("Episode", ("Step", "Restart", "Next"))
        buttons.on_click(lambda event: self.requests.put(event.target.value.lower()))
        self.speed = gui.add_dropdown("Speed", SPEEDS, initial_value="1×")
        sources = ("policy", "random", "by hand") if self.player.policy else ("random", "by hand")
        self.source = gui.add_dropdown("Actions", sources, initial_value=sources[0])
        none = (np.zeros(1), np.zeros(1))
        line = {"stroke": "#2667a0", "width": 2}
        self.reward_plot = gui.add_uplot(none, (uplot.Series(label="step"), uplot.Series(label="reward", **line)),
                                         title="reward", height=130, scales={"x": uplot.Scale(time=False)})  # fmt: skip
        self.return_plot = gui.add_uplot(none, (uplot.Series(label="episode"), uplot.Series(label="return", **line)),
                                         title="return of each episode", height=130,
                                         scales={"x": uplot.Scale(time=False)}, visible=False)  # fmt: skip
        with gui.add_folder("Actions by hand", expand_by_default=self.player.policy is None):
            if spec.discrete:
                self.sliders = [gui.add_slider("choice", 0, spec.choices - 1, 1, 0)]
            else:
                self.sliders = [gui.add_slider(label, -1.0, 1.0, 0.01, 0.0) for label in action_labels(spec)]
        for slider in self.sliders:
            slider.on_update(lambda event: self.requests.put("by hand") if event.client_id is not None else None)

    def _answer(self) -> bool:
        """Do what was asked for on the page; whether one step is wanted."""
        step = False
        while not self.requests.empty():
            request = self.requests.get()
            if request == "play":
                self.playing = not self.playing
            elif request == "step":
                self.playing, step = False, True
            elif request == "by hand":
                self.source.value = "by hand"
            else:
                self.player.begin(self.player.episode + (request == "next"))
            self.play_button.label = "Pause" if self.playing else "Play"
            self.play_button.icon = "player-pause" if self.playing else "player-play"
            self.show(everything=True)
        return step

    def _action(self) -> Tensor:
        if self.source.value == "policy":
            return self.player.policy_action()
        if self.source.value == "random":
            return self.player.random_action()
        values = [[float(slider.value) for slider in self.sliders]]
        return torch.tensor(values).long() if self.player.spec.discrete else torch.tensor(values)

    # ---- playing -----------------------------------------------------------------------------

    def run(self, episodes: int | None, interrupted: Callable[[], bool]) -> None:
        """Play until `episodes` episodes ended, or someone asks to stop."""
        due = time.monotonic()
        while not interrupted() and (episodes is None or len(self.player.results) < episodes):
            step = self._answer()
            now = time.monotonic()
            if not (step or (self.playing and now >= due)):
                time.sleep(min(0.01, max(due - now, 0.001)) if self.playing else 0.02)
                continue
            self.player.step(self._action())
            if self.player.ended:
                due = now + PAUSE
                self.show(text=True)  # the world itself has begun anew already: its last picture stays
            else:
                due = max(due + self._step_seconds(), now)  # no catching up after a pause or a slow step
                self.show(everything=step)

    def _step_seconds(self) -> float:
        speed = self.speed.value.rstrip("×")
        return self.player.spec.control_dt / float(speed) if speed in {s.rstrip("×") for s in SPEEDS[:-1]} else 0.0

    def show(self, everything: bool = False, text: bool = False) -> None:
        """Send what is due to the browsers."""
        now = time.monotonic()

        def due(what: str, period: float) -> bool:
            if not (everything or now - self._shown[what] >= period):
                return False
            self._shown[what] = now
            return True

        if not text and due("frame", FRAMES_DT):
            if self.player.model is None:
                self.scene.update(self.player.picture())
            else:
                if self.player.look():
                    self.scene.repaint()
                self.scene.update(self.player.data, self.player.target_pos)
            for group, frame in self.player.frames.items():
                self.cameras[group].image = frame
        if text or due("text", TEXT_DT):
            self.text.content = numbers(self.player, self.playing)
        if due("plot", PLOT_DT):
            self._plot()

    def _plot(self) -> None:
        if rewards := self.player.rewards:
            self.reward_plot.data = (np.arange(1.0, len(rewards) + 1), np.array(rewards))
        if results := self.player.results[-200:]:
            first = len(self.player.results) - len(results)
            self.return_plot.data = (
                np.arange(first + 1.0, first + len(results) + 1),
                np.array([r[0] for r in results]),
            )
            self.return_plot.visible = len(results) > 1


def action_labels(spec: Any) -> list[str]:
    """A name for every number of the action: its joint's where the Spec has one."""
    return [label for term in spec.actions for label in (term.joints or [f"{term.name} {i}" for i in range(term.size)])]


def numbers(player: Player, playing: bool) -> str:
    """The table of the page, in Markdown."""
    rows = [
        ("state", "playing" if playing else "paused"),
        ("episode", f"{player.episode + 1} (seed {player.seed})"),
        ("step", f"{player.steps} ({player.steps * player.spec.control_dt:.2f} s)"),
        ("reward", f"{player.rewards[-1]:.3f}" if player.rewards else "–"),
        ("return", f"{player.total:.3f}"),
    ]
    if player.results:
        returned, length, success = player.results[-1]
        outcome = "" if success is None else ", success" if success else ", no success"
        rows.append(("last", f"{returned:.2f} in {length} steps{outcome}"))
        successes = [s for _, _, s in player.results if s is not None]
        if successes:
            rows.append(("successes", f"{sum(successes)} of {len(successes)}"))
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])
