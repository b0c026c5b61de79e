"""Models: what is written reaches the rows it is for, with what MuJoCo derives from it."""

import copy

import mujoco
import numpy as np

from poise.sim.models import Models

from .two_link import XML

MODEL = mujoco.MjModel.from_xml_string(XML)


def test_values_reach_their_rows_and_derived_constants_follow():
    models = [copy.copy(MODEL) for _ in range(3)]
    masses = np.stack([MODEL.body_mass * scale for scale in (2.0, 3.0)])
    Models(models).give({"body_mass": masses, "opt.timestep": np.array([0.001, 0.002])}, np.array([2, 0]))
    np.testing.assert_array_equal([m.body_mass[1] / MODEL.body_mass[1] for m in models], [3, 1, 2])
    assert [m.opt.timestep for m in models] == [0.002, 0.005, 0.001]
    expected = copy.copy(MODEL)
    expected.body_mass[:] = masses[0]
    mujoco.mj_setConst(expected, mujoco.MjData(expected))
    np.testing.assert_array_equal(models[2].dof_M0, expected.dof_M0)
    np.testing.assert_array_equal(models[1].dof_M0, MODEL.dof_M0)


def test_only_wanted_fields_are_written_and_all_rows_by_default():
    models = [copy.copy(MODEL) for _ in range(2)]
    fields = {"dof_damping": np.ones((2, MODEL.nv)), "opt.gravity": np.zeros((2, 3))}
    Models(models).give(fields, wanted=["opt.gravity"])
    for model in models:
        assert not model.opt.gravity.any() and np.array_equal(model.dof_damping, MODEL.dof_damping)
