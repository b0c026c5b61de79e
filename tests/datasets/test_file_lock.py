"""A lock is held by one, and dies with its process."""

import os
import signal
import subprocess
import sys

import pytest

from poise.datasets.file_lock import FileLock
from poise.errors import DatasetError


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path):
    first = FileLock(tmp_path / "a.hdf5")
    with pytest.raises(DatasetError, match=r"a\.hdf5 is being written by another process"):
        FileLock(tmp_path / "a.hdf5")
    first.release()
    first.release()
    with FileLock(tmp_path / "a.hdf5"):
        pass
    assert os.listdir(tmp_path) == []


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    code = "import sys, time, pathlib\nfrom poise.datasets.file_lock import FileLock\nx = FileLock(pathlib.Path(sys.argv[1]))\nprint(1, flush=True)\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.hdf5")], stdout=subprocess.PIPE)
    process.stdout.readline()
    with pytest.raises(DatasetError, match="another process"):
        FileLock(tmp_path / "a.hdf5")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert os.listdir(tmp_path) == [".a.hdf5.lock"]
    FileLock(tmp_path / "a.hdf5").release()
