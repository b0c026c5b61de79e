"""Cameras over real sockets: stamped, in order, shrunk as a policy wants them, noticed when late, hung or gone."""

import itertools
import json
import time
import urllib.request

import cv2
import h5py
import numpy as np
import pytest

from conftest_camera import camera_policy, emulated_camera
from poise.cli import main
from poise.datasets.check import check
from poise.datasets.episodes import EpisodeFile, environment
from poise.errors import NotConnectedError, SpecError, UsageError
from poise.real_robot.camera import CameraOptions, middle, small_intrinsics, split_camera
from poise.real_robot.cameras import Cameras
from poise.real_robot.emulators.camera import counter_of
from poise.real_robot.recording import Recording
from poise.real_robot.robot import Robot

COPIED = ("actions_asked", "actions", "joint_pos_target", "verdict", "t_mono", "t_device")


def order(address, word):
    url = address.partition(":")[2].partition("/stream")[0] + f"/do/{word}"
    urllib.request.urlopen(url).close()


def test_frames_come_stamped_in_order_and_what_goes_wrong_is_noticed():
    with emulated_camera(width=320, height=240, fps=20) as address:
        options = "&max_same=5&max_age=1.5"
        with Cameras({"front": address + options}, {"front": (24, 32)}) as cameras:
            view = cameras.view()
            ring = view.rings["front"][0]
            time.sleep(1.5)
            found = ring.read()
            counters = [counter_of(frame["pixels"]) for frame in found.records]
            assert len(counters) >= 8 and (np.diff(counters) >= 1).all() and found.missed == 0
            assert (np.diff(found.records["t_host"]) > 0).all()
            assert 0 <= time.monotonic() - found.records["t_host"][-1] < 1.5
            last = found.records[-1]
            np.testing.assert_array_equal(
                last["small"], cv2.resize(last["pixels"], (32, 24), interpolation=cv2.INTER_AREA)
            )
            assert view.trouble(("front",)) == ""
            frames, numbers = view.newest()
            assert frames["front"].shape == (24, 32, 3) and numbers["front"] >= found.sequence[-1]

            order(address, "freeze")
            assert until(lambda: "frames in a row are equal" in view.trouble(("front",)))
            order(address, "clear")
            assert until(lambda: view.trouble(("front",)) == "")
            order(address, "stall")
            assert until(lambda: "s old, at most 1.5 s" in view.trouble(("front",)))
            order(address, "drop")
            time.sleep(0.5)
            order(address, "clear")
            assert until(lambda: view.trouble(("front",)) == "", 20.0)
            assert until(lambda: ring.newest()[1]["reconnects"] >= 1, 20.0)
            cameras.processes["front"].kill()
            assert until(lambda: "old" in view.trouble(("front",)))


def until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.02)
    return False


def test_a_policy_looks_through_a_camera_is_recorded_and_stopped_when_it_goes_blind(tmp_path):
    policy, spec = camera_policy(tmp_path)
    with (
        emulated_camera(width=320, height=240, fps=20) as address,
        Cameras({"front": address + "&max_age=1.5"}, {"front": (84, 84)}) as cameras,
        Robot("twin:fr3?realtime=1", cameras=cameras) as robot,
        Recording(tmp_path / "out.hdf5", spec, environment("x"), robot, rings=cameras.rings) as recording,
    ):
        rows, last = [], None
        for row in robot.run_episode(policy, {}, 20):
            if "last_obs" in row:
                last = row
                break
            recording.step(row["obs"], {name: row[name] for name in COPIED} | {"rewards": 0.0}, row["frames"])
            rows.append(row)
        recording.end(last["last_obs"], frames=last["frames"])
        assert len(rows) == 20 and "front" not in rows[0]["obs"] and recording.fault == ""
        assert recording.rows["front"] >= 5 and recording.missed["front"] == 0
        order(address, "stall")
        time.sleep(2.0)
        blind = list(robot.run_episode(policy, {}, 20))
        assert len(blind) < 20 and "camera front: its newest frame is" in robot.fault
    with EpisodeFile(tmp_path / "out.hdf5") as file, h5py.File(tmp_path / "out.hdf5") as h5:
        seen = file["demo_0"]["obs"]["front"]
        assert seen.shape == (20, 84, 84, 3) and seen.dtype == np.uint8
        log = h5["log/cameras/front"]
        ends = log["end"][:]
        at = int(np.flatnonzero(log["sequence"][:] == rows[5]["frames"]["front"])[0])
        coded = log["jpeg"][ends[at - 1] if at else 0 : ends[at]]
        picture = cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]
        small = cv2.resize(np.ascontiguousarray(picture[:, 40:280]), (84, 84), interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - seen[5]).mean() < 2.0, "the picture of the log is the one that the policy saw"
        pictures = [cv2.imdecode(log["jpeg"][a:b], cv2.IMREAD_COLOR) for a, b in itertools.pairwise(ends)]
        assert (np.diff([counter_of(picture) for picture in pictures]) >= 1).all()
    assert "black-image" not in check(tmp_path / "out.hdf5").counts


