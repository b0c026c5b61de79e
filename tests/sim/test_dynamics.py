"""Randomization in a MuJoCo model: against models compiled with the changed values, never against our own code."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from poise.errors import UsageError
from poise.sim.cpu import CpuEngine, compile_physics
from poise.sim.dynamics import Dynamics, writable
from poise.sim.physics_terms import PAYLOAD_RADIUS, prepare
from poise.sim.randomization import Randomization, Term

from .two_link import XML


def _engine(*terms: Term) -> tuple[CpuEngine, Dynamics]:
    spec = mujoco.MjSpec.from_string(XML)
    randomization = Randomization(terms)
    prepare(spec, randomization)
    model = compile_physics(spec)
    return CpuEngine(model, 2, 4, threads=1, separate=True), Dynamics(model, randomization)


def _write(engine: CpuEngine, dynamics: Dynamics, params: dict) -> mujoco.MjModel:
    """World 1's model after one reset with the given draws for it."""
    engine.write(dynamics.fields(params), np.array([1]))
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


def _shift_com(spec: mujoco.MjSpec) -> None:
    for name, shift in (("upper", [0.02, -0.01, 0.03]), ("ball", [0.01, 0.02, -0.03])):
        mass = {"upper": 2.0, "ball": 0.2}[name]
        compiled = mujoco.MjSpec.from_string(XML).compile().body(name)
        body = spec.body(name)
        body.explicitinertial, body.mass, body.ipos = True, mass, compiled.ipos + shift
        body.inertia, body.iquat = compiled.inertia, compiled.iquat
        if name == "ball":
            body.add_body(name="never simple")


def test_a_moved_centre_of_mass_gives_the_dynamics_of_a_fresh_compile():
    """Joints, a capsule drawn in its inertial frame and a free ball that MuJoCo takes for simple."""
    engine, dynamics = _engine(Term("c", "body_com", ("upper", "ball"), range=(-0.1, 0.1), operation="add"))
    drawn = np.array([[0.02, -0.01, 0.03, 0.01, 0.02, -0.03]])
    model, wanted = _write(engine, dynamics, {"c": drawn}), _changed(_shift_com)
    for field in ("body_ipos", "body_inertia", "geom_pos", "geom_quat"):
        np.testing.assert_allclose(getattr(model, field)[:3], getattr(wanted, field)[:3], atol=1e-12)
    for field in ("dof_invweight0", "dof_M0", "actuator_acc0"):
        np.testing.assert_allclose(getattr(model, field), getattr(wanted, field), rtol=1e-12, err_msg=field)
    assert model.stat.meaninertia == pytest.approx(wanted.stat.meaninertia, rel=1e-12)
    _assert_same_motion(model, wanted)


def _assert_same_motion(
    model: mujoco.MjModel, wanted: mujoco.MjModel, steps: int = 200, tolerance: float = 1e-9
) -> None:
    """Falling, swinging, touching the table."""
    a, b = mujoco.MjData(model), mujoco.MjData(wanted)
    for data, m in ((a, model), (b, wanted)):
        data.qpos[:2], data.qvel[:2] = (0.4, -0.9), (1.0, -2.0)
        data.qvel[2:] = 0.3, 0.1, -0.2, 1.0, -2.0, 0.5
        data.ctrl[:] = 0.3, 0.2
        mujoco.mj_step(m, data, nstep=steps)
    assert a.ncon > 0 and np.ptp(a.qpos) > 0.1
    np.testing.assert_allclose(a.qpos, b.qpos, rtol=0, atol=tolerance)
    np.testing.assert_allclose(a.geom_xpos, b.geom_xpos, rtol=0, atol=tolerance)


