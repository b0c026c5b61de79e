"""What every test gets: one thread, repeatable randomness, an empty folder to work in."""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # also for the processes that tests start

import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# the same examples on every run: a test fails because of a change, never by luck
settings.register_profile(
    "poise", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("poise")


@pytest.fixture(autouse=True)
def _fresh_start(tmp_path, monkeypatch) -> None:
    """Relative paths such as `runs/` land in the test's own folder; random test data is the same every time."""
    monkeypatch.chdir(tmp_path)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_report_header() -> list[str]:
    return [] if torch.cuda.is_available() else ["tests marked gpu are left out: torch finds no GPU here"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a GPU its tests are deselected, as the header says."""
    if torch.cuda.is_available():
        return
    left_out = [item for item in items if item.get_closest_marker("gpu")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
