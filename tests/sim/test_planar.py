"""reach/planar: what its camera shows is where things are, and nothing else says where the target is."""

import mujoco
import numpy as np
import pytest
import torch

from conformance import check_vec_env
from poise.errors import SpecError
from poise.observe import observe
from poise.sim.cameras import Cameras
from poise.sim.make import make
from poise.sim.task_env import TaskEnv
from poise.sim.tasks.planar import PlanarReach, sample_target, tool_position
from poise.spec import ObsTerm, Spec


@pytest.mark.parametrize("name", ["reach/planar", "reach/planar-state"])
def test_it_keeps_the_contract_of_a_vec_env(name):
    check_vec_env(lambda n: make(name, n, threads=1))


def pixel(point):
    """Row and column of a point on the table [m], seen from 1.4 m above (0.2, 0), 45 degrees high."""
    scale = 84 / (2 * (1.4 - point[2]) * np.tan(np.radians(22.5)))
    return 42 - scale * (point[0] - 0.2), 42 - scale * point[1]


def centre(mask):
    return np.argwhere(mask).mean(0) + 0.5


def test_the_picture_shows_target_and_tool_where_they_are():
    env = make("reach/planar", 8, threads=1)
    frames = env.reset(3)["camera"].numpy().astype(int)
    assert frames.shape == (8, 84, 84, 3)
    for world in range(8):
        red, green, blue = (frames[world, ..., i] for i in range(3))
        target, tool = env.memory["target_pos"][world], tool_position(env.engine.qpos)[world]
        disc = (red > 180) & (green < 80)
        yellow = (red > 180) & (green > 180) & (blue < 120)
        if np.linalg.norm(tool - target[:2]) > 0.15:  # not hidden under the arm
            np.testing.assert_allclose(centre(yellow), pixel((*tool, 0.02)), atol=1.0)
        if disc.sum() > 45:
            np.testing.assert_allclose(centre(disc), pixel(target), atol=0.7)


def test_every_world_is_drawn_as_it_would_be_alone_and_its_successor_is_the_frame_before_the_reset():
    env = make("reach/planar", 3, threads=1)
    env.reset(0)
    renderer = Cameras(env.task, ["camera"])
    for t in range(env.max_episode_steps):
        step = env.step(torch.ones(3, 2) * (0.5 - t % 2))
        if not step.done.any():
            np.testing.assert_array_equal(step.obs["camera"].numpy(), renderer.frames(env.state)["camera"])
            last = step.obs["camera"]
    assert step.truncated.all()
    np.testing.assert_array_equal(step.obs["camera"].numpy(), renderer.frames(env.state)["camera"])
    moved = (step.next_obs["camera"] != last).flatten(1).sum(1)
    jumped = (step.obs["camera"] != step.next_obs["camera"]).flatten(1).sum(1)
    assert (moved < 600).all() and (jumped > 300).all()  # a step moves the arm a little, a reset all
    renderer.close(), env.close()


def test_only_the_picture_says_where_the_target_is():
    seen, told = (make(name, 2, threads=1) for name in ("reach/planar", "reach/planar-state"))
    assert (seen.spec.images, seen.spec.vectors) == (("camera",), ("state",)) and told.spec.images == ()
    a, b = seen.reset(1)["state"], told.reset(1)["state"]
    assert "target_pos" not in seen.spec.slices() and torch.equal(a, b[:, :6])
    np.testing.assert_allclose(b[:, 6:].numpy(), seen.memory["target_pos"][:, :2], atol=1e-6)


def test_the_tool_is_where_the_model_s_site_is_and_targets_are_in_reach():
    model = PlanarReach().model().compile()
    data = mujoco.MjData(model)
    for qpos in ([0.0, 0.0], [0.7, -1.2], [-2.0, 2.0]):
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(tool_position(np.array([qpos]))[0], data.site("tool").xpos[:2], atol=1e-12)
    radius = np.linalg.norm(sample_target(np.random.default_rng(0).uniform(size=(1000, 2)))[:, :2], axis=1)
    assert radius.min() > 0.25 and radius.max() < 0.5


def test_success_is_five_steps_in_a_row_over_the_disc():
    env = make("reach/planar-state", 1, threads=1)
    env.reset(0)
    qpos = np.array([[0.3, 0.8]])
    env.engine.set_state(np.arange(1), qpos, np.zeros((1, 2)))
    env.commands.reset(np.arange(1), qpos)
    env._measured = qpos, np.zeros((1, 2))
    env.memory = {**env.memory, "target_pos": np.append(tool_position(qpos)[0] + [0.03, 0.0], -0.05)[None]}
    successes = [bool(env.step(torch.zeros(1, 2)).success) for _ in range(7)]
    assert successes == [False] * 4 + [True] * 3


class Gray(PlanarReach):
    def __init__(self):
        super().__init__()
        self.spec = Spec(
            {"camera": (ObsTerm("camera", (84, 84, 1), "camera", dtype="uint8"),)}, self.spec.actions, 0.05
        )


def test_a_camera_that_cannot_be_is_refused():
    with pytest.raises(SpecError, match="cameras give 3 channels of colour, not 1"):
        TaskEnv(Gray(), 1)
    spec = PlanarReach().spec
    readings = {"joint_pos": np.zeros((1, 2)), "joint_vel": np.zeros((1, 2)), "tool_pos": np.zeros((1, 2))}
    with pytest.raises(SpecError, match="observation camera has no frame; there are none"):
        observe(spec, readings)
    with pytest.raises(SpecError, match=r"expected uint8 \(..., 84, 84, 3\), got float64 of shape \(1, 84, 84, 3\)"):
        observe(spec, readings, {"camera": np.zeros((1, 84, 84, 3))})
    assert observe(spec, readings, {"camera": np.zeros((1, 84, 84, 3), np.uint8)})["camera"].dtype == np.uint8