def test_a_policy_that_looks_where_no_camera_is_is_refused(tmp_path):
    policy, _ = camera_policy(tmp_path)
    with (
        Robot("twin:fr3", in_process=True) as robot,
        pytest.raises(SpecError, match="observation front/front: not available"),
    ):
        list(robot.run_episode(policy, {}, 2))


def test_poise_deploy_looks_through_the_cameras_that_it_is_given(tmp_path, capsys):
    """From the command line: two cameras, of which the policy knows one; both are recorded, with what their lens is."""
    policy, _ = camera_policy(tmp_path, intrinsics=(105.0, 106.0, 42.0, 42.0), task="reach/fr3")
    out = tmp_path / "out.hdf5"
    size = {"width": 320, "height": 240, "fps": 5}  # so few that a busy machine overruns none
    with emulated_camera(**size) as front, emulated_camera(**size) as side:
        more = "&max_age=4&intrinsics="
        command = ["deploy", policy, "--robot", "twin:fr3", "--episodes", "1", "--record", str(out), "--json"]
        seen = ["--camera", f"front={front}{more}300,303,160,120", "--camera", f"side={side}&max_age=4"]
        assert main(command + seen) == 0
        summary = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (
            summary["recording_fault"] == ""
            and summary["robot"] == "twin:fr3?realtime=1"
            and summary["fault"] == ""
            and summary["recording_missed"] == 0
        ), summary
        for lens, told in (
            ("", "are not known; calibrate it"),
            (f"{more}300,303,100,120", "expected 105, 106, 42, 42"),
        ):
            assert main([*command, "--camera", f"front={front}{lens}"]) == 1
            assert told in capsys.readouterr().err
    with EpisodeFile(out) as file, h5py.File(out) as h5:
        (term,) = file.spec.observations["front"]
        assert term.intrinsics == pytest.approx((105.0, 106.05, 42.0, 42.0))
        assert file["demo_0"]["obs"]["front"].shape == (100, 84, 84, 3)
        assert set(h5["log/cameras"]) == {"front", "side"} and len(h5["log/cameras/side/end"]) >= 10
        assert file.provenance["cameras"]["front"].endswith("intrinsics=300,303,160,120")


def test_the_middle_of_a_picture_has_the_specs_aspect_and_its_intrinsics():
    assert middle((480, 640), (84, 84)) == (0, 80, 480, 480)
    assert middle((240, 320), (24, 32)) == (0, 0, 240, 320)
    options = CameraOptions(640, 480, intrinsics="600,610,330,250")
    np.testing.assert_allclose(small_intrinsics(options, (84, 84)), [105.0, 106.75, 43.75, 43.75])
    assert small_intrinsics(CameraOptions(), (84, 84)) == ()
    with pytest.raises(UsageError, match="fx,fy,cx,cy"):
        small_intrinsics(CameraOptions(intrinsics="1,2"), (84, 84))


@pytest.mark.parametrize(
    "address, why",
    [
        ("front", "looks like"),
        ("usb:0", "looks like"),
        ("v4l2:/dev/video0?with=3", "unknown camera option"),
        ("v4l2:/dev/video0?width=x", "no number"),
        ("v4l2:/dev/video0?max_age=0", "above 0"),
    ],
)
def test_an_address_that_is_none_is_refused(address, why):
    with pytest.raises(UsageError, match=why):
        split_camera(address)


def test_a_camera_that_is_not_there_or_has_another_size_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("poise.real_robot.cameras.START_WAIT", 1.5)
    with pytest.raises(NotConnectedError, match="camera front at v4l2:/dev/video97 shows nothing"):
        Cameras({"front": "v4l2:/dev/video97"})
    monkeypatch.setattr("poise.real_robot.cameras.START_WAIT", 20.0)
    with (
        emulated_camera(width=320, height=240) as address,
        pytest.raises(NotConnectedError, match=r"320 x 240; write \?width=320"),
    ):
        Cameras({"front": address.partition("?")[0]})
