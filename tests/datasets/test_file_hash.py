"""Hashes of data: a file's, a folder's by names and contents."""

import hashlib

import pytest

from poise.datasets.file_hash import sha256
from poise.errors import DatasetError


def test_a_file_has_the_hash_that_others_compute(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_a_folder_s_hash_changes_with_any_file_s_name_or_contents(tmp_path):
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "x").write_text("1")
    first = sha256(tmp_path / "d")
    assert sha256(tmp_path / "d") == first
    (tmp_path / "d" / "e" / "x").rename(tmp_path / "d" / "e" / "y")
    second = sha256(tmp_path / "d")
    (tmp_path / "d" / "e" / "y").write_text("2")
    assert len({first, second, sha256(tmp_path / "d")}) == 3


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read .*nowhere"):
        sha256(tmp_path / "nowhere")
