"""What tests of simulators share."""

import gymnasium
import pytest

from . import counters


@pytest.fixture
def registered():
    """The counters, in Gymnasium's registry for the length of a test."""
    before = dict(gymnasium.registry)
    counters.register()
    yield
    gymnasium.registry.clear()
    gymnasium.registry.update(before)
