"""More than two hundred bad files of every layout: each is refused with a message or read, and nothing else happens.

A process of its own reads them with 2 GiB of memory and 10 s for each, so that a crash, a hang or a bomb is seen. A
flipped bit among uncompressed numbers is another number, which no reader of these layouts can know.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bad_files import BY_HAND, by_chance, by_hand, sound_files
from poise.datasets.open_log import open_log
from poise.errors import DatasetError

READER = Path(__file__).parent.parent / "read_bad_files.py"
READABLE = {"h.hdf5", "i.hdf5", "j.hdf5", "b.hdf5", "e.hdf5"}


def read_all(paths: list[Path], folder: Path) -> dict[Path, str]:
    """What became of every file; a file at which the reader died is told as such, and the rest goes on."""
    found: dict[Path, str] = {}
    left = list(paths)
    while left:
        text = "".join(f"{path}\n" for path in left)
        done = subprocess.run(
            [sys.executable, "-P", str(READER)], input=text, capture_output=True, text=True, cwd=folder
        )
        lines = [line.split("\t") for line in done.stdout.splitlines()]
        found |= {Path(path): word for path, word, *_ in lines}
        if done.returncode == 0:
            break
        died = next(path for path in left if path not in found or not found[path])
        found[died] = f"died with {done.returncode}: {done.stderr[-300:]}"
        left = left[left.index(died) + 1 :]
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name in ("sound", "chance", "hand", "empty"):
        (folder / name).mkdir()
    files = sound_files(folder / "sound")
    paths = [*by_chance(files, folder / "chance"), *by_hand(files, folder / "hand")]
    return folder, files, read_all([*files.values(), *paths], folder / "empty")


def test_there_are_more_than_two_hundred_and_their_models_are_sound(corpus):
    _, files, found = corpus
    assert len(found) > 200 + len(files)
    assert {found[path] for path in files.values()} == {"read"}


def test_each_is_refused_with_a_message_or_read(corpus):
    _, _, found = corpus
    assert {path.name: word for path, word in found.items() if word not in ("read", "refused")} == {}


def test_most_that_are_wrong_on_purpose_are_refused_and_nothing_was_run(corpus):
    folder, _, found = corpus
    words = {name: found[folder / "hand" / name] for name in BY_HAND}
    assert sum(word == "refused" for word in words.values()) > 0.7 * len(words), words
    assert list((folder / "empty").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["aa.hdf5", "r.hdf5", "s.hdf5", "z.hdf5", "t.hdf5", "ce.npz", "cd.npz", "ch.npz", "da.pkl", "db.pkl", "fc"]
)
def test_what_points_elsewhere_runs_or_explodes_is_always_refused(corpus, name):
    folder, _, found = corpus
    assert found[folder / "hand" / name] == "refused"
    with pytest.raises(DatasetError):
        open_log(folder / "hand" / name)
