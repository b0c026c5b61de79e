"""Spec: what does not fit is refused by name, JSON keeps every field, a diff names every difference."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.errors import SpecError
from poise.spec import ACTION_KINDS, REFERENCES, SOURCES, ActionTerm, ObsTerm, Spec

ARM = ActionTerm(
    name="arm",
    kind="joint_pos",
    joints=("a", "b"),
    low=(-1.0, -2.0),
    high=(1.0, 2.0),
    scale=(0.1, 0.2),
    home=(0.0, 0.5),
    lead=(0.3, 0.3),
    max_velocity=(2.0, 2.0),
    max_acceleration=(9.0, 9.0),
    unit="rad",
)


def spec(**changes) -> Spec:
    fields = dict(
        observations={
            "state": (
                ObsTerm("joint_pos", (2,), "robot", "rad", low=-3.0, high=3.0),
                ObsTerm("tool_pos", (3,), "kinematics", "m", frame="base"),
                ObsTerm("contact", (), "external", "N"),
            ),
            "privileged": (ObsTerm("mass", (2, 2), unit="kg"),),
        },
        actions=(ARM, ActionTerm("gripper", "control", low=(0.0,), high=(255.0,))),
        control_dt=0.05,
        robot="two_joint",
        notes={"made_by": "a test"},
    )
    return Spec(**{**fields, **changes})


# ---- sizes -------------------------------------------------------------------------------------


def test_slices_lie_one_after_the_other_in_the_terms_order():
    assert spec().slices() == {"joint_pos": slice(0, 2), "tool_pos": slice(2, 5), "contact": slice(5, 6)}
    assert spec().obs_dim() == 6
    assert spec().obs_dim("privileged") == 4
    assert spec().action_dim == 3


def test_a_discrete_action_is_one_number():
    discrete = spec(actions=(ActionTerm("button", "discrete", n=5),))
    assert discrete.action_dim == 1 and discrete.discrete
    assert not spec().discrete


# ---- JSON --------------------------------------------------------------------------------------

names = st.text(min_size=1, max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
bounds = st.tuples(numbers | st.just(-math.inf), numbers | st.just(math.inf)).filter(lambda b: b[0] <= b[1])
obs_terms = st.builds(
    lambda bounds, **fields: ObsTerm(low=bounds[0], high=bounds[1], **fields),
    bounds=bounds,
    name=names,
    shape=st.lists(st.integers(0, 5), max_size=3).map(tuple),
    source=st.sampled_from(SOURCES),
    unit=names,
    dtype=st.sampled_from(["float32", "uint8"]),
    frame=st.text(max_size=5),
    history=st.integers(1, 4),
)


@st.composite
def action_terms(draw) -> ActionTerm:
    kind = draw(st.sampled_from(ACTION_KINDS))
    n = draw(st.integers(1, 3))
    row = st.lists(st.floats(-5, 5), min_size=n, max_size=n).map(tuple)
    bounds = {"low": tuple(x - 6 for x in draw(row)), "high": tuple(x + 6 for x in draw(row))}
    if kind == "discrete":
        return ActionTerm(draw(names), kind, n=draw(st.integers(2, 20)))
    if kind == "control":
        return ActionTerm(draw(names), kind, unit=draw(names), **bounds)
    if kind == "unknown":
        return ActionTerm(draw(names), kind, low=(-1.0,) * n, high=(1.0,) * n)
    positive = st.lists(st.floats(0.01, 5), min_size=n, max_size=n).map(tuple)
    return ActionTerm(
        draw(names),
        kind,
        joints=tuple(f"joint{i}" for i in range(n)),
        scale=draw(positive),
        reference=draw(st.sampled_from(REFERENCES)),
        home=draw(row),
        lead=draw(positive),
        max_velocity=draw(positive),
        max_acceleration=draw(positive),
        **bounds,
    )


specs = st.builds(
    Spec,
    observations=st.dictionaries(names, st.lists(obs_terms, max_size=3, unique_by=lambda t: t.name), max_size=3),
    actions=st.lists(action_terms(), max_size=2, unique_by=lambda t: t.name),
    control_dt=st.floats(1e-4, 10.0),
    action_horizon=st.integers(1, 50),
    robot=st.text(max_size=5),
)


@given(specs)
def test_a_spec_survives_json_text_unchanged(original):
    text = json.dumps(original.to_json(), allow_nan=False)  # strict JSON, without Infinity
    assert Spec.from_json(text) == original
    assert Spec.from_json(json.loads(text)).to_json() == original.to_json()


def test_notes_travel_but_do_not_make_specs_differ():
    noted = spec(notes={"made_by": "somebody else"})
    assert noted == spec() and noted.diff(spec()) == []
    assert Spec.from_json(noted.to_json()).notes == {"made_by": "somebody else"}


def changed_json(change) -> dict:
    data = json.loads(json.dumps(spec().to_json()))
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("observations"), "lacks 'observations'"),
        (lambda d: d.pop("actions"), "lacks 'actions'"),
        (lambda d: d.pop("control_dt"), "lacks 'control_dt'"),
        (lambda d: d.update(control_dt="soon"), "wrong form.*soon"),
        (lambda d: d.update(control_dt=-0.05), "control_dt must be a positive time in seconds, not -0.05"),
        (lambda d: d.update(control_dt=math.nan), "control_dt must be a positive"),
        (lambda d: d.update(control_dt=math.inf), "control_dt must be a positive"),
        (lambda d: d.update(action_horizon=0), "action_horizon must be .*at least 1, not 0"),
        (lambda d: d.update(action_horizon=1.5), "action_horizon must be a whole number, .*not 1.5"),
        (lambda d: d.update(action_horizon=math.inf), "action_horizon must be a whole number"),
        (lambda d: d.update(observations=[1, 2]), "wrong form"),
        (lambda d: d.update(actions=None), "wrong form"),
        (lambda d: d.update(actions=["arm"]), "actions: expected an object for a term, got str"),
        (lambda d: d["actions"][0].update(speed=3), "actions: unknown field 'speed'; known: .*max_velocity"),
        (lambda d: d["actions"][0].pop("kind"), "actions: .*'kind'"),
        (lambda d: d["actions"][0].update(kind="torque"), "action 'arm': kind 'torque' is not one of joint_pos"),
        (lambda d: d["actions"][0].update(reference="here"), "action 'arm': reference 'here' is not one of measured"),
        (lambda d: d["actions"][0].update(scale=[0.1]), "action 'arm': scale has 1 entries for 2 joints"),
        (lambda d: d["actions"][0].update(reference="home", home=[]), "reference 'home' needs a home position"),
        (lambda d: d["observations"]["state"][0].pop("shape"), "observations.state: .*'shape'"),
        (lambda d: d["observations"]["state"][0].update(shape=[math.inf]), "'joint_pos': shape must be .*whole"),
        (lambda d: d["observations"]["state"][0].update(shape=[2.5]), "'joint_pos': shape must be .*whole.*2.5"),
        (lambda d: d["observations"]["state"][0].update(source="magic"), "'joint_pos': source 'magic' is not one of"),
        (lambda d: d["observations"]["state"][0].update(dtype="float64"), "dtype 'float64' is not float32 or uint8"),
        (lambda d: d["observations"]["state"][0].update(history=0), "'joint_pos': history must be .*at least 1, not 0"),
        (lambda d: d["observations"]["state"][1].update(name="joint_pos"), "'state' names a term twice"),
    ],
)
def test_json_of_the_wrong_form_is_refused_by_name(change, message):
    with pytest.raises(SpecError, match=message):
        Spec.from_json(changed_json(change))


def test_text_that_is_not_json_is_refused():
    with pytest.raises(SpecError, match="the spec is not JSON"):
        Spec.from_json("{'single': quotes}")


keys = st.sampled_from(
    ["observations", "actions", "control_dt", "action_horizon", "notes", "state", "name", "shape", "kind", "n", "low"]
)
scalars = st.none() | st.booleans() | st.floats() | st.integers(-2, 2) | st.text(max_size=5)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


@given(anything)
def test_whatever_json_comes_the_only_error_is_a_spec_error(data):
    with contextlib.suppress(SpecError):
        Spec.from_json(data)


@pytest.mark.parametrize("where", ["observation", "action"])
@given(field=st.integers(0, 20), value=anything)
def test_a_spoiled_field_is_a_spec_error_or_makes_a_spec_that_survives_json(where, field, value):
    def spoil(data: dict) -> None:
        term = data["observations"]["state"][0] if where == "observation" else data["actions"][0]
        term[sorted(term)[field % len(term)]] = value

    try:
        built = Spec.from_json(changed_json(spoil))
    except SpecError:
        return
    assert Spec.from_json(json.dumps(built.to_json(), allow_nan=False)) == built


@pytest.mark.parametrize(("low", "high"), [((0.0,), (1.0, 1.0)), ((-math.inf,), (math.inf,)), ((2.0,), (1.0,)),
                                           ((math.nan,), (1.0,))])  # fmt: skip
def test_a_control_term_needs_finite_bounds_in_order(low, high):
    with pytest.raises(SpecError, match="'motor'"):
        ActionTerm("motor", "control", low=low, high=high)


def test_two_action_terms_of_one_name_are_refused():
    with pytest.raises(SpecError, match="arm"):
        spec(actions=(ARM, ARM))


# ---- diff --------------------------------------------------------------------------------------


def test_equal_specs_have_no_differences():
    assert spec().diff(spec()) == []


@pytest.mark.parametrize(("name", "value"), [("control_dt", 0.02), ("action_horizon", 8), ("robot", "other")])
def test_a_changed_field_of_the_spec_is_named_with_both_values(name, value):
    (line,) = spec().diff(spec(**{name: value}))
    assert line == f"{name}: expected {getattr(spec(), name)!r}, found {value!r}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("shape", (3,)), ("source", "external"), ("unit", "deg"), ("dtype", "uint8"), ("frame", "tool"), ("low", -2.0),
     ("high", 2.0), ("history", 3)],
)  # fmt: skip
def test_a_changed_field_of_an_observation_is_named_with_both_values(name, value):
    first, *rest = spec().observations["state"]
    other = spec(observations={**spec().observations, "state": (dataclasses.replace(first, **{name: value}), *rest)})
    (line,) = spec().diff(other)
    assert line == f"observation state 'joint_pos': {name} expected {getattr(first, name)!r}, found {value!r}"


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(ActionTerm) if f.name not in ("name", "kind")])
def test_a_changed_field_of_an_action_is_named_with_both_values(name):
    value = {"joints": ("a", "c"), "reference": "home", "unit": "deg", "n": 3}.get(name, (0.7, 0.8))
    if name in ("low", "high"):
        value = tuple(x * 1.5 for x in getattr(ARM, name))
    other = spec(actions=(dataclasses.replace(ARM, **{name: value}), spec().actions[1]))
    (line,) = spec().diff(other)
    assert line == f"action 'arm': {name} expected {getattr(ARM, name)!r}, found {value!r}"


def test_missing_extra_and_reordered_terms_and_groups_are_differences():
    state, privileged = spec().observations["state"], spec().observations["privileged"]
    (missing,) = spec().diff(spec(observations={"state": state[:2], "privileged": privileged}))
    assert missing == "observation state: expected terms joint_pos, tool_pos, contact, found joint_pos, tool_pos"
    (order,) = spec().diff(spec(observations={"state": state[::-1], "privileged": privileged}))
    assert "found contact, tool_pos, joint_pos" in order
    fewer = spec(observations={"state": state})
    (lost,) = spec().diff(fewer)
    assert lost.startswith("observation privileged: ") and "mass" in lost
    (gained,) = fewer.diff(spec())
    assert gained.startswith("observation privileged: ") and "mass" in gained
    assert lost != gained
    assert spec().diff(spec(actions=(ARM,))) == ["action: expected terms arm, gripper, found arm"]


@given(specs, specs)
def test_specs_are_equal_exactly_where_the_diff_is_empty(one, other):
    assert one.diff(one) == [] and one == one
    assert (one == other) == (one.diff(other) == []) == (other.diff(one) == [])


# ---- checking ----------------------------------------------------------------------------------


def test_check_takes_any_leading_axes():
    for batch in ((), (4,), (4, 2)):
        spec().check({"state": np.zeros((*batch, 6)), "privileged": np.zeros((*batch, 4))}, np.zeros((*batch, 3)))


def test_check_names_what_does_not_fit():
    with pytest.raises(SpecError, match="'privileged' is missing; got state"):
        spec().check({"state": np.zeros(6)})
    with pytest.raises(SpecError, match="got nothing"):
        spec().check({})
    with pytest.raises(SpecError, match=r"'state' should end in 6 numbers, got shape \(2, 5\)"):
        spec().check({"state": np.zeros((2, 5)), "privileged": np.zeros((2, 4))})
    with pytest.raises(SpecError, match=r"an action should end in 3 numbers, got shape \(4,\)"):
        spec().check(action=np.zeros(4))


def test_what_only_a_simulator_knows_stays_out_of_the_policy_file():
    kept = spec().for_policy_file()
    assert list(kept.observations) == ["state"]
    assert kept == dataclasses.replace(spec(), observations={"state": spec().observations["state"]})
