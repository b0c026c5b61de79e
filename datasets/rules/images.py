"""Rules about cameras; of each episode some frames are looked at, spread over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..check import FRAMES, WARNING, Block, Found, is_picture, rule


@dataclass(frozen=True)
class _Look:
    """What was seen of one camera in one episode; F frames."""

    episode: str
    name: str
    rows: np.ndarray  # (F,) steps looked at
    dark: np.ndarray  # (F,) bool
    flat: np.ndarray  # (F,) bool: one colour, and not black
    frozen: bool


def _looks(block: Block) -> list[_Look]:
    """One look at every camera, for all the rules: frames are read once."""
    kept = block.notes.setdefault("looks", {})
    if kept.get("columns") is not block.columns:
        kept["columns"] = block.columns
        kept["looks"] = [
            _look(e.name, name, column, e.steps)
            for e in block.episodes
            for name, column in e.columns.items()
            if name.startswith("obs/") and is_picture(column)
        ]
    return kept["looks"]


def _look(episode: str, name: str, column, steps: int) -> _Look:
    rows = np.unique(np.linspace(0, steps - 1, min(FRAMES, steps)).astype(int))
    frames = np.stack([np.asarray(column[int(r) : int(r) + 1])[0] for r in rows])
    pixels, bytes_ = frames.reshape(len(frames), -1), frames.dtype == np.uint8
    dark = pixels.max(1) <= (8 if bytes_ else 0.03)
    flat = (np.ptp(pixels, axis=1) <= (1 if bytes_ else 0.004)) & (pixels.max(1) > (8 if bytes_ else 0.03))
    frozen = len(frames) > 3 and bool((frames == frames[:1]).all()) and np.ptp(frames) > 0
    return _Look(episode, name, rows, dark, flat, bool(frozen))


def _first(look: _Look, seen: np.ndarray) -> Found:
    if seen.any():
        yield (
            look.episode,
            int(look.rows[np.argmax(seen)]),
            f"{look.name}: {int(seen.sum())} of {len(seen)} frames looked at",
        )


@rule("black-image", WARNING, "A picture is black.", "the camera was not ready, or was covered", of_steps=True)
def black_image(block: Block) -> Found:
    for look in _looks(block):
        yield from _first(look, look.dark)


@rule("flat-image", WARNING, "A picture has one colour.", "the camera shows nothing", of_steps=True)
def flat_image(block: Block) -> Found:
    for look in _looks(block):
        yield from _first(look, look.flat)


@rule(
    "frozen-image",
    WARNING,
    "A camera shows one picture all the time.",
    "the camera hung: leave its pictures out",
    of_steps=True,
)
def frozen_image(block: Block) -> Found:
    for look in _looks(block):
        if look.frozen:
            yield look.episode, None, f"{look.name} in all {len(look.rows)} frames looked at"
