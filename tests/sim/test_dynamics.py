"""Randomization in a MuJoCo model: against models compiled with the changed values, never against our own code."""

import mujoco
import numpy as np
import pytest

from poise.errors import UsageError
from poise.sim.cpu import CpuEngine, compile_physics
from poise.sim.dynamics import PAYLOAD_RADIUS, Dynamics, add_payloads
from poise.sim.randomization import Randomization, Term

from .two_link import XML


def _engine(*terms: Term) -> tuple[CpuEngine, Dynamics]:
    spec = mujoco.MjSpec.from_string(XML)
    randomization = Randomization(terms)
    add_payloads(spec, randomization)
    model = compile_physics(spec)
    return CpuEngine(model, 2, 4, threads=1, separate=True), Dynamics(model, randomization)


def _write(engine: CpuEngine, dynamics: Dynamics, params: dict) -> mujoco.MjModel:
    """World 1's model after one reset with the given draws for it."""
    for field, values in dynamics.fields(params).items():
        engine.write(field, values, np.array([1]))
    if dynamics.needs_constants:
        engine.refresh(np.array([1]))
    return engine.models[1]


def _changed(edit) -> mujoco.MjModel:
    spec = mujoco.MjSpec.from_string(XML)
    edit(spec)
    return spec.compile()


def _assert_equal_dynamics(model: mujoco.MjModel, wanted: mujoco.MjModel) -> None:
    fields = [f for f in dir(wanted) if f.startswith(("body_", "dof_", "actuator_", "geom_", "jnt_"))
              and isinstance(getattr(wanted, f), np.ndarray) and getattr(wanted, f).dtype == np.float64]  # fmt: skip
    assert {"body_invweight0", "dof_M0", "dof_invweight0", "body_subtreemass", "actuator_acc0"} <= set(fields)
    for field in fields:
        np.testing.assert_allclose(getattr(model, field), getattr(wanted, field), rtol=1e-12, atol=1e-12, err_msg=field)


def _double_upper(spec: mujoco.MjSpec) -> None:
    spec.geom("upper").mass = 4.0


def test_scaling_a_mass_scales_inertia_and_derived_constants_like_a_fresh_compile():
    engine, dynamics = _engine(Term("m", "link_mass", "upper", range=(0.5, 2)))
    before = {f: getattr(engine.model, f).copy() for f in ("body_mass", "body_inertia", "dof_M0")}
    model = _write(engine, dynamics, {"m": np.array([[2.0]])})
    np.testing.assert_allclose(model.body_inertia[1], 2 * before["body_inertia"][1])
    _assert_equal_dynamics(model, _changed(_double_upper))
    for world in (engine.model, engine.models[0]):
        assert all(np.array_equal(getattr(world, f), value) for f, value in before.items())


def test_nothing_accumulates_over_five_resets():
    terms = (Term("m", "link_mass", ("upper", "lower"), range=(0.5, 2)), Term("g", "actuator_gain", "*", range=(1, 2)),
             Term("d", "joint_damping", ("shoulder", "elbow"), range=(0, 1), operation="add"))  # fmt: skip
    engine, dynamics = _engine(*terms)
    first = None
    for _ in range(5):
        model = _write(
            engine, dynamics, {"m": np.full((1, 2), 1.5), "g": np.full((1, 2), 1.2), "d": np.full((1, 2), 0.3)}
        )
        now = {f: getattr(model, f).copy() for f in (*dynamics.defaults, "dof_M0", "body_invweight0")}
        first = first or now
        assert all(np.array_equal(now[f], first[f]) for f in now)
    np.testing.assert_allclose(model.body_mass[1:3], 1.5 * engine.model.body_mass[1:3])
    np.testing.assert_allclose(model.dof_damping[:2], engine.model.dof_damping[:2] + 0.3)


def test_a_payload_moves_mass_centre_and_inertia_of_the_body_that_carries_it():
    engine, dynamics = _engine(Term("p", "payload", "tip", range=(0, 1), operation="set"))
    model = _write(engine, dynamics, {"p": np.array([[0.5]])})

    def by_hand(spec: mujoco.MjSpec) -> None:
        spec.body("lower").add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[PAYLOAD_RADIUS, 0, 0], pos=[0.3, 0, 0],
                                    mass=0.5, contype=0, conaffinity=0)  # fmt: skip

    assert _mass_matrix(model) == pytest.approx(_mass_matrix(_changed(by_hand)), rel=1e-12)
    assert _bias(model) == pytest.approx(_bias(_changed(by_hand)), rel=1e-12)
    model = _write(engine, dynamics, {"p": np.array([[0.0]])})
    assert _mass_matrix(model) == pytest.approx(_mass_matrix(_changed(lambda spec: None)), rel=1e-12)


