"""The fingerprints by which a replayed episode is held against the one that was played."""

import numpy as np

from poise.sim.open_episodes import fingerprint


def test_a_fingerprint_differs_when_one_bit_does():
    raw = np.random.default_rng(0).normal(size=(2, 17))
    other = raw.copy()
    other[1, 5] = np.nextafter(other[1, 5], np.inf)
    assert (fingerprint(raw) == fingerprint(other)).tolist() == [True, False]
    assert fingerprint(raw.astype(np.float32)).shape == fingerprint(np.array([3, 4])).shape == (2,)


def test_a_fingerprint_of_frames_and_of_dicts_differs_when_one_byte_does():
    frames = np.random.default_rng(0).integers(0, 255, (2, 5, 5, 3), np.uint8)
    other = frames.copy()
    other[1, 4, 4, 2] += 1
    assert (fingerprint(frames) == fingerprint(other)).tolist() == [True, False]
    both, changed = {"a": frames, "b": frames[:, :4, :4]}, {"a": frames, "b": other[:, 1:, 1:]}
    assert (fingerprint(both) != fingerprint(changed)).all()
    assert (fingerprint({"a": frames}) == fingerprint({"a": other})).tolist() == [True, False]
