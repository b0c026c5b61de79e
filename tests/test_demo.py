"""The demo: rehearsed in seconds, and in full for three seeds where learning is tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"


def run(folder, *options: str) -> dict:
    command = [sys.executable, "-P", str(DEMO), "--out", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return json.loads((folder / "summary.json").read_text())


def test_the_rehearsal_leaves_everything_that_the_demo_promises(tmp_path):
    summary = run(tmp_path / "demo", "--quick")
    assert summary["out of limits by the twin's own count"] == 0 and summary["commands sent to the arm"] > 500
    for name in ("policy.safetensors", "curves.png", "reach.mp4", "deployed.hdf5"):
        assert (tmp_path / "demo" / name).stat().st_size > 1000, name


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_reaches_and_deploys(tmp_path, seed):
    summary = run(tmp_path / "demo", "--seed", str(seed))
    assert summary["evaluation success"] >= 0.97 and summary["evaluation episodes"] == 200
    assert summary["deployment success"] >= 0.90 and summary["deployment episodes"] == 50
    assert summary["out of limits by the twin's own count"] == 0
