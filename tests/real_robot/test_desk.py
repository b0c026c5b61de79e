"""The desk: lease, dead-man's switch, age, and what pages may not say."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.errors import UsageError
from poise.real_robot.desk import DEADMAN, LEASE, PAUSE, Desk
from poise.robots import FR3


@pytest.fixture
def stops():
    return []


@pytest.fixture
def desk(stops):
    return Desk(FR3, lambda: stops.append(1))


def drive(desk, page, now, held=True, t=None, **what):
    desk.hear(page, {"do": "drive", "t": now if t is None else t, "held": held, **what}, now)


def taken(desk, page="a", now=0.0):
    desk.hear(page, {"do": "take"}, now)
    drive(desk, page, now, held=False)


def test_a_wish_counts_while_the_switch_is_held_and_for_a_moment(desk):
    taken(desk)
    assert desk.wish(0.0) is None
    drive(desk, "a", 1.0, linear=[0.1, 0, 0], gripper=-3)
    wish = desk.wish(1.0)
    assert wish.linear.tolist() == [0.1, 0, 0] and wish.angular.tolist() == [0, 0, 0] and wish.gripper == -1.0
    assert desk.wish(1.0 + DEADMAN) is not None and desk.wish(1.01 + DEADMAN) is None
    drive(desk, "a", 1.5)
    assert desk.wish(1.5) is not None, "a short silence is a hiccup"
    drive(desk, "a", 1.6 + PAUSE)
    assert desk.wish(1.6 + PAUSE) is None, "a long one is no letting go"
    drive(desk, "a", 2.7, held=False)
    drive(desk, "a", 2.8)
    assert desk.wish(2.8) is not None
    drive(desk, "a", 2.9, held=False)
    assert desk.wish(2.9) is None


def test_two_pages_do_not_drive_at_once(desk):
    taken(desk)
    drive(desk, "a", 1.0)
    with pytest.raises(UsageError, match="another page drives"):
        desk.hear("b", {"do": "take"}, 1.1)
    with pytest.raises(UsageError, match="does not drive"):
        drive(desk, "b", 1.1, linear=[9, 9, 9])
    assert desk.wish(1.15).linear.tolist() == [0, 0, 0]
    desk.hear("a", {"do": "leave"}, 1.15)
    assert desk.wish(1.15) is None and desk.holder == ""
    desk.hear("b", {"do": "take"}, 1.2)
    drive(desk, "b", 1.2)
    assert desk.wish(1.2) is None, "a switch that was held before is let go of first"


def test_a_silent_page_loses_the_lease_and_one_that_is_gone_at_once(desk):
    taken(desk)
    desk.hear("b", {"do": "take"}, LEASE + 0.1)
    assert desk.holder == "b"
    desk.gone("b")
    desk.gone("b")
    taken(desk, "a", LEASE + 0.2)
    assert desk.holder == "a"


def test_what_was_held_up_on_the_way_is_no_wish(desk):
    taken(desk, now=100.0)
    drive(desk, "a", 101.0, t=1.0 + 100.0)
    assert desk.wish(101.0) is not None
    drive(desk, "a", 103.0, t=101.02)
    assert desk.wish(103.0) is None, "two seconds on the way"
    drive(desk, "a", 103.01, held=False, t=103.01)
    drive(desk, "a", 103.2, t=103.1)
    assert desk.wish(103.2) is not None and desk.wish(103.11 + DEADMAN) is None, "the way counts against its life"


def test_anybody_may_stop_and_then_nothing_is_wished_for(desk, stops):
    taken(desk)
    drive(desk, "a", 1.0)
    desk.hear("stranger", {"do": "stop"}, 1.0)
    assert stops == [1] and desk.wish(1.0) is None
    desk.must_release()
    drive(desk, "a", 1.1)
    assert desk.wish(1.1) is None


def test_only_the_page_that_drives_releases_a_stop_or_records(desk):
    taken(desk)
    desk.hear("a", {"do": "clear"}, 1.0)
    desk.hear("a", {"do": "record"}, 1.0)
    with pytest.raises(UsageError, match="does not drive"):
        desk.hear("b", {"do": "clear"}, 1.0)
    assert desk.requests() == ["clear", "record"] and desk.requests() == []


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ([], "JSON object"),
        ("stop", "JSON object"),
        ({}, "`do` is"),
        ({"do": "explode"}, "explode"),
        ({"do": ["stop"]}, "`do` is"),
        ({"do": "drive", "held": True}, "t is a finite number"),
        ({"do": "drive", "t": 0, "held": 1}, "held is true or false"),
        ({"do": "drive", "t": 0, "held": True, "linear": [1, 2]}, "linear is a list of 3"),
        ({"do": "drive", "t": 0, "held": True, "linear": [1, 2, math.nan]}, "finite"),
        ({"do": "drive", "t": 0, "held": True, "joints": [1e300] * 7}, "at most 100"),
        ({"do": "drive", "t": 0, "held": True, "joints": [0.0] * 6}, "joints is a list of 7"),
        ({"do": "drive", "t": 0, "held": True, "hand": [0.0] * 7}, "unit quaternion"),
        ({"do": "drive", "t": 0, "held": True, "gripper": "open"}, "gripper is a finite number"),
        ({"do": "drive", "t": 0, "held": True, "opening": True}, "opening is a finite number"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(desk, message, says):
    taken(desk)
    with pytest.raises(UsageError, match=says):
        desk.hear("a", message, 1.0)
    assert desk.wish(1.0) is None


json = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=3))  # fmt: skip


@given(st.dictionaries(st.sampled_from(["do", "t", "held", "linear", "joints", "hand", "gripper", "opening"]),
                       st.sampled_from(["drive", "take", 0.0, True]) | json))  # fmt: skip
def test_no_message_breaks_the_desk_or_makes_a_wish_that_is_not_finite(message):
    desk = Desk(FR3, lambda: None)
    taken(desk)
    try:
        desk.hear("a", message, 0.1)
    except UsageError as error:
        assert str(error)
    wish = desk.wish(0.1)
    assert wish is None or all(math.isfinite(x) for x in (*wish.linear, *wish.angular, wish.gripper))