def test_adding_zero_and_scaling_by_one_change_nothing():
    whats = {"body_com": ("add", ("upper", "ball")), "link_mass": ("scale", "*"), "geom_size": ("scale", "ball"),
             "gravity": ("add", ()), "timestep": ("scale", ()), "joint_offset": ("set", ("shoulder", "elbow")),
             "joint_stiffness": ("add", "shoulder"), "payload": ("set", "tip"), "actuator_gain": ("scale", "*")}  # fmt: skip
    value = {"scale": 1.0, "add": 0.0, "set": 0.0}
    engine, dynamics = _engine(*(Term(what, what, target, range=(value[operation],) * 2, operation=operation)
                                 for what, (operation, target) in whats.items()))  # fmt: skip
    model = _write(engine, dynamics, dynamics.draw(0, 0, 0))
    _assert_same_motion(model, mujoco.MjModel.from_xml_string(XML), tolerance=1e-11)


STRONG = XML.replace('kv="10"/>', 'kv="10" forcerange="-5 8"/>').replace(
    'name="elbow" axis="0 1 0"', 'name="elbow" axis="0 1 0" range="-90 120" actuatorfrcrange="-3 3"')  # fmt: skip


def test_joint_limits_move_outwards_by_a_number_each_or_scale_about_their_middle():
    low, high = np.radians([-90.0, 120.0])
    model = mujoco.MjModel.from_xml_string(STRONG)
    add = Dynamics(model, Randomization((Term("t", "joint_limit", "elbow", range=(-0.1, 0.2), operation="add"),)))
    np.testing.assert_allclose(add.fields({"t": np.array([[0.1, -0.05]])})["jnt_range"][0, 1], [low - 0.1, high - 0.05])
    scale = Dynamics(model, Randomization((Term("t", "joint_limit", "elbow", range=(0.5, 2)),)))
    middle, half = (low + high) / 2, (high - low) / 2
    np.testing.assert_allclose(scale.fields({"t": np.array([[0.5, 2.0]])})["jnt_range"][0, 1],
                               [middle - 0.5 * half, middle + 2 * half])  # fmt: skip


def test_motor_strength_scales_the_limits_of_actuators_and_of_their_joints():
    model = mujoco.MjModel.from_xml_string(STRONG)
    dynamics = Dynamics(model, Randomization((Term("t", "motor_strength", "*", range=(0.5, 1)),)))
    fields = dynamics.fields({"t": np.array([[0.5, 0.8]])})
    np.testing.assert_allclose(fields["actuator_forcerange"][0], [[-2.5, 4], [0, 0]])
    np.testing.assert_allclose(fields["jnt_actfrcrange"][0, :2], [[0, 0], [-2.4, 2.4]])


def test_a_joint_without_a_spring_gets_one():
    engine, dynamics = _engine(Term("t", "joint_stiffness", "elbow", range=(0, 9), operation="add"))
    assert _write(engine, dynamics, {"t": np.array([[7.0]])}).jnt_stiffness.tolist() == [0, 7, 0]


def test_gravity_is_a_vector_and_a_time_step_keeps_the_number_of_steps():
    terms = (Term("g", "gravity", range=(-1, 1), operation="add"), Term("dt", "timestep", range=(0.5, 2)))
    engine, dynamics = _engine(*terms)
    model = _write(engine, dynamics, {"g": np.array([[0.1, -0.2, 0.3]]), "dt": np.array([[1.5]])})
    np.testing.assert_allclose(model.opt.gravity, [0.1, -0.2, -9.51])
    assert model.opt.timestep == pytest.approx(0.0075) and engine.models[0].opt.timestep == 0.005
    assert engine.step(np.zeros((2, 4, 2))) is None  # neither world is taken for broken
    np.testing.assert_allclose(engine.time, [0.02, 0.03])
    engine.state[1, 1] = np.nan
    assert engine.step(np.zeros((2, 4, 2))).tolist() == [1]


def test_a_larger_ball_keeps_its_mass_and_is_touched_where_it_is():
    engine, dynamics = _engine(Term("s", "geom_size", "ball", range=(0.5, 2)))
    model = _write(engine, dynamics, {"s": np.array([[1.5]])})

    def larger(spec: mujoco.MjSpec) -> None:
        spec.geom("ball").size = [0.15, 0, 0]

    _assert_equal_dynamics(model, _changed(larger))
    _assert_same_motion(model, _changed(larger), tolerance=1e-12)


