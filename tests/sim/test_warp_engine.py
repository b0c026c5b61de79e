"""The GPU engine, on Warp's CPU device: its states are the CPU engine's within float32, world by world."""

import copy
import sys
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
import torch

from poise.errors import UsageError
from poise.sim.cpu import CpuEngine, compile_physics
from poise.sim.dynamics import Dynamics
from poise.sim.make import load_task
from poise.sim.physics_terms import prepare
from poise.sim.randomization import Randomization, Term
from poise.sim.stepping import SteppingEngine
from poise.sim.task import Key
from poise.sim.warp_constants import FIELDS
from poise.sim.warp_device import require_warp
from poise.sim.warp_engine import WarpEngine
from poise.sim.warp_fields import UNNEEDED
from tests.capturable import only_capturable

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


@pytest.mark.parametrize("task", ["reach", "lift", "runner"])
def test_constants_are_derived_in_every_world_as_mujoco_does(task, request):
    it = request.getfixturevalue(task)
    begin(it)
    models, model = it.theirs.models, it.ours._model
    for name in FIELDS:
        theirs = np.array([getattr(m, name) for m in models])
        assert np.allclose(getattr(model, name).numpy(), theirs, rtol=2e-4, atol=1e-5 * theirs.max(initial=1.0)), name
    assert np.allclose(model.stat.meaninertia.numpy(), [m.stat.meaninertia for m in models], rtol=1e-4)
    assert len({m.stat.meaninertia for m in models}) == N


def test_every_varied_field_is_in_the_device_model_row_by_row(reach):
    begin(reach)
    for name, view in reach.ours._fields.views.items():
        for world in range(N):
            owner = reach.theirs.models[world].opt if name.startswith("opt.") else reach.theirs.models[world]
            theirs = np.asarray(getattr(owner, name.removeprefix("opt.")))
            assert np.allclose(view[world].numpy(), theirs, rtol=1e-6, atol=1e-7), name
    assert reach.ours._fields.views.keys() == set(reach.dynamics.defaults) - UNNEEDED


def test_fields_are_written_where_the_mask_is_and_where_they_are_wanted(runner):
    mask = torch.tensor([False, True, False, True])
    before = {name: view.clone() for name, view in runner.ours._fields.views.items()}
    derived = torch.as_tensor(runner.ours._model.body_subtreemass.numpy().copy())
    runner.ours.write({name: 2 * view for name, view in before.items()}, mask, {"body_mass"})
    for name, view in runner.ours._fields.views.items():
        factor = 1 + mask * (name == "body_mass")
        assert torch.equal(view, before[name] * factor.view(-1, *[1] * (view.ndim - 1)))
    assert torch.allclose(torch.as_tensor(runner.ours._model.body_subtreemass.numpy()), derived * (1 + mask[:, None]))
    runner.ours.write(before, EVERYONE)


def test_some_worlds_begin_anew_and_the_others_stay_to_the_bit(runner):
    begin(runner)
    step(runner)
    before = runner.ours.state_dict()
    mask = torch.tensor([False, True, False, False])
    runner.ours.set_state(mask, *floats(runner.qpos + 0.1, runner.qvel + 0.2))
    after = runner.ours.state_dict()
    for world in (0, 2, 3):
        assert np.array_equal(after["state"][world], before["state"][world])
        assert all(np.array_equal(after["extra"][name][world], before["extra"][name][world]) for name in READS)
    assert runner.ours.time.tolist()[1] == 0.0
    assert torch.equal(runner.ours.qpos[1], floats(runner.qpos + 0.1)[0][1])
    assert not after["extra"]["cfrc_ext"][1].any()  # as mj_forward leaves it


def test_a_world_that_breaks_keeps_its_state_and_touches_no_other(runner):
    ends = []
    for broken in (False, True):
        begin(runner)
        step(runner, 0.3)
        before = runner.ours.state_dict()
        ctrl = torch.as_tensor(command(runner, 0.3), dtype=torch.float32)
        ctrl[2, 1] = torch.nan if broken else ctrl[2, 1]
        assert runner.ours.step(ctrl).tolist() == [False, False, broken, False]
        ends.append(runner.ours.state_dict())
    whole, hit = ends
    assert np.array_equal(hit["state"][2], before["state"][2])
    assert all(np.array_equal(hit["extra"][name][2], before["extra"][name][2]) for name in READS)
    for world in (0, 1, 3):
        assert np.array_equal(hit["state"][world], whole["state"][world])
        assert all(np.array_equal(hit["extra"][name][world], whole["extra"][name][world]) for name in READS)
    step(runner, 0.3)  # and it goes on
    runner.ours.set_state(EVERYONE, *floats(runner.qpos, runner.qvel + 2e6))
    assert runner.ours.step(torch.zeros_like(ctrl)).all()  # beyond what any simulation has


