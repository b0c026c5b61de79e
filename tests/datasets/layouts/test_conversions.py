"""Real files through every layout that can be written, and back to the bit."""

from pathlib import Path

import pytest

from equal_logs import assert_equal_logs
from poise.datasets.open_log import layout, open_log

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize("target, name", [("robomimic", "a.hdf5"), ("d4rl", "a.hdf5"), ("minari", "a-v0")])
@pytest.mark.parametrize("source", ["d4rl_push_ball.hdf5", "lerobot_g1"])
def test_a_real_file_comes_back_from_another_layout(tmp_path, source, target, name):
    with open_log(DATA / source) as given:
        layout(target).write(tmp_path / name, given)
        with open_log(tmp_path / name) as found:
            assert found.layout == target
            assert_equal_logs(given, found)
