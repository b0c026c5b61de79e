"""Several processes of one run: together they compute what one would, in updates and from start to end."""

import os
import subprocess
import sys

import numpy as np
import parallel_cases as cases
import pytest


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """What two processes make of every case: (rank 0's, rank 1's) by "case/name"."""
    folder = tmp_path_factory.mktemp("halves")
    outs = [folder / f"{rank}.npz" for rank in range(cases.HALVES)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    running = [subprocess.Popen([sys.executable, "-W", "error", cases.__file__, str(rank), str(folder / "meeting"), str(out)],
                                env=environment) for rank, out in enumerate(outs)]  # fmt: skip
    assert [process.wait(120) for process in running] == [0, 0]
    return [dict(np.load(out)) for out in outs]


@pytest.mark.parametrize("case", cases.CASES)
def test_two_processes_with_half_the_batch_each_do_what_one_does_with_all_of_it(halves, case):
    whole = cases.CASES[case](cases.ALONE)
    for name, expected in whole.items():
        first, second = (half[f"{case}/{name}"] for half in halves)
        if name in cases.OWN:
            first = np.concatenate([first, second])
        else:
            assert np.array_equal(first, second), f"{name} differs between the processes"
        np.testing.assert_allclose(first, expected.detach().numpy(), rtol=1e-5, atol=1e-5, err_msg=name)
