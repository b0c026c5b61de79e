"""Patterns: every one its own, the same on every machine, and in the colour of what carries it."""

import mujoco
import numpy as np
import pytest

from poise.sim.patterns import PATTERNS, SIZE, add_pattern, brushed, cells, clouds, wood
from poise.sim.whats import WHATS


@pytest.mark.parametrize("draw", [wood, brushed, cells, clouds])
def test_what_is_drawn_here_is_grey_varied_and_follows_from_its_seed(draw):
    grey, again, other = (draw(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert grey.shape == (SIZE, SIZE) and grey.min() >= 0.0 and grey.max() <= 1.0
    assert grey.std() > 0.05 and grey.mean() > 0.4 and np.array_equal(grey, again) and not np.array_equal(grey, other)


def test_a_cell_is_the_shade_of_its_nearest_point_and_its_joints_are_dark():
    grey = cells(np.random.default_rng(0))
    shades, joints = np.unique(grey[grey > 0.25]), (grey == 0.25).mean()
    assert 18 <= len(shades) <= 24 and shades.min() >= 0.5 and 0.05 < joints < 0.4


def test_every_pattern_is_a_material_of_its_own_and_every_side_of_a_cube_carries_it():
    spec = mujoco.MjSpec()
    for name in PATTERNS[1:]:
        for kind in ("2d", "cube"):
            add_pattern(spec, name, kind)
    model = spec.compile()
    sizes = model.tex_width * model.tex_height * model.tex_nchannel
    pixels = {model.tex(i).name: model.tex_data[model.tex_adr[i]:][:sizes[i]] for i in range(model.ntex)}  # fmt: skip
    flat = [pixels[f"pattern/{name}/2d"].tobytes() for name in PATTERNS[1:]]
    assert len(set(flat)) == 7 == WHATS["geom_pattern"].most
    for name in ("wood", "brushed", "cells", "clouds"):
        assert pixels[f"pattern/{name}/cube"].tobytes() == 6 * pixels[f"pattern/{name}/2d"].tobytes()
        assert (np.diff(pixels[f"pattern/{name}/2d"].reshape(-1, 3)) == 0).all(), "grey"
