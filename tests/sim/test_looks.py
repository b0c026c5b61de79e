"""A model drawn apart from a task's cameras looks like the episode that is played."""

import numpy as np
import torch

from poise.sim.looks import Looks
from poise.sim.make import make
from poise.sim.randomization import Randomization, Term
from poise.sim.render import Renderer
from poise.sim.task_env import TaskEnv

from .test_appearance import LOOKS, Lit


def test_another_renderer_shows_what_the_tasks_camera_sees_in_every_episode():
    env = TaskEnv(Lit(), 1, Randomization(LOOKS), threads=1)
    looks, episodes = Looks(env), []
    renderer = Renderer(env.task, 84, 84, "camera", looks.decorate)
    for world in (0, 0, 4):
        seen = env.reset(0, worlds=world)["camera"][0].numpy()
        episodes.append(looks.put(renderer.model))
        assert np.array_equal(renderer.world(env.state, 0), seen) and not looks.put(renderer.model)
    assert episodes == [True, False, True]
    for _ in range(50):  # until the next episode begins by itself
        seen = env.step(torch.zeros(1, 2)).obs["camera"][0].numpy()
    assert looks.put(renderer.model) and np.array_equal(renderer.world(env.state, 0), seen)
    renderer.close()


def test_a_size_that_physics_drew_is_seen_without_a_camera_and_nothing_else_changes_a_model():
    sizes = Randomization((Term("size", "geom_size", "object", range=(0.5, 0.9)),))
    env = make("lift/fr3", 1, seed=0, randomize=sizes.to_json(), threads=1)
    env.reset(0)
    model = env.task.model().compile()
    default = model.geom("object").size.copy()
    assert Looks(env).put(model)
    np.testing.assert_allclose(model.geom("object").size, default * env.params["size"][0, 0], rtol=1e-6)
    plain = make("lift/fr3", 1, seed=0, randomize="default", threads=1)
    plain.reset(0)
    assert not Looks(plain).put(model)
