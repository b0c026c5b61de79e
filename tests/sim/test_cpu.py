"""The engine: rows restore worlds to the bit, threads do not matter, a broken world is contained."""

import mujoco
import numpy as np
import pytest

from poise.errors import UsageError
from poise.sim.cpu import CpuEngine, compile_physics

from .two_link import XML

CTRL = np.random.default_rng(0).uniform(-1, 1, (30, 6, 4, 2))  # (steps, worlds, substeps, actuators)


def _engine(threads: int = 1, separate: bool = False) -> CpuEngine:
    engine = CpuEngine(compile_physics(mujoco.MjSpec.from_string(XML)), 6, 4, threads, separate)
    qpos = np.repeat(engine.model.qpos0[None], 6, axis=0)
    qpos[:, :2] = np.random.default_rng(1).uniform(-1, 1, (6, 2))
    qpos[:, 2:5] = 1.0, 0.0, -1.41  # pressed into the table: contacts from the first step on
    engine.set_state(np.arange(6), qpos, np.zeros((6, engine.model.nv)))
    return engine


def test_a_world_moves_as_plain_mj_step_moves_it():
    engine = _engine()
    model = compile_physics(mujoco.MjSpec.from_string(XML))
    data = mujoco.MjData(model)
    data.qpos[:] = engine.qpos[2]
    for ctrl in CTRL:
        assert engine.step(ctrl) is None
        data.qacc_warmstart[:] = 0.0
        for substep in range(4):
            data.ctrl[:] = ctrl[2, substep]
            mujoco.mj_step(model, data)
        np.testing.assert_allclose(engine.qpos[2], data.qpos, rtol=0, atol=1e-12)
        np.testing.assert_allclose(engine.qvel[2], data.qvel, rtol=0, atol=1e-12)
    assert engine.time[2] == pytest.approx(30 * 0.02)


def test_results_do_not_depend_on_the_number_of_threads():
    one, two = _engine(1), _engine(2)
    assert (one.threads, two.threads) == (1, 2)
    for ctrl in CTRL:
        one.step(ctrl)
        two.step(ctrl)
        assert one.state.tobytes() == two.state.tobytes()
    one.close()
    two.close()


def test_a_saved_row_restores_a_fresh_engine_to_the_bit():
    engine, fresh = _engine(), _engine(2)
    for ctrl in CTRL[:15]:
        engine.step(ctrl)
    fresh.load_state_dict(engine.state_dict())
    for ctrl in CTRL[15:]:
        engine.step(ctrl)
        fresh.step(ctrl)
    assert engine.state.tobytes() == fresh.state.tobytes()
    with pytest.raises(UsageError, match="resume with the same task and number of worlds"):
        fresh.load_state_dict({"state": engine.state[:3]})


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e20, 1e8])
def test_a_broken_world_is_found_and_keeps_its_state_while_others_go_on(poison):
    engine, sound = _engine(), _engine()
    engine.step(CTRL[0])
    sound.step(CTRL[0])
    engine.state[3, engine.model.nq + 1] = poison
    before = engine.state[3].copy()
    assert engine.step(CTRL[1]).tolist() == [3]
    sound.step(CTRL[1])
    assert engine.state[3].tobytes() == before.tobytes()
    others = [0, 1, 2, 4, 5]
    assert engine.state[others].tobytes() == sound.state[others].tobytes()


def test_a_world_that_breaks_by_itself_at_any_substep_is_found():
    for substep in range(4):
        engine = _engine(separate=True)
        ctrl = CTRL[0].copy()
        ctrl[1, substep] = 9e9  # torque without bounds
        assert engine.step(ctrl).tolist() == [1]
        assert np.isfinite(engine.state).all() and np.abs(engine.state).max() < 1e6


def test_writing_reaches_the_named_worlds_only():
    engine = _engine(separate=True)
    damping = np.tile(engine.model.dof_damping, (2, 1)) * [[2.0], [3.0]]
    engine.write({"dof_damping": damping, "jnt_range": None}, np.array([1, 4]), ["dof_damping"])
    assert [m.dof_damping[0] for m in engine.models] == [0.5, 1.0, 0.5, 0.5, 1.5, 0.5]
    same = _engine(separate=True)
    engine.step(CTRL[0])
    same.step(CTRL[0])
    changed = np.any(engine.state != same.state, axis=1)
    assert changed.tolist() == [False, True, False, False, True, False]


def test_a_shared_model_cannot_be_written():
    with pytest.raises(UsageError, match="the worlds share one model"):
        _engine().write({"dof_damping": np.zeros((1, 8))}, np.array([0]))


def test_copies_of_a_model_carry_no_textures():
    assert mujoco.MjModel.from_xml_string(XML).ntex == 1
    assert compile_physics(mujoco.MjSpec.from_string(XML)).ntex == 0


def test_a_new_state_array_follows_every_step():
    engine = _engine()
    qpos, copy = engine.qpos, engine.qpos.copy()
    engine.step(CTRL[0])
    assert np.array_equal(qpos, copy)
