"""Rules about cameras; of each episode some frames are looked at, spread over it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..check import FRAMES, WARNING, Block, Found, is_picture, rule


def _frames(block: Block) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """(episode, camera, rows, frames (F, …)) of every camera."""
    kept = block.notes.setdefault("frames", {})
    for e in block.episodes:
        for name, column in e.columns.items():
            if is_picture(column) and name.startswith("obs/"):
                rows = np.unique(np.linspace(0, e.steps - 1, min(FRAMES, e.steps)).astype(int))
                if (e.name, name) not in kept:
                    kept.clear()
                    kept[e.name, name] = np.stack([np.asarray(column[int(r) : int(r) + 1])[0] for r in rows])
                yield e.name, name, rows, kept[e.name, name]


@rule("black-image", WARNING, "A picture is black.", "the camera was not ready, or was covered", of_steps=True)
def black_image(block: Block) -> Found:
    for episode, name, rows, frames in _frames(block):
        dark = frames.reshape(len(frames), -1).max(1) <= (8 if frames.dtype == np.uint8 else 0.03)
        if dark.any():
            yield episode, int(rows[np.argmax(dark)]), f"{name}: {int(dark.sum())} of {len(rows)} frames looked at"


@rule("flat-image", WARNING, "A picture has one colour.", "the camera shows nothing", of_steps=True)
def flat_image(block: Block) -> Found:
    for episode, name, rows, frames in _frames(block):
        flat, bytes_ = frames.reshape(len(frames), -1), frames.dtype == np.uint8
        same = (np.ptp(flat, axis=1) <= (1 if bytes_ else 0.004)) & (flat.max(1) > (8 if bytes_ else 0.03))
        if same.any():
            yield episode, int(rows[np.argmax(same)]), f"{name}: {int(same.sum())} of {len(rows)} frames looked at"


@rule(
    "frozen-image",
    WARNING,
    "A camera shows one picture all the time.",
    "the camera hung: leave its pictures out",
    of_steps=True,
)
def frozen_image(block: Block) -> Found:
    for episode, name, _, frames in _frames(block):
        if len(frames) > 3 and (frames == frames[:1]).all() and np.ptp(frames) > 0:
            yield episode, None, f"{name} in all {len(frames)} frames looked at"
