"""The teleoperation server without a browser: token, origin, lease, states, certificates."""

import http.client
import json
import ssl
import subprocess
import time
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from poise.errors import PoiseError, UsageError
from poise.real_robot.certificate import server_context
from poise.real_robot.desk import Desk
from poise.real_robot.robot import Robot
from poise.real_robot.teleop_server import TeleopServer
from poise.robots import FR3


@pytest.fixture
def desk():
    return Desk(FR3, lambda: None)


@pytest.fixture
def server(desk):
    made = TeleopServer(FR3, desk, port=0)
    yield made
    made.close()


def get(server, path):
    where = urlsplit(server.url)
    line = http.client.HTTPConnection(where.hostname, where.port, timeout=5)
    line.request("GET", path)
    answer = line.getresponse()
    body = answer.read().decode()
    line.close()
    return answer.status, answer.headers, body


def page(server, origin=None, token=None):
    where = urlsplit(server.url)
    query = where.query if token is None else f"token={token}"
    return connect(f"ws://{where.netloc}/drive?{query}", origin=origin or f"http://{where.netloc}", open_timeout=10)


def states(socket, count=1):
    found = []
    while len(found) < count:
        message = json.loads(socket.recv(timeout=5))
        if "state" in message:
            found.append(message["state"])
    return found


def test_the_page_is_served_to_those_who_know_the_token(server):
    path = "/?" + urlsplit(server.url).query
    status, headers, body = get(server, path)
    assert status == 200 and headers["Content-Type"].startswith("text/html") and "dead-man" in body
    assert headers["X-Frame-Options"] == "DENY" and headers["Cache-Control"] == "no-store"
    assert "http://" not in body.replace("http://www.w3.org", "") and "src=" not in body, (
        "one file, nothing from elsewhere"
    )
    for wrong in ("/", "/?token=", "/?token=guess", "/drive", path.replace("token", "tokem")):
        status, _, body = get(server, wrong)
        assert status == 403 and "token" in body and "<" not in body
    assert get(server, "/other?" + urlsplit(server.url).query)[0] == 404


def test_a_line_needs_the_token_and_the_pages_own_origin(server):
    for options in ({"token": "guess"}, {"token": ""}, {"origin": "http://elsewhere.example"}):
        with pytest.raises(InvalidStatus, match="403"):
            page(server, **options)
    with page(server) as line:
        assert json.loads(line.recv(timeout=5))["hello"]["robot"] == "fr3"


def test_pages_are_told_what_the_arm_does_and_who_drives(server, desk):
    with Robot("twin:fr3", in_process=True) as robot:
        row = next(iter(robot.follow(0.02)))
    server.show({**row, "recording": None, "episodes": None})
    with page(server) as first, page(server) as second:
        assert states(first)[0]["lease"] == "free"
        first.send(json.dumps({"do": "take"}))
        first.send(json.dumps({"do": "drive", "t": 1.0, "held": False}))
        second.send(json.dumps({"do": "take"}))
        message = json.loads(second.recv(timeout=5))
        while "refused" not in message:
            message = json.loads(second.recv(timeout=5))
        assert "another page drives" in message["refused"]
        assert states(first, 4)[-1]["lease"] == "yours" and states(second, 4)[-1]["lease"] == "another's"
        state = states(first)[0]
        assert len(state["measured"]) == 8 and state["opening"] == pytest.approx(0.0, abs=0.1)
        assert state["measured"][-1] == pytest.approx([0.3069, 0.0, 0.4869], abs=0.01)
        first.send(json.dumps({"do": "drive", "t": 1.1, "held": True, "linear": [0.1, 0, 0]}))
        end = time.monotonic() + 5
        while desk.wish(time.monotonic()) is None:
            assert time.monotonic() < end
    end = time.monotonic() + 5
    while desk.holder:
        assert time.monotonic() < end, "a page that is gone has no lease"
    assert desk.wish(time.monotonic()) is None


@pytest.mark.parametrize("garbage", ["", "{", "[]", "[" * 2000, '{"do": "drive"}', b"\x00\x01"])
def test_garbage_is_answered_and_the_line_lives(server, garbage):
    with page(server) as line:
        line.recv(timeout=5)
        line.send(garbage)
        assert "refused" in json.loads(line.recv(timeout=5))


def test_a_message_that_is_too_long_ends_its_line_alone(server):
    with page(server) as line, page(server) as other:
        line.send("x" * 10_000)
        with pytest.raises(ConnectionClosed):
            for _ in range(3):
                line.recv(timeout=5)
        other.recv(timeout=5)


def test_a_port_that_is_taken_or_no_port_is_one_message(server, desk):
    with pytest.raises(PoiseError, match="cannot listen on 127"):
        TeleopServer(FR3, desk, port=urlsplit(server.url).port)
    with pytest.raises(UsageError, match="port = 70000"):
        TeleopServer(FR3, desk, port=70000)


def test_beyond_this_machine_it_is_https_with_a_certificate_of_its_own(desk, tmp_path):
    server = TeleopServer(FR3, desk, host="0.0.0.0", port=0)
    try:
        assert server.url.startswith("https://") and len(server.fingerprint) == 95
        port = urlsplit(server.url).port
        pem = ssl.get_server_certificate(("127.0.0.1", port))
        (tmp_path / "c.pem").write_text(pem)
        trust = ssl.create_default_context(cafile=tmp_path / "c.pem")
        line = http.client.HTTPSConnection("127.0.0.1", port, context=trust, timeout=5)
        line.request("GET", "/?" + urlsplit(server.url).query)
        assert line.getresponse().status == 200
        line.close()
        said = subprocess.run(["openssl", "x509", "-in", tmp_path / "c.pem", "-noout", "-fingerprint", "-sha256"],
                              capture_output=True, text=True, check=True).stdout  # fmt: skip
        assert server.fingerprint in said
    finally:
        server.close()


def test_every_run_has_its_own_key(desk):
    assert server_context(["127.0.0.1"])[1] != server_context(["127.0.0.1", "robot.local"])[1]