def test_a_push_acts_for_the_period_it_is_given_and_no_longer(reach):
    wrench = np.zeros((N, reach.model.nbody, 6))
    wrench[:, reach.model.body("fr3_link5").id] = (0.0, 30.0, 0.0, 0.0, 0.0, 5.0)
    begin(reach)
    for pushed in (True, True, False, False):
        qpos, qvel = step(reach, 0.1, wrench if pushed else None)
        assert qpos < 2e-5 and qvel < 5e-4


def test_a_kick_changes_velocities_at_once(reach):
    begin(reach)
    change = np.random.default_rng(3).normal(0, 0.3, (N, reach.model.nv))
    reach.theirs.kick(change)
    reach.ours.kick(floats(change)[0])
    assert np.allclose(reach.ours.qvel.numpy(), reach.theirs.qvel)
    qpos, qvel = step(reach)
    assert qpos < 2e-5 and qvel < 5e-4


def test_fields_to_read_are_those_of_mj_step_and_of_mj_forward_where_an_episode_begins(runner):
    begin(runner)
    for k in range(8):
        for name in READS:
            theirs, ours = runner.theirs.extra[name], runner.ours.extra[name].numpy()
            assert ours.shape == theirs.shape
            assert np.abs(ours - theirs).max() < 2e-3 * max(1.0, np.abs(theirs).max()), (name, k)
        step(runner, 0.3)
    assert np.abs(runner.theirs.extra["cfrc_ext"]).max() > 10.0  # its feet are on the ground


def test_a_row_alone_restores_a_world_to_the_bit(runner):
    begin(runner)
    for _ in range(6):
        step(runner, 0.3)
    saved, ctrl = runner.ours.state_dict(), floats(command(runner, 0.3))[0]
    runner.ours.step(ctrl)
    expected = runner.ours.state_dict()
    for _ in range(3):
        runner.ours.step(-ctrl)
    runner.ours.load_state_dict(saved)
    assert all(np.array_equal(runner.ours.state_dict()[key], saved[key]) for key in ("state", "overflow"))
    runner.ours.step(ctrl)
    assert np.array_equal(runner.ours.state_dict()["state"], expected["state"])
    assert all(np.array_equal(runner.ours.extra[name].numpy(), expected["extra"][name]) for name in READS)


def test_saved_worlds_of_another_size_or_with_other_fields_are_refused(runner):
    saved = runner.ours.state_dict()
    with pytest.raises(UsageError, match=r"the saved worlds have shape \(3, 19\), this engine \(4, 19\)"):
        runner.ours.load_state_dict({**saved, "state": saved["state"][:3]})
    with pytest.raises(UsageError, match="the saved worlds hold the fields none"):
        runner.ours.load_state_dict({**saved, "extra": {}})


def test_contacts_without_room_are_reported_until_a_world_begins_anew(runner):
    small = WarpEngine(runner.model, N, 5, "cpu", contacts=1)
    low = runner.model.qpos0 - np.eye(runner.model.nq)[1] * 0.3
    small.set_state(EVERYONE, *floats(np.repeat(low[None], N, axis=0), np.zeros((N, runner.model.nv))))
    assert small.overflows() == {}
    small.step(torch.zeros(N, 5, runner.model.nu))
    assert small.overflow.all()
    assert small.overflows()["broadphase"] == N
    mask = torch.tensor([True, False, False, False])
    small.set_state(mask, small.qpos, small.qvel)
    assert (small.overflow != 0).tolist() == [False, True, True, True]


def test_what_warp_has_no_twin_of_is_replaced_and_told(runner):
    asked = copy.copy(runner.model)
    asked.opt.solver, asked.opt.noslip_iterations = mujoco.mjtSolver.mjSOL_PGS, 3
    ours, theirs = WarpEngine(asked, N, 5, "cpu"), CpuEngine(runner.model, N, 5, 1)
    assert [note.split(",")[0] for note in ours.notes] == [
        "the constraint solver is Newton", "contacts may slip a little"]  # fmt: skip
    for engine in (ours, theirs):
        engine.step(torch.ones(N, 5, 6) if engine is ours else np.ones((N, 5, 6)))
    assert np.abs(ours.qpos.numpy() - theirs.qpos).max() < 1e-5
    assert asked.opt.solver == mujoco.mjtSolver.mjSOL_PGS  # the caller's model is as it was


def test_a_control_period_and_resets_could_be_part_of_a_cuda_graph(runner, reach):
    begin(runner)
    ctrl, mask, wrench = floats(command(runner, 0.3))[0], torch.tensor([True, False, True, False]), torch.zeros(N, 8, 6)
    fields = {name: view.clone() for name, view in runner.ours._fields.views.items()}
    with only_capturable():
        runner.ours.step(ctrl, wrench)
        runner.ours.write(fields, mask)
        runner.ours.set_state(mask, runner.ours.qpos, runner.ours.qvel)
        runner.ours.kick(torch.zeros_like(runner.ours.qvel))


