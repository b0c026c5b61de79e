"""What an environment is made of serves torch on a device as it serves numpy: equal numbers, and nothing unrecordable."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from poise.sim.actuation import ActionFaults, Backlash
from poise.sim.commands import Commands
from poise.sim.delay_line import DelayLine
from poise.sim.dynamics import Dynamics
from poise.sim.kicks import Kicks
from poise.sim.physics_terms import prepare
from poise.sim.pushes import Pushes
from poise.sim.randomization import Randomization, Term
from poise.sim.readings import Readings
from poise.sim.rows import some
from poise.sim.schedule import Schedule
from poise.sim.sensing import Sensors
from poise.sim.warp_device import require_warp
from poise.sim.white import White
from poise.spec import ActionTerm, ObsTerm, Spec
from tests.capturable import only_capturable

from .side_by_side import CPU, MODEL, SEED, SOURCE, STEPS, N, assert_equal_runs, first_moment

DT = 0.02  # [s] four physics steps
SPEC = Spec(
    {"state": (ObsTerm("angles", (3,)), ObsTerm("turn", (2, 2)), ObsTerm("far", (1,)))},
    (ActionTerm("cart", "joint_pos", ("cart",), (-0.8,), (0.8,), (0.2,), "last_target", (0.0,), (0.5,), (3.0,), (30.0,)),
     ActionTerm("wheel", "joint_pos", ("wheel",), (-2.0,), (2.0,), (0.5,), "measured", (0.0,), (0.7,), (4.0,), (20.0,)),
     ActionTerm("pole", "control", ("pole",), (-3.0,), (1.0,))),
    control_dt=DT,
)  # fmt: skip


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"], autouse=True)
def precision(request):
    """float64 equals numpy nearly to the bit; in float32 kernels of Warp stand for torch where there are some."""
    require_warp("cpu")
    torch.set_default_dtype(request.param)
    yield
    torch.set_default_dtype(torch.float32)


def _set(name: str, what: str, *target: str, low: float, high: float, **more) -> Term:
    return Term(name, what, target, range=(low, high), operation="set", **more)


def _params(dynamics: Dynamics, moment):
    """Of all worlds' present episodes; for the tests' purpose drawn anew each time."""
    return dynamics.draw(SEED, moment.key.worlds, moment.key.episodes, _draws(moment, dynamics))


def _draws(moment, dynamics):
    return {t.name: moment.steps // 7 for t in dynamics.randomization.terms if t.when == "interval"}


@pytest.mark.parametrize("interpolate", [True, False])
def test_a_delay_line(interpolate):
    def make(device):
        return {"line": DelayLine(N, 3, 2.5, interpolate, device=device)}

    def begin(parts, moment):
        parts["line"].begin(moment.rows, moment.begun("reading"))
        return {}

    def step(parts, moment):
        parts["line"].push(moment.inputs["reading"])
        return {"late": parts["line"].read(moment.inputs["lag"])}

    assert_equal_runs(make, begin, step, lambda rng: {"reading": rng.normal(size=(N, 3)),
                                                      "lag": rng.uniform(0.0, 2.5, N)})  # fmt: skip


def test_a_lag_that_float32_rounds_beyond_the_longest_is_the_longest():
    line = DelayLine(1, 1, 2.0, interpolate=True, device=CPU)
    line.begin(torch.ones(1, dtype=torch.bool), torch.zeros(1, 1))
    for reading in (1.0, 2.0, 3.0):
        line.push(torch.full((1, 1), reading))
    assert line.read(torch.tensor([2.0 + 2.0**-20])).item() == 1.0


def test_white_noise():
    def make(device):
        white = White(N, device)
        channels = {"noise": white.normal("noise", 3), "chance": white.uniform("chance", 1)}
        white.seed(SEED)
        return {"white": white, **channels}

    def begin(parts, moment):
        key = moment.key.some(moment.rows)
        parts["white"].prepare(moment.rows, key.worlds, key.episodes, some(moment.steps, moment.rows))
        return {name: parts[name].at(some(moment.steps, moment.rows), moment.rows) for name in ("noise", "chance")}

    def step(parts, moment):
        parts["white"].follow(moment.key.worlds, moment.key.episodes, moment.steps)
        return {name: parts[name].at(moment.steps) for name in ("noise", "chance")}

    assert_equal_runs(make, begin, step, lambda rng: {})


OFTEN = {"when": "interval", "interval": (0.06, 0.2)}


def test_a_schedule_with_pushes_and_kicks():
    terms = (_set("push", "push_force", "cart", "ball", low=1, high=5, duration=0.06, **OFTEN),
             _set("twist", "push_torque", "ball", low=1, high=5, duration=0.1, **OFTEN),
             _set("shove", "kick_velocity", "ball", low=0.1, high=1, **OFTEN),
             _set("spin", "kick_spin", "ball", low=0.1, high=1, **OFTEN),
             _set("jerk", "kick_joint", "cart", "wheel", low=-1, high=1, **OFTEN))  # fmt: skip
    randomization = Randomization(terms)

    def make(device):
        return {"schedule": Schedule(randomization, N, DT, device), "kicks": Kicks(MODEL, randomization, N, device),
                "pushes": Pushes(MODEL, randomization, N, DT, device),
                "dynamics": Dynamics(MODEL, randomization, device=device)}  # fmt: skip

    def begin(parts, moment):
        parts["schedule"].begin(moment.rows, moment.key.some(moment.rows))
        parts["pushes"].begin(moment.rows)
        return parts["schedule"].draws(moment.rows)

    def step(parts, moment):
        due = parts["schedule"].due(moment.steps, moment.key)
        draws = parts["schedule"].draws(torch.ones(N, dtype=torch.bool) if parts["kicks"]._device else np.arange(N))
        params = parts["dynamics"].draw(SEED, moment.key.worlds, moment.key.episodes, draws)
        parts["pushes"].start(due, moment.steps, moment.key, draws, params)
        kick, wrench = parts["kicks"].change(due, moment.key, draws, params), parts["pushes"].wrench(moment.steps)
        nothing = {"kick": np.zeros((N, MODEL.nv)), "wrench": np.zeros((N, MODEL.nbody, 6))}
        found = {"kick": kick, "wrench": wrench}
        return {**draws, **{name: nothing[name] if value is None else value for name, value in found.items()}}

    seen = assert_equal_runs(make, begin, step, lambda rng: {})
    assert all(any(moment[name].any() for moment in seen) for name in ("kick", "wrench", "push", "spin"))


def test_sensors():
    terms = (_set("offset", "joint_offset", "cart", "wheel", low=-0.1, high=0.1),
             _set("bias", "joint_pos_bias", "pole", low=-0.1, high=0.1),
             _set("noise", "joint_pos_noise", "cart", "pole", low=0.01, high=0.1),
             _set("hum", "joint_vel_noise", "cart", "wheel", low=0.01, high=0.1),
             _set("late", "joint_delay", "cart", "wheel", low=0.0, high=0.05),
             _set("lost", "joint_dropout", "*", low=0.1, high=0.4))  # fmt: skip
    randomization = Randomization(terms)

    def make(device):
        dynamics, white = Dynamics(MODEL, randomization, device=device), White(N, device)
        sensors = Sensors(dynamics, N, white, DT, device)
        white.seed(SEED)
        return {"sensors": sensors, "white": white, "dynamics": dynamics}

    def begin(parts, moment):
        key = moment.key.some(moment.rows)
        parts["white"].prepare(moment.rows, key.worlds, key.episodes, some(moment.steps, moment.rows))
        params = _params(parts["dynamics"], moment)
        measured = parts["sensors"].begin(moment.rows, moment.begun("qpos"), moment.begun("qvel"), params)
        return dict(zip(("qpos", "qvel"), measured, strict=True))

    def step(parts, moment):
        parts["white"].follow(moment.key.worlds, moment.key.episodes, moment.steps)
        last = moment.inputs["last_qpos"], moment.inputs["last_qvel"]
        qpos, qvel, params = moment.inputs["qpos"], moment.inputs["qvel"], _params(parts["dynamics"], moment)
        measured = parts["sensors"].measure(qpos, qvel, moment.steps, params, last)
        return dict(zip(("qpos", "qvel"), measured, strict=True))

    assert_equal_runs(make, begin, step, lambda rng: {
        name: rng.normal(size=(N, MODEL.nq if "qpos" in name else MODEL.nv))
        for name in ("qpos", "qvel", "last_qpos", "last_qvel")})  # fmt: skip


def test_readings():
    terms = (_set("late", "obs_delay", "turn", low=0.0, high=0.05), _set("lost", "obs_dropout", "*", low=0.1, high=0.4),
             _set("more", "obs_dropout", "turn", low=0.1, high=0.4),
             _set("bias", "obs_bias", "angles", "turn", low=-1, high=1),
             _set("noise", "obs_noise", "angles", "far", low=0.1, high=1.0))  # fmt: skip
    randomization = Randomization(terms)

    def make(device):
        white = White(N, device)
        readings = Readings(SPEC, randomization, N, white, device)
        white.seed(SEED)
        return {"readings": readings, "white": white, "dynamics": Dynamics(MODEL, randomization, SPEC, device)}

    def begin(parts, moment):
        key = moment.key.some(moment.rows)
        parts["white"].prepare(moment.rows, key.worlds, key.episodes, some(moment.steps, moment.rows))
        readings = {name: moment.begun(name) for name in moment.inputs}
        return parts["readings"].begin(moment.rows, readings, _params(parts["dynamics"], moment))

    def step(parts, moment):
        parts["white"].follow(moment.key.worlds, moment.key.episodes, moment.steps)
        return parts["readings"].report(moment.inputs, moment.steps, _params(parts["dynamics"], moment))

    assert_equal_runs(make, begin, step, lambda rng: {
        "angles": rng.normal(size=(N, 3)), "turn": rng.normal(size=(N, 2, 2)), "far": rng.normal(size=(N, 1))
    })  # fmt: skip


def test_commands_with_latency_faults_and_backlash():
    terms = (_set("latency", "action_latency", low=0.0, high=0.03), _set("hop", "action_hold", low=0.1, high=0.4),
             _set("noise", "action_noise", low=0.1, high=0.3), _set("slack", "backlash", "cart", "wheel", low=0.01,
                                                                    high=0.05))  # fmt: skip
    randomization = Randomization(terms)

    def make(device):
        dynamics, white = Dynamics(MODEL, randomization, device=device), White(N, device)
        faults = ActionFaults(randomization, N, SPEC.action_dim, white, device)
        white.seed(SEED)
        return {"commands": Commands(SPEC, MODEL, N, 4, dynamics.longest_delay(0.005), device), "faults": faults,
                "white": white, "dynamics": dynamics, "backlash": Backlash(MODEL, randomization, N, device)}  # fmt: skip

    def begin(parts, moment):
        key = moment.key.some(moment.rows)
        parts["white"].prepare(moment.rows, key.worlds, key.episodes, some(moment.steps, moment.rows))
        rest = parts["commands"].reset(moment.rows, moment.begun("qpos"))
        parts["backlash"].begin(moment.rows, rest)
        return {"rest": rest}

    def step(parts, moment):
        params = _params(parts["dynamics"], moment)
        action = parts["faults"].apply(moment.inputs["action"], moment.steps, params)
        delay = parts["dynamics"].delay(params, 0.005)
        ctrl = parts["backlash"].apply(parts["commands"].step(action, moment.inputs["qpos"], delay), params)
        return {"action": action, "ctrl": ctrl, "delay": delay, **parts["commands"].target}

    assert_equal_runs(make, begin, step, lambda rng: {"action": rng.uniform(-1, 1, (N, SPEC.action_dim)),
                                                      "qpos": rng.normal(size=(N, MODEL.nq))})  # fmt: skip


def _everything() -> Randomization:
    """A term of every kind that changes a model, and some that meet on one field."""
    return Randomization((
        Term("mass", "link_mass", ("cart", "wheel"), range=(0.7, 1.3)),
        Term("more", "link_mass", "wheel", range=(0.0, 0.1), operation="add"),
        Term("centre", "body_com", ("pole", "ball"), range=(-0.01, 0.01), operation="add"),
        Term("load", "payload", "pole", range=(0.0, 1.0), operation="set"),
        Term("friction", "joint_friction", ("cart", "pole"), range=(0.0, 1.0), operation="set"),
        Term("damping", "joint_damping", "*", range=(0.5, 2.0), shared=True),
        Term("armature", "joint_armature", "pole", range=(0.5, 2.0)),
        Term("spring", "joint_stiffness", "pole", range=(0.5, 2.0)),
        Term("ends", "joint_limit", "pole", range=(0.9, 1.1)),
        Term("outwards", "joint_limit", ("cart", "pole"), range=(-0.1, 0.1), operation="add"),
        Term("offset", "joint_offset", ("cart", "wheel"), range=(-0.1, 0.1), operation="set"),
        Term("slide", "geom_friction", ("table", "ball"), range=(0.5, 1.5)),
        Term("size", "geom_size", ("ball", "wheel"), range=(0.9, 1.1)),
        Term("kp", "actuator_gain", "*", distribution="loguniform", range=(0.5, 2.0)),
        Term("kv", "actuator_damping", ("cart", "wheel"), range=(0.5, 2.0)),
        Term("weak", "motor_strength", ("cart", "pole"), range=(0.5, 1.0)),
        Term("down", "gravity", range=(-0.1, 0.1), operation="add"),
        Term("clock", "timestep", range=(0.9, 1.1)),
    ))  # fmt: skip


def test_every_field_of_a_model():
    randomization = _everything()
    spec = mujoco.MjSpec.from_string(SOURCE)
    prepare(spec, randomization)
    model = spec.compile()
    fields = {}
    for device in (None, CPU):
        dynamics, moment = Dynamics(model, randomization, device=device), first_moment(device)
        fields[device] = dynamics.fields(_params(dynamics, moment))
        assert set(fields[device]) == set(dynamics.defaults)
    flags = {"body_sameframe", "geom_sameframe", "site_sameframe", "opt.disableflags"}
    assert set(fields[CPU]) == set(fields[None]) - flags and flags < set(fields[None])
    for name, values in fields[CPU].items():
        assert values.dtype == torch.get_default_dtype() and values.is_contiguous()
        np.testing.assert_allclose(values, fields[None][name], rtol=1e-5, atol=1e-6, err_msg=name)
        assert not np.array_equal(fields[None][name][0], fields[None][name][1]), f"nothing varies {name}"
    with only_capturable():
        dynamics.fields(_params(dynamics, moment))


def test_the_kernel_of_commands_writes_what_torch_computes(monkeypatch):
    torch.set_default_dtype(torch.float32)
    rng, everyone = np.random.default_rng(0), torch.ones(N, dtype=torch.bool)
    there = [Commands(SPEC, MODEL, N, 4, 0, CPU)]
    monkeypatch.setattr("poise.sim.commands._kernels_serve", lambda device: False)
    there.append(Commands(SPEC, MODEL, N, 4, 0, CPU))
    start = torch.from_numpy(rng.normal(size=(N, MODEL.nq))).float()
    for commands in there:
        commands.reset(everyone, start)
    for _ in range(STEPS):
        action = torch.from_numpy(rng.uniform(-1, 1, (N, SPEC.action_dim))).float()
        kernel, series = (commands.step(action, start, torch.zeros(N)) for commands in there)
        torch.testing.assert_close(kernel, series, rtol=1e-5, atol=1e-5)
