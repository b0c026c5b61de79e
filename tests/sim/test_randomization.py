"""The declarative list: draws are keyed and pure, JSON round-trips, every mistake is named."""

import json

import numpy as np
import pytest
import torch

from poise.errors import UsageError
from poise.sim.randomization import Randomization, Term

MASS = Term("mass", "link_mass", "link*", range=(0.7, 1.3))
NOISE = Term("noise", "joint_pos_noise", ("a", "b"), distribution="normal", mean=0.01, std=0.002, range=(0.0, 0.02),
             operation="set")  # fmt: skip
LATENCY = Term("latency", "action_latency", range=(0.0, 0.08), operation="set")
THINGS = {"what": "distractor", "target": [], "operation": "set", "range": [0.1, 0.2], "count": 2,
          "box": [[0, 0, 0], [1, 1, 1]]}  # fmt: skip
SIZES = {"mass": 3, "noise": 2, "latency": 1, "gain": 2}


def test_a_randomization_round_trips_through_json_and_a_file(tmp_path):
    things = Term("things", "distractor", range=(0.01, 0.03), operation="set", count=4, box=((0, 0, 0), (1, 1.5, 0.2)))
    push = Term(
        "push", "push_force", "hand", range=(0, 5), operation="set", when="interval", interval=(1, 2), duration=1
    )
    randomization = Randomization((MASS, NOISE, LATENCY, things, push))
    data = json.loads(json.dumps(randomization.to_json()))
    assert Randomization.from_json(data) == randomization
    path = tmp_path / "dr.json"
    path.write_text(json.dumps(data))
    assert Randomization.load(path) == randomization


def test_a_draw_depends_only_on_its_key():
    randomization = Randomization((MASS, NOISE, LATENCY))
    batch = randomization.draw(3, np.arange(8), np.full(8, 3), SIZES)
    alone = randomization.draw(3, 5, 3, SIZES)
    assert all(np.array_equal(batch[name][5:6], alone[name]) for name in batch)
    assert not np.array_equal(alone["mass"], randomization.draw(4, 5, 3, SIZES)["mass"])
    assert not np.array_equal(alone["mass"], randomization.draw(3, 5, 4, SIZES)["mass"])


