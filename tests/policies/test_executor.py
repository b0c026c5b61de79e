"""Chunks of actions, played by time."""

import numpy as np
import pytest

from poise.errors import UsageError
from poise.policies.executor import Executor

DT = 0.1


def chunk(*values) -> np.ndarray:
    return np.array(values, np.float64)[:, None]


def test_each_row_has_its_time_and_after_the_last_there_is_nothing():
    executor = Executor(DT)
    assert executor.row(0.0) is None
    executor.add(1.0, chunk(1, 2, 3))
    assert executor.row(0.9) is None, "its time has not come"
    played = [executor.row(t) for t in (1.0, 1.05, 1.1, 1.2, 1.29, 1.27)]
    assert [row and row.action[0] for row in played] == [1, 1, 2, 3, None, None]
    assert played[3].age == pytest.approx(0.2)


def test_rows_that_are_late_are_dropped_and_the_newest_chunk_decides():
    executor = Executor(DT)
    executor.add(0.0, chunk(0, 1, 2, 3, 4, 5))
    assert executor.row(0.2).action[0] == 2
    executor.add(0.1, chunk(11, 12, 13))  # arrives at 0.3: two of its rows are past
    assert executor.row(0.3).action[0] == 13
    assert executor.row(0.4).action[0] == 4, "where the newer one ends the older one goes on"
    executor.add(0.05, chunk(9, 9, 9, 9, 9, 9))  # older than the newest: overtaken on the way
    assert executor.row(0.4).action[0] == 4
    assert executor.row(0.6) is None


def test_a_loop_whose_period_begins_a_little_early_gets_the_next_row():
    executor = Executor(DT)
    executor.add(0.0, chunk(0, 1, 2))
    assert executor.row(0.0999).action[0] == 1 and executor.row(0.07).action[0] == 0


def test_ensembling_weighs_the_oldest_most():
    """By hand, with m = ln 2: weights 1, 1/2 over their sum, so (2 * 3 + 8) / 3."""
    executor = Executor(DT, ensemble=np.log(2.0))
    executor.add(0.0, chunk(2, 3))
    executor.add(0.1, chunk(8, 9))
    assert executor.row(0.1).action[0] == pytest.approx((2 * 3 + 8) / 3)
    assert executor.row(0.2).action[0] == 9


@pytest.mark.parametrize("settings", [{"dt": 0.0}, {"dt": -1.0}, {"dt": 0.1, "ensemble": -1.0}, {"dt": float("nan")}])
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(UsageError, match="dt above 0 s"):
        Executor(**settings)
