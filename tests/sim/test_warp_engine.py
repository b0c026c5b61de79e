"""The GPU engine, on Warp's CPU device: its states are the CPU engine's within float32, world by world."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from poise.sim.cpu import CpuEngine, compile_physics
from poise.sim.dynamics import Dynamics
from poise.sim.make import load_task
from poise.sim.physics_terms import prepare
from poise.sim.randomization import Randomization, Term
from poise.sim.stepping import SteppingEngine
from poise.sim.task import Key
from poise.sim.warp_engine import WarpEngine

N = 4
EVERYONE = torch.ones(N, dtype=torch.bool)
READS = ("xpos", "xquat", "xmat", "subtree_com", "cinert", "cvel", "qfrc_actuator", "cfrc_ext", "qfrc_constraint")
ARM = Randomization((
    Term("mass", "link_mass", ("fr3_link*",), range=(0.8, 1.2)),
    Term("com", "body_com", ("fr3_link5",), range=(-0.02, 0.02), operation="add"),
    Term("payload", "payload", ("fr3_link7",), range=(0.0, 1.0), operation="set"),
    Term("friction", "joint_friction", ("fr3_joint*",), range=(0.0, 0.5), operation="set"),
    Term("damping", "joint_damping", ("fr3_joint*",), range=(0.0, 1.0), operation="add"),
    Term("armature", "joint_armature", ("fr3_joint*",), range=(0.8, 1.3)),
    Term("spring", "joint_stiffness", ("fr3_joint2",), range=(0.0, 5.0), operation="set"),
    Term("limit", "joint_limit", ("fr3_joint4",), range=(-0.1, 0.1), operation="add"),
    Term("gain", "actuator_gain", "*", range=(0.8, 1.2)),
    Term("kv", "actuator_damping", "*", range=(0.8, 1.2)),
    Term("strength", "motor_strength", "*", range=(0.7, 1.0)),
    Term("gravity", "gravity", range=(-0.5, 0.5), operation="add"),
    Term("timestep", "timestep", range=(0.9, 1.1)),
    Term("offset", "joint_offset", ("fr3_joint1",), range=(-0.05, 0.05), operation="set"),
))  # fmt: skip
CUBE = Randomization((
    Term("cube mass", "link_mass", ("object",), range=(0.5, 2.0)),
    Term("cube friction", "geom_friction", ("object",), range=(0.5, 1.5)),
    Term("cube size", "geom_size", ("object",), range=(0.8, 1.2)),
))  # fmt: skip
RUNNER = Randomization((
    Term("mass", "link_mass", "*", range=(0.8, 1.2)),
    Term("floor", "geom_friction", ("floor",), range=(0.5, 1.5)),
))  # fmt: skip


def built(name: str, randomization: Randomization, reads=(), contacts=None, seed=0):
    """A task's model on both engines, in the same drawn worlds, in the same starting states."""
    task = load_task(name)
    description = task.model()
    description.option.timestep = task.physics_dt
    prepare(description, randomization)
    model = compile_physics(description)
    dynamics = Dynamics(model, randomization, task.spec)
    substeps = round(task.spec.control_dt / task.physics_dt)
    theirs = SteppingEngine(model, N, substeps, 1, bool(dynamics.defaults), reads) if reads else CpuEngine(
        model, N, substeps, 1, bool(dynamics.defaults))  # fmt: skip
    ours = WarpEngine(model, N, substeps, "cpu", tuple(dynamics.defaults), reads, contacts)
    it = SimpleNamespace(task=task, model=model, dynamics=dynamics, theirs=theirs, ours=ours, substeps=substeps)
    begin(it, seed)
    return it


def begin(it, seed=0):
    """Draw worlds and starting states anew, for both."""
    key = Key(seed, np.arange(N), np.zeros(N, np.int64))
    params = it.dynamics.draw(seed, key.worlds, key.episodes)
    if fields := it.dynamics.fields(params):
        it.theirs.write(fields, np.arange(N))
        it.ours.write(fields, EVERYONE)
    it.qpos, it.qvel, _ = it.task.reset(key, params)
    it.theirs.set_state(np.arange(N), it.qpos, it.qvel)
    it.ours.set_state(EVERYONE, *floats(it.qpos, it.qvel))
    it.rng = np.random.default_rng(seed)


def floats(*arrays):
    return [torch.as_tensor(array, dtype=torch.float32) for array in arrays]


def command(it, spread: float) -> np.ndarray:
    """Another command in every substep (N, S, U): around where the joints stand, or around zero for motors."""
    m = it.model
    held = it.qpos[:, None, m.jnt_qposadr[m.actuator_trnid[:, 0]]] * m.actuator_biasprm[:, 1].any()
    return held + it.rng.normal(0, spread, (N, it.substeps, m.nu))


def step(it, spread=0.1, wrench=None) -> tuple[float, float]:
    """One control period on both; how far positions and velocities part."""
    ctrl = command(it, spread)
    assert it.theirs.step(ctrl, wrench) is None
    assert not it.ours.step(*floats(ctrl), None if wrench is None else floats(wrench)[0]).any()
    return tuple(float(np.abs(getattr(it.theirs, x) - getattr(it.ours, x).numpy()).max()) for x in ("qpos", "qvel"))


@pytest.fixture(scope="session")
def reach():
    return built("reach/fr3", ARM)


@pytest.fixture(scope="session")
def lift():
    return built("lift/fr3", CUBE)


@pytest.fixture(scope="session")
def runner():
    return built("HalfCheetah-v5", RUNNER, READS)


def test_an_arm_with_every_joint_term_moves_as_on_the_cpu_engine(reach):
    begin(reach)
    for _ in range(20):
        qpos, qvel = step(reach)
        assert qpos < 2e-5 and qvel < 5e-4
        assert np.abs(reach.theirs.time - reach.ours.time.numpy()).max() < 1e-6
    assert len(set(reach.ours.time.tolist())) == N  # each has its own time step
    assert not reach.ours.overflow.any()


def test_a_cube_of_any_size_mass_and_friction_lands_as_on_the_cpu_engine(lift):
    begin(lift)
    for _ in range(20):
        qpos, qvel = step(lift, 0.02)
        assert qpos < 1e-3 and qvel < 2e-2
    assert qpos < 1e-4 and qvel < 1e-3  # at rest
    assert not lift.ours.overflow.any()


def test_a_runner_falls_and_moves_as_on_the_cpu_engine(runner):
    begin(runner)
    for _ in range(10):
        qpos, qvel = step(runner, 0.3)
        assert qpos < 5e-5 and qvel < 5e-3
