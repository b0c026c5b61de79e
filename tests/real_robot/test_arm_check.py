"""An arm is looked at, and its delay found by a motion."""

import json

import pytest

from poise.cli import main
from poise.real_robot.arm_check import check_arm, find_latency, motion_periods


@pytest.mark.parametrize(("address", "latency"), [
    ("twin:fr3?latency=0.04", 0.04),
    ("twin:fr3?latency=0.012&gain=0.8", 0.012),
    ("twin:ur5e?latency=0.02", 0.029),  # and 9 ms by which the mean of ten commands is late
])  # fmt: skip
def test_the_delay_is_found_to_a_millisecond_and_given_as_a_range_to_train_in(address, latency):
    term, found = find_latency(address, duration=4.0, in_process=True)
    assert (term.what, term.operation) == ("action_latency", "set")
    assert sum(term.range) / 2 == pytest.approx(latency, abs=0.0015)
    assert term.range[0] < latency < term.range[1] and found.rms < 1e-3


def test_looking_tells_rate_noise_room_and_moves_nothing():
    seen = check_arm("twin:fr3?noise=0.002", seconds=0.5, in_process=True)
    assert seen.robot == "fr3" and seen.scheduling == "simulated time" and seen.fault == ""
    assert seen.rate == pytest.approx(200.0, rel=1e-6) and seen.wanted == 200.0 and seen.late == 0.0
    assert 0.001 < seen.noise < 0.003 and seen.away < 0.02 and seen.room > 0.5 and seen.warnings == ()
    heavy = check_arm("twin:fr3?gain=0.1&mass=1.5&payload=3", seconds=0.5, in_process=True)
    assert any("payload or gains" in line for line in heavy.warnings)


def test_the_command_writes_a_randomization_that_training_takes(tmp_path, capsys):
    assert motion_periods("twin:fr3") == 1600
    out = tmp_path / "delay.json"
    assert main(["robot", "check", "twin:fr3?latency=0.03", "--seconds", "0.3", "--motion", "--out", str(out)]) == 0
    assert "delay        30.0 ms" in capsys.readouterr().out
    (term,) = json.loads(out.read_text())["terms"]
    assert term["what"] == "action_latency" and term["range"][0] < 0.03 < term["range"][1]
