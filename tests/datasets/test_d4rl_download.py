"""Downloads of D4RL's files, from a server on this machine."""

import hashlib
import http.server
import io
import re
import threading

import h5py
import numpy as np
import pytest

from poise.datasets import d4rl_download, d4rl_names
from poise.datasets.open_log import open_log
from poise.errors import DatasetError, UsageError

NAME = "hopper-medium-v0"


def a_file() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as h5:
        h5["observations"], h5["actions"] = np.random.default_rng(0).normal(size=(2500, 3)), np.zeros((2500, 1))
        h5["rewards"], h5["terminals"] = np.zeros(2500), np.zeros(2500, bool)
    return buffer.getvalue()


class Server(http.server.ThreadingHTTPServer):
    body, etag, stop_after, ranges, requests = b"", '"one"', None, True, ()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        body, start, wanted = self.server.body, 0, self.headers.get("Range")
        self.server.requests = (*self.server.requests, wanted)
        if wanted and self.server.ranges and self.headers["If-Range"] == self.server.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", self.server.etag)
        self.end_headers()
        self.wfile.write(body[start : self.server.stop_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "sets"))
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        found.body = a_file()
        table = {NAME: {"url": f"http://127.0.0.1:{found.server_port}/some/hopper.hdf5", "horizon": 1000}}
        monkeypatch.setattr(d4rl_names, "entries", lambda: table)
        yield found
        found.shutdown()


def test_a_set_is_downloaded_once_and_its_time_limit_is_known(server, tmp_path):
    for _ in range(2):
        with open_log(f"d4rl:{NAME}") as log:
            assert [e.steps for e in log.episodes] == [1000, 1000, 500]
    assert server.requests == (None,)
    names = sorted(p.name for p in (tmp_path / "sets").iterdir())
    assert names == ["hopper.hdf5", "hopper.hdf5.sha256"]
    assert (
        tmp_path / "sets/hopper.hdf5.sha256"
    ).read_text() == f"{hashlib.sha256(server.body).hexdigest()}  hopper.hdf5\n"


def test_a_broken_download_is_no_file_and_is_gone_on_with(server, tmp_path):
    server.stop_after = 30_000
    with pytest.raises(DatasetError, match=r"ended after 30,000 of .* bytes; the same command goes on"):
        d4rl_download.fetch(NAME)
    assert not (tmp_path / "sets/hopper.hdf5").exists()
    server.stop_after = None
    assert d4rl_download.fetch(NAME).read_bytes() == server.body
    assert server.requests == (None, "bytes=30000-")


@pytest.mark.parametrize("change", [{"etag": '"two"'}, {"ranges": False}])
def test_what_cannot_be_gone_on_with_comes_whole(server, change):
    server.stop_after = 30_000
    with pytest.raises(DatasetError, match="ended after"):
        d4rl_download.fetch(NAME)
    server.stop_after = None
    for name, value in change.items():
        setattr(server, name, value)
    assert d4rl_download.fetch(NAME).read_bytes() == server.body


def test_a_file_that_changed_since_it_came_is_refused(server):
    file = d4rl_download.fetch(NAME)
    data = bytearray(file.read_bytes())
    data[40_000] ^= 1
    file.write_bytes(data)
    with pytest.raises(DatasetError, match=r"it is damaged or another file. Remove it"):
        d4rl_download.fetch(NAME)


def test_a_file_put_there_by_hand_serves(server, tmp_path):
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/hopper.hdf5").write_bytes(server.body)
    assert d4rl_download.fetch(NAME) == tmp_path / "sets/hopper.hdf5"
    assert server.requests == ()
    assert (tmp_path / "sets/hopper.hdf5.sha256").exists()


def test_a_page_in_place_of_the_file_is_refused(server, tmp_path):
    server.body = b"<html>please log in</html>"
    with pytest.raises(DatasetError, match="is no HDF5 file, perhaps the page of a proxy"):
        d4rl_download.fetch(NAME)
    assert not list((tmp_path / "sets").glob("*.hdf5"))


def test_without_a_network_the_error_says_what_to_put_where(server, tmp_path):
    url = d4rl_names.entry(NAME)["url"]
    server.shutdown()
    server.server_close()
    with pytest.raises(DatasetError, match=re.escape(url)) as caught:
        d4rl_download.fetch(NAME)
    assert f"Put the file there by hand: {tmp_path / 'sets/hopper.hdf5'}" in str(caught.value)


def test_an_unknown_set_is_named():
    with pytest.raises(UsageError, match="unknown D4RL data set 'hopper-medum-v2'; did you mean hopper-medium-v"):
        open_log("d4rl:hopper-medum-v2")
