"""push, lift and pick-place: what they reward, where things lie, and that the contract holds."""

import numpy as np
import pytest

from poise.sim.make import make
from poise.sim.tasks.lift import Lift
from poise.sim.tasks.push import Push
from tests.conformance import check_vec_env


@pytest.mark.parametrize("name", ["push/fr3", "lift/fr3"])
def test_the_contract_of_a_vec_env_holds(name):
    check_vec_env(lambda n: make(name, n, randomize="default", threads=1), longest=80)


@pytest.mark.parametrize(("task", "nq"), [(Push(), 7 + 7), (Lift(), 7 + 2 + 7)])
def test_fingers_have_joints_where_something_is_gripped(task, nq):
    model = task.model().compile()
    assert model.nq == nq and [model.actuator(i).name for i in range(7)] == list(task.robot.joints)
    np.testing.assert_array_equal(model.jnt_qposadr[:7], np.arange(7))
    assert model.joint("object").qposadr[0] == nq - 7