def test_boxes_for_the_midphase_do_not_hide_contacts_of_a_moved_or_larger_body():
    """Two geoms a body, far from the default's centre of mass or size: MuJoCo's boxes would miss the contact."""
    two = '<geom name="{0}1" type="sphere" size=".1" pos="-.4 0 0"/><geom name="{0}2" type="sphere" size=".1" pos=".4 0 0"/>'
    xml = f"""<mujoco><worldbody><body name="shelf">{two.format("shelf")}</body>
        <body name="bar" pos="0 0 .19"><freejoint/>{two.format("bar")}</body></worldbody></mujoco>"""
    for term, drawn in ((Term("t", "body_com", "bar", range=(-2, 2), operation="add"), [[0, 0, 2.0]]),
                        (Term("t", "geom_size", "shelf*", range=(1, 3)), [[2.0, 2.0]])):  # fmt: skip
        spec = mujoco.MjSpec.from_string(xml.replace(".19", ".28") if term.what == "geom_size" else xml)
        prepare(spec, Randomization((term,)))
        engine = CpuEngine(spec.compile(), 2, 1, threads=1, separate=True)
        model = _write(engine, Dynamics(engine.model, Randomization((term,))), {"t": np.array(drawn)})
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        assert data.ncon == 2, term.what


def test_an_offset_shifts_what_a_servo_aims_at_through_any_gain():
    terms = (Term("o", "joint_offset", ("shoulder", "elbow"), range=(-0.2, 0.2), operation="set"),
             Term("g", "actuator_gain", "servo", range=(1, 2)))  # fmt: skip
    engine, dynamics = _engine(*terms)
    model = _write(engine, dynamics, {"o": np.array([[0.1, -0.2]]), "g": np.array([[2.0]])})
    model.opt.gravity[:] = 0
    data = mujoco.MjData(model)
    data.ctrl[0] = 0.5
    mujoco.mj_step(model, data, nstep=3000)
    assert data.qpos[0] == pytest.approx(0.6, abs=2e-3)
    np.testing.assert_allclose(model.actuator_biasprm[1], 0)  # a motor knows no angle


def test_what_a_compiled_model_can_take_is_told_by_name():
    terms = (Term("m", "link_mass", "*", range=(1, 2)), Term("p", "payload", "tip", range=(0, 1), operation="set"),
             Term("g", "gravity", range=(-1, 1), operation="add"),
             Term("l", "action_latency", range=(0, 1), operation="set"))  # fmt: skip
    assert writable(Randomization(terms)) == (["m", "g"], ["p", "l"])


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
        (Term("t", "geom_size", "table", range=(1, 2)), "'t': geom 'table' is a plane; what can change its size: sph"),
        (Term("t", "joint_limit", "elbow", range=(1, 2)), "'t': joint 'elbow' has no limits"),
        (Term("t", "motor_strength", "motor", range=(1, 2)), "'t': actuator 'motor' has no force limit; .*gain"),
        (Term("t", "joint_stiffness", "elbow", range=(1, 2)), "'t': joint_stiffness is 0 by default"),
    ],
)  # fmt: skip
def test_a_term_that_does_not_fit_the_model_is_refused(term, message):
    with pytest.raises(UsageError, match=message):
        _engine(term)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (Term("a", "link_mass", "ball", range=(0.2, 1.0)),  # 0.2 kg
         Term("b", "link_mass", "ball", range=(-0.1, 0.0), operation="add"), "'a', 'b' can draw a body_mass of -0.06 "),
        (Term("a", "joint_damping", "elbow", range=(-0.2, 0.0), operation="add"),  # 0.3 N m s/rad
         Term("b", "joint_damping", "elbow", range=(-0.2, 0.0), operation="add"), "can draw a dof_damping of -0.1 "),
    ],
)  # fmt: skip
def test_terms_that_are_valid_each_and_not_together_are_refused(first, second, message):
    with pytest.raises(UsageError, match=message):
        _engine(first, second)
    for alone in (first, second, replace(second, range=(-0.01, 0.0))):
        _engine(alone)
    _engine(first, replace(second, range=(-0.01, 0.0)))