def _mass_matrix(model: mujoco.MjModel) -> np.ndarray:
    data, full = _posed(model), np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, full, data.qM)
    return full[:2, :2].ravel()


def _bias(model: mujoco.MjModel) -> np.ndarray:
    return _posed(model).qfrc_bias[:2].copy()


def _posed(model: mujoco.MjModel) -> mujoco.MjData:
    data = mujoco.MjData(model)
    data.qpos[:2], data.qvel[:2] = (0.4, -0.9), (1.0, -2.0)
    mujoco.mj_forward(model, data)
    return data


def test_a_gain_takes_its_bias_along_and_a_motor_has_none():
    engine, dynamics = _engine(Term("g", "actuator_gain", "*", range=(0.5, 2)))
    model = _write(engine, dynamics, {"g": np.array([[1.5, 1.5]])})
    np.testing.assert_allclose(model.actuator_gainprm[:, 0], [150, 1.5])
    np.testing.assert_allclose(model.actuator_biasprm[:, :3], [[0, -150, -10], [0, 0, 0]])


def test_actuator_damping_is_a_term_of_its_own():
    engine, dynamics = _engine(Term("kv", "actuator_damping", "servo", range=(0.5, 2)))
    model = _write(engine, dynamics, {"kv": np.array([[2.0]])})
    np.testing.assert_allclose(model.actuator_biasprm[0, :3], [0, -100, -20])


@pytest.mark.parametrize(
    ("what", "target", "field", "row", "default"),
    [("joint_friction", "shoulder", "dof_frictionloss", 0, 0.1), ("joint_damping", "elbow", "dof_damping", 1, 0.3),
     ("joint_armature", "shoulder", "dof_armature", 0, 0.05), ("geom_friction", "ball", "geom_friction", 3, 1.0)],
)  # fmt: skip
@pytest.mark.parametrize(
    ("operation", "result"), [("scale", lambda x: 3 * x), ("add", lambda x: x + 3), ("set", lambda x: 3)]
)
def test_each_field_is_written_where_it_was_named(what, target, field, row, default, operation, result):
    engine, dynamics = _engine(Term("t", what, target, range=(1, 3), operation=operation))
    model = _write(engine, dynamics, {"t": np.array([[3.0]])})
    changed, original = getattr(model, field), getattr(engine.model, field).copy()
    where = (row, 0) if changed.ndim == 2 else row
    assert original[where] == pytest.approx(default) and changed[where] == pytest.approx(result(default))
    original[where] = changed[where]
    assert np.array_equal(changed, original)


def test_terms_on_the_same_field_apply_in_order():
    engine, dynamics = _engine(Term("all", "link_mass", ("upper", "lower"), range=(1, 2)),
                               Term("more", "link_mass", "lower", range=(0, 1), operation="add"))  # fmt: skip
    model = _write(engine, dynamics, {"all": np.array([[2.0, 2.0]]), "more": np.array([[0.5]])})
    np.testing.assert_allclose(model.body_mass[1:3], [4.0, 2.5])
    np.testing.assert_allclose(model.body_inertia[2], 2.5 * engine.model.body_inertia[2])


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Term("t", "joint_damping", "sholder", range=(1, 2)), "'t': unknown joint 'sholder'; did you mean shoulder"),
        (Term("t", "link_mass", "finger*", range=(1, 2)), "'t': unknown body 'finger.*known: ball, lower, upper"),
        (Term("t", "actuator_gain", "motr", range=(1, 2)), "'t': unknown actuator 'motr'; did you mean motor"),
        (Term("t", "payload", "tipp", range=(1, 2), operation="set"), "'t': unknown place 'tipp'; did you mean tip"),
        (Term("t", "joint_damping", "ball", range=(1, 2)), "'t': unknown joint 'ball'"),
        (Term("t", "joint_friction", "elbow", range=(1, 2)), "'t': joint_friction is 0 by default.*use add or set"),
        (Term("t", "link_mass", "ball", range=(-0.5, 0), operation="add"), "'t': adding -0.5 .* gives -0.3 kg"),
    ],
)  # fmt: skip
def test_a_term_that_does_not_fit_the_model_is_refused(term, message):
    with pytest.raises(UsageError, match=message):
        _engine(term)
