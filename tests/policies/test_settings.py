"""Settings: text becomes typed values, and every mistake names the setting, the value and what would do."""

from dataclasses import dataclass
from typing import Literal

import pytest

from poise.errors import UsageError
from poise.policies.recipes import RECIPES, recipe
from poise.policies.settings import describe, parse_assignments, setting, with_changes


@dataclass(frozen=True)
class Config:
    rate: float = setting(3e-4, "Step size.")
    count: int = setting(5, "How many.")
    hidden: tuple[int, ...] = setting((64, 64), "Layers.")
    on: bool = setting(True, "Whether.")
    target: float | None = setting(None, "Target, or none.")
    mode: Literal["auto", "off"] = setting("auto", "Mode.")


def test_text_becomes_the_type_of_the_setting():
    changed = with_changes(Config(), {"rate": "1e-3", "count": "1e6", "hidden": "32,16", "on": "false",
                                      "target": "-7", "mode": "off"}, "x")  # fmt: skip
    assert changed == Config(1e-3, 1_000_000, (32, 16), False, -7.0, "off")
    assert with_changes(changed, {"target": "none", "hidden": [8]}, "x").target is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("rate", "fast"), ("count", "2.5"), ("count", "nan"), ("hidden", "a,b"), ("on", "maybe"), ("mode", "on")],
)
def test_a_value_of_the_wrong_type_names_setting_and_value(key, value):
    with pytest.raises(UsageError, match=f"setting {key} = {value!r}"):
        with_changes(Config(), {key: value}, "x")


def test_an_unknown_setting_lists_its_neighbours():
    with pytest.raises(UsageError, match="unknown setting in x 'raet'; did you mean rate"):
        with_changes(Config(), {"raet": "1"}, "x")
    with pytest.raises(UsageError, match="learning_rate"):
        recipe("ppo", None, {"learnin_rate": 1})


def test_assignments_need_a_key_and_a_value():
    assert parse_assignments(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(UsageError, match="key=value"):
        parse_assignments(["a"])


def test_an_unknown_algorithm_lists_its_neighbours():
    with pytest.raises(UsageError, match="unknown algorithm 'pp0'; did you mean ppo"):
        recipe("pp0")


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_setting_of_every_recipe_has_a_sentence_of_help(name):
    chosen = recipe(name)
    for config in (chosen.settings, chosen.run):
        for key, _, text in describe(config):
            assert text.endswith(".") and len(text) > 8, key


def test_later_changes_win():
    assert recipe("ppo", None, {"seed": 1}, {"seed": "2", "discount": 0.9}).run.seed == 2


def test_other_arms_reach_with_the_fr3s_settings_and_a_native_tasks_options_change_none():
    reach = recipe("ppo", "reach/fr3")
    assert reach != recipe("ppo") and reach.run.num_envs == 256
    for task in ("reach/so101", "reach/ur5e?mjcf=mine.xml", "reach/fr3?mjcf=mine.xml"):
        assert recipe("ppo", task) == reach
    assert recipe("ppo", "reach/planar-state") == recipe("ppo")