def test_adding_a_term_leaves_the_other_draws_unchanged():
    before = Randomization((MASS, LATENCY)).draw(0, np.arange(4), 0, SIZES)
    gain = Term("gain", "actuator_gain", "*", range=(0.5, 2.0))
    after = Randomization((gain, LATENCY, NOISE, MASS)).draw(0, np.arange(4), 0, SIZES)
    assert all(np.array_equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("distribution", ["uniform", "loguniform", "integer", "normal"])
def test_draws_follow_their_distribution(distribution):
    normal = {"mean": 3.0, "std": 1.0} if distribution == "normal" else {}
    low, high = (1.0, 5.0)
    term = Term("x", "geom_friction", "*", distribution, (low, high), operation="set", **normal)
    x = term.draw(0, np.arange(4000), np.zeros(4000, int), 2)
    assert x.shape == (4000, 2) and x.min() >= low and x.max() <= high
    mean = 4.0 / np.log(5.0) if distribution == "loguniform" else 3.0
    assert abs(x.mean() - mean) < 0.05
    if distribution == "integer":
        assert set(np.unique(x)) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert abs(np.corrcoef(x.T)[0, 1]) < 0.05


def test_a_shared_term_gives_all_its_targets_one_number():
    x = Term("x", "actuator_gain", "*", range=(0.5, 2.0), shared=True).draw(0, np.arange(3), np.zeros(3, int), 4)
    assert x.shape == (3, 4) and np.array_equal(x, np.repeat(x[:, :1], 4, axis=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"what": "link_mas"}, "'mass': unknown what 'link_mas'; did you mean link_mass"),
        ({"distribution": "gauss"}, "'mass': unknown distribution 'gauss'; known: integer, loguniform"),
        ({"operation": "times"}, "'mass': unknown operation 'times'; known: add, scale, set"),
        ({"when": "startup"}, "'mass': unknown when 'startup'; did you mean start"),
        ({"when": "interval"}, "'mass': an interval .* goes with when = interval"),
        ({"interval": [1, 2]}, "'mass': an interval .* goes with when = interval, .* when is reset and interval .1, 2."),
        ({"when": "interval", "interval": [0, 1]}, "'mass': interval must be .*seconds above zero, not .0, 1."),
        ({"when": "interval", "interval": [2, 1]}, "'mass': interval must be"),
        ({"when": "interval", "interval": 2}, "'mass': interval must be .low, high., not 2"),
        ({"count": 3}, "'mass': count and box go with distractors"),
        ({**THINGS, "count": 0}, "'mass': count must be a whole number from 1 to 100, not 0"),
        ({**THINGS, "box": [[0, 0, 1], [1, 1, 0]]}, r"'mass': box must be \[\[x, y, z\], .*lowest corner first"),
        ({**THINGS, "box": [[0, 0], [1, 1]]}, "'mass': box must be"),
        ({**THINGS, "box": [[0, 0, "a"], [1, 1, 1]]}, "'mass': box must be"),
        ({**THINGS, "box": 3}, "'mass': box must be"),
        ({"what": "geom_color", "when": "interval", "interval": [1, 2]}, "'mass': unknown when 'interval'; known: reset"),
        ({"duration": 1}, "'mass': a duration in seconds goes with a push"),
        ({"what": "push_force", "operation": "set"}, "'mass': unknown when 'reset'; known: interval"),
        ({"what": "geom_size", "when": "interval", "interval": [1, 2]}, "'mass': unknown when 'interval'; known: res"),
        ({"what": "push_force", "operation": "set", "when": "interval", "interval": [1, 2]}, "'mass': a duration in sec"),
        ({"what": "push_force", "operation": "set", "when": "interval", "interval": [1, 2], "duration": 0},
         "'mass': duration must be a number of seconds above zero, not 0"),
        ({"ranges": [1, 2]}, "'mass': unknown field 'ranges'; did you mean range"),
        ({"range": [1.3, 0.7]}, r"'mass': the range \[1.3, 0.7\] is empty: low is above high"),
        ({"range": [0.7, float("nan")]}, "'mass': range must be finite numbers"),
        ({"range": [0.7, float("inf")]}, "'mass': range must be finite numbers"),
        ({"range": [0.7]}, r"'mass': range must be \[low, high\]"),
        ({"range": 3}, r"'mass': range must be \[low, high\]"),
        ({"range": ["a", "b"]}, "'mass': range must be finite numbers"),
        ({"range": [-0.5, 1.0]}, "'mass': scale of link_mass must be above zero, but -0.5 can be drawn"),
        ({"distribution": "loguniform", "range": [0, 1]}, "'mass': a loguniform range must lie above zero"),
        ({"distribution": "integer", "range": [1, 2.5]}, "'mass': an integer range must have whole ends"),
        ({"distribution": "normal"}, "'mass': a normal distribution needs mean and std"),
        ({"distribution": "normal", "mean": 1, "std": 0.1, "range": None}, "'mass': .* but -inf can be drawn"),
        ({"distribution": "normal", "mean": 1, "std": -0.1}, "'mass': std must not be negative"),
        ({"mean": 1.0}, "'mass': a uniform distribution needs a range"),
        ({"target": ""}, "'mass': link_mass needs a target"),
        ({"what": "action_latency", "operation": "set"}, "'mass': action_latency takes no target"),
        ({"what": "payload", "operation": "scale"}, "'mass': unknown operation 'scale'; did you mean set"),
        ({"name": ""}, "needs a name"),
        ({"what": "joint_dropout", "operation": "set", "range": [0, 1.5]}, "joint_dropout is at most 1, but 1.5 can"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_term_and_what_exists(change, message):
    entry = {"name": "mass", "what": "link_mass", "target": "link*", "range": [0.7, 1.3], **change}
    with pytest.raises(UsageError, match=message):
        Randomization.from_json({"terms": [entry]})


def test_two_terms_of_one_name_are_refused():
    with pytest.raises(UsageError, match="'mass' appears 2 times"):
        Randomization((MASS, MASS))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[]", "JSON object"), ('{"terms": [3]}', "not 3"), ('{"terms": [{}]}', "'name' is missing"),
     ('{"terms": [{"name": "m", "what": "link_mass", "target": [1], "range": [1, 2]}]}', "'m': target must be names")],
)  # fmt: skip
def test_a_wrong_file_is_named(tmp_path, text, message):
    path = tmp_path / "dr.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"dr\.json.*{message}"):
        Randomization.load(path)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the randomization file .*nowhere"):
        Randomization.load(tmp_path / "nowhere.json")
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"x\.json is not a text file"):
        Randomization.load(tmp_path / "x.json")


@pytest.mark.parametrize("shared", [False, True])
def test_draws_on_a_device_are_those_of_numpy(shared):
    kind = {"what": "link_mass", "target": "link*", "shared": shared}
    randomization = Randomization((
        Term("uniform", **kind, range=(0.7, 1.3)),
        Term("log", **kind, distribution="loguniform", range=(0.1, 10.0)),
        Term("normal", **kind, distribution="normal", mean=1.0, std=0.2, range=(0.5, 1.5)),
        Term("integer", **kind, distribution="integer", range=(1, 7)),
        Term("once", **kind, range=(0.5, 2.0), when="start"),
        Term("often", **kind, range=(0.5, 2.0), when="interval", interval=(1.0, 2.0)),
    ))  # fmt: skip
    sizes = dict.fromkeys((t.name for t in randomization.terms), 3)
    worlds, episodes, draws = np.arange(40), np.arange(40) % 5, np.arange(40) % 3
    expected = randomization.draw(3, worlds, episodes, sizes, {"often": draws})
    there = [torch.from_numpy(x) for x in (worlds, episodes, draws)]
    drawn = randomization.draw(3, there[0], there[1], sizes, {"often": there[2]})
    for name in expected:
        np.testing.assert_allclose(drawn[name], expected[name], rtol=2e-6, err_msg=name)
    term = randomization.terms[-1]
    np.testing.assert_array_equal(term.draw(3, there[0], there[1], 3, there[2]), drawn["often"])


def test_an_integer_of_float32_stays_in_its_range():
    term = Term("integer", "link_mass", "link*", distribution="integer", range=(1, 3))
    assert term.drawn(torch.tensor([[1.0 - 2.0**-24, 2.0**-33]]), 2).tolist() == [[3.0, 1.0]]