def test_a_request_that_cannot_be_met_says_what_would_do(runner, monkeypatch):
    def refused(match, **changed):
        with pytest.raises(UsageError, match=match):
            WarpEngine(**{"model": runner.model, "num_envs": N, "num_substeps": 5, "device": "cpu", **changed})

    refused("at least one world and one substep, got 0 and 5", num_envs=0)
    refused("room for at least one contact, not 0", contacts=0)
    refused("unknown field that worlds can differ in: 'body_weight'; did you mean", varied=("body_weight",))
    refused("unknown MjData field in a task's reads: 'xpoz'; did you mean xpos", reads=("xpoz",))
    refused("unknown MjData field in a task's reads: 'qLD'", reads=("qLD",))
    refused("device should be cpu, cuda or cuda:NUMBER, not 'gpu'", device="gpu")
    refused("not on mps", device="mps")
    with pytest.raises(UsageError, match="cannot write geom_size, which all worlds share"):
        runner.ours.write({"geom_size": np.zeros((N, 9, 3))}, EVERYONE)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused("cuda was asked for, and torch finds no CUDA GPU that it can use", device="cuda")
    monkeypatch.setattr("poise.sim.warp_room.free_memory", lambda device: 2**20)
    refused(r"100000 worlds with room for \d+ contacts and \d+ constraints each take about .* on cpu, and 0.0 GiB is free",
            num_envs=100_000)  # fmt: skip


def test_without_the_extra_the_package_to_install_is_named(monkeypatch):
    for missing in ("warp", "mujoco_warp"):
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(UsageError, match=r"which is not installed: pip install 'poise\[gpu\]'"):
            require_warp("cpu")
        monkeypatch.undo()


def test_a_driver_that_warp_cannot_use_is_told(monkeypatch):
    import warp

    for name, value in (("is_available", True), ("device_count", 1), ("current_device", 0)):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    with pytest.raises(UsageError, match="cuda:1 was asked for, and there are 1 CUDA devices, from cuda:0"):
        require_warp("cuda:1")
    monkeypatch.setattr(warp, "get_cuda_device_count", lambda: 0)
    with pytest.raises(
        UsageError, match=r"driver is too old for Warp .* install a newer driver, or simulate on the CPU"
    ):
        require_warp("cuda")


def play(device: str, runner) -> dict[str, np.ndarray]:
    """Some periods of four runners on a device: fields, a push, a kick, a broken world, one that begins anew."""
    engine = WarpEngine(runner.model, N, runner.substeps, device, tuple(runner.dynamics.defaults), READS)
    place = engine.device
    fields = {name: view.to(place) for name, view in runner.ours._fields.views.items()}
    ctrl, wrench, kick = floats(command(runner, 0.3), np.full((N, runner.model.nbody, 6), 0.5), np.full((N, 9), 0.1))
    ctrl, wrench, kick = ctrl.to(place), wrench.to(place), kick.to(place)
    qpos, qvel = (x.to(place) for x in floats(runner.qpos, runner.qvel))
    some, everyone = torch.tensor([True, False, False, True]).to(place), EVERYONE.to(place)
    broken = ctrl.clone()
    broken[2] = torch.nan
    engine.write(fields, everyone)  # recorded at its first call
    if place.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")  # from here on nothing waits for the device
    try:
        engine.set_state(everyone, qpos, qvel)
        for given in (ctrl, broken, ctrl):
            engine.step(given, wrench)
        engine.write(fields, some)
        engine.set_state(some, qpos, qvel)
        engine.kick(kick)
        engine.step(ctrl)
    finally:
        if place.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    state = engine.state_dict()
    return {"state": state["state"], **state["extra"]}


def test_the_same_play_gives_the_same_worlds_on_warps_cpu_device(runner):
    begin(runner)
    first = play("cpu", runner)
    begin(runner)
    assert all(np.array_equal(values, first[name]) for name, values in play("cpu", runner).items())
    assert first["state"][2, 0] == pytest.approx(0.15) and first["state"][0, 0] == pytest.approx(0.05)  # [s]


@pytest.mark.gpu
def test_a_gpu_plays_what_warps_cpu_device_plays_and_nothing_waits_for_it(runner):
    begin(runner)
    here = play("cpu", runner)
    begin(runner)
    for name, values in play("cuda", runner).items():
        assert np.allclose(values, here[name], rtol=2e-3, atol=2e-3 * max(1.0, np.abs(here[name]).max())), name
