"""`poise robot …` as a user types it."""

import json

import pytest

from poise.cli import main


def call(capsys, *arguments):
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_home_moves_the_arm_there_and_says_where_it_stands(capsys):
    code, out, _ = call(capsys, "robot", "home", "twin:so101?noise=0", "--json")
    assert code == 0 and "shoulder_pan" in out
    assert json.loads(out.splitlines()[-1])["away"] < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs an action"),
        (("home",), "ROBOT"),
        (("home", "twin:fr33"), "did you mean fr3"),
        (("home", "twin:fr3", "--speed", "2"), "speed is a fraction"),
        (("teleop", "twin:fr33"), "did you mean fr3"),
        (("teleop", "twin:fr3", "--speed", "0.5"), "at most 0.25 m/s"),
        (("teleop", "twin:so101", "--control-dt", "0.033"), "no whole number"),
        (("teleop", "twin:fr3", "--port", "99999"), "port = 99999"),
        (("emulate", "so1O1"), "unknown emulator"),
    ],
)
def test_wrong_usage_is_one_message(capsys, arguments, message):
    code, _, err = call(capsys, "robot", *arguments)
    assert code == 2 and message in err and "Traceback" not in err
