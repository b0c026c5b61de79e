"""D4RL's names: reference scores and addresses."""

import json
import subprocess
import sys

import pytest

from poise.datasets.d4rl_names import entries, entry, normalized_score, score_reference
from poise.errors import UsageError


def test_random_is_zero_and_the_expert_a_hundred():
    assert normalized_score("hopper-medium-v2", -20.272305) == 0.0
    assert normalized_score("hopper-medium-v2", 3234.3) == 100.0
    assert normalized_score("halfcheetah-expert-v2", (12135.0 - 280.178953) / 2) == pytest.approx(50.0)


def test_there_are_155_sets_and_147_references():
    assert len(entries()) == 155
    assert sum("min" in e for e in entries().values()) == 147
    assert len({e["url"] for e in entries().values()}) == 155
    assert entry("maze2d-umaze-v1")["horizon"] == 300


def test_a_set_without_reference_has_no_score():
    with pytest.raises(UsageError, match="no reference returns for carla-town-full-v0"):
        normalized_score("carla-town-full-v0", 1.0)
    with pytest.raises(UsageError, match="did you mean hopper-medium-v"):
        normalized_score("hoper-medium-v2", 1.0)


def test_the_table_is_that_of_d4rl_itself(tmp_path):
    code = """
import importlib.util, json
from pathlib import Path
place = Path(importlib.util.find_spec("d4rl").origin).parent / "infos.py"  # importing d4rl would import gym
spec = importlib.util.spec_from_file_location("infos", place)
infos = importlib.util.module_from_spec(spec)
spec.loader.exec_module(infos)
print(json.dumps([infos.DATASET_URLS, infos.REF_MIN_SCORE, infos.REF_MAX_SCORE]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    urls, low, high = json.loads(done.stdout)
    assert urls == {name: e["url"] for name, e in entries().items()}
    assert low == {name: e["min"] for name, e in entries().items() if "min" in e}
    assert high == {name: e["max"] for name, e in entries().items() if "max" in e}


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["d4rl:hopper-medium-v2"], "hopper-medium-v2"),
        (["/data/hopper_medium-v2.hdf5"], "hopper-medium-v2"),
        (["hopper-expert-v2.hdf5", "d4rl:hopper-random-v2"], "hopper-expert-v2"),
        (["d4rl:hopper-expert-v2", "d4rl:walker2d-expert-v2"], ""),  # of two tasks
        (["d4rl:carla-town-full-v0"], ""),  # without references
        (["hopper-expert-v2.hdf5", "mine.hdf5"], ""),
        (["hopper.hdf5"], ""),
    ],
)
def test_files_say_by_their_names_which_references_score_them(files, name):
    assert score_reference(files) == name
