"""Pictures decoded by threads: the order of the data, and the first bad one told."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from poise.datasets.layouts import pictures
from poise.datasets.layouts.pictures import decode, decode_all
from poise.errors import DatasetError


def coded(value: int, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(file, format)
    return file.getvalue()


def told(i: int) -> str:
    return f"picture {i}"


@pytest.mark.parametrize("count", [0, 1, pictures.FEW, 3 * pictures.AHEAD + 1])
def test_pictures_come_in_their_order(count):
    frames = decode_all([coded(i % 256) for i in range(count)], (6, 8, 3), ("PNG",), told)
    assert frames.shape == (count, 6, 8, 3)
    assert np.array_equal(frames[:, 0, 0, 0], np.arange(count) % 256)


def test_there_are_never_more_than_a_few_workers(monkeypatch):
    running, most, lock = 0, 0, threading.Lock()

    def counting(*arguments):
        nonlocal running, most
        with lock:
            running, most = running + 1, max(most, running + 1)
        picture = decode(*arguments)
        with lock:
            running -= 1
        return picture

    monkeypatch.setattr(pictures, "decode", counting)
    monkeypatch.setattr(pictures, "WORKERS", 3)
    before = threading.active_count()
    decode_all([coded(7)] * 200, (6, 8, 3), ("PNG",), told)
    assert 1 <= most <= 3 and threading.active_count() == before, "and they end with the column"


def test_the_first_bad_picture_is_told_and_those_far_behind_are_not_tried():
    rows = [coded(1)] * 10 + [b"no picture"] + [coded(1, "JPEG")] * 400
    tried = []

    def seen(i: int) -> str:
        tried.append(i)
        return told(i)

    with pytest.raises(DatasetError, match="picture 10 is no PNG"):
        decode_all(rows, (6, 8, 3), ("PNG",), seen)
    assert max(tried) < pictures.AHEAD
