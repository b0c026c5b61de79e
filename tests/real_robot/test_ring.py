"""The ring: whole records or none, counted when overrun, whatever the writer does, and a peer's death at once."""

import mmap
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from poise.errors import NotConnectedError, RobotError, UsageError
from poise.real_robot.peer import Peer
from poise.real_robot.ring import RingReader, RingWriter, make_ring

ROW = np.dtype([("n", "i8"), ("x", "f8", (3,)), ("name", "S4")])


@pytest.fixture(params=[False, True], ids=["ordered", "checksummed"])
def writer(request):
    ring = RingWriter(make_ring(ROW, 8, checksummed=request.param))
    yield ring
    ring.close()


@pytest.fixture
def reader(writer):
    ring = RingReader(os.dup(writer.descriptor))
    yield ring
    ring.close()


def write(writer, *numbers):
    for n in numbers:
        writer.write(n=n, x=[n, 0.5, -n], name=b"abc")


def test_records_come_in_order_and_to_the_bit(writer, reader):
    assert reader.newest() is None and len(reader.read().records) == 0
    write(writer, 5, 6)
    found = reader.read()
    assert found.records["n"].tolist() == [5, 6] and found.sequence.tolist() == [1, 2] and found.missed == 0
    assert found.records["x"].tolist() == [[5, 0.5, -5], [6, 0.5, -6]] and found.records["name"][0] == b"abc"
    assert reader.read().records.size == 0
    sequence, record = reader.newest()
    assert sequence == 2 and record["n"] == 6 and record["x"].tolist() == [6, 0.5, -6]
    assert reader.dtype == writer.dtype == ROW and reader.writer_pid == os.getpid()


def test_what_was_overrun_is_counted_and_what_is_left_is_given(writer, reader):
    write(writer, *range(1, 21))  # slots 8, of which one may be in the making
    found = reader.read()
    assert found.missed == 13 and found.records["n"].tolist() == list(range(14, 21))
    write(writer, 21)
    assert reader.read().records["n"].tolist() == [21]
    assert reader.at(20)["n"] == 20 and reader.at(2) is None and reader.at(22) is None and reader.at(0) is None


def test_a_limit_leaves_the_rest_for_later(writer, reader):
    write(writer, 1, 2, 3, 4)
    assert reader.read(limit=3).records["n"].tolist() == [1, 2, 3]
    assert reader.read(limit=3).records["n"].tolist() == [4]


def test_a_record_lacks_no_field_and_rings_take_plain_data_alone(writer):
    with pytest.raises(UsageError, match="a record holds n, x, name"):
        writer.write(n=1, x=[0, 0, 0])
    with pytest.raises(UsageError, match="plain named fields"):
        make_ring(np.dtype([("x", "O")]), 8)
    with pytest.raises(UsageError, match="plain named fields"):
        make_ring(np.dtype("f8"), 8)
    with pytest.raises(UsageError, match="at least 4"):
        make_ring(ROW, 2)


def test_a_reader_cannot_write_and_nobody_can_shorten_the_memory(writer, reader):
    with pytest.raises(TypeError):
        reader._bytes[0] = 1
    with pytest.raises(OSError):
        os.ftruncate(writer.descriptor, 100)


def test_other_memory_is_refused():
    other = os.memfd_create("other")
    os.ftruncate(other, mmap.PAGESIZE)
    with pytest.raises(RobotError, match="no ring"):
        RingReader(other)
    with pytest.raises(OSError):
        os.fstat(other)  # taken over, and let go


def test_another_writer_goes_on_where_a_dead_one_stopped(writer, reader):
    write(writer, 1, 2)
    second = RingWriter(os.dup(writer.descriptor))
    write(second, 3)
    assert reader.read().records["n"].tolist() == [1, 2, 3]
    second.close()


HAMMER = """
import sys, numpy as np
from poise.real_robot.ring import RingWriter
ring = RingWriter(int(sys.argv[1]))
n = 0
while True:
    n += 1
    ring.write(n=n, data=np.full(ring.dtype["data"].shape, n, np.uint32))
"""


def hammer(ring):
    return subprocess.Popen([sys.executable, "-c", HAMMER, str(ring.descriptor)], pass_fds=[ring.descriptor])


@pytest.mark.parametrize("words,checksummed", [(16, False), (4000, False), (60_000, False), (4000, True)])
def test_no_torn_record_is_ever_seen_while_another_process_hammers(words, checksummed):
    ring = RingWriter(make_ring(np.dtype([("n", "i8"), ("data", "u4", (words,))]), 4, checksummed))
    reader, process = RingReader(os.dup(ring.descriptor)), hammer(ring)
    try:
        while reader.head < 10:
            time.sleep(0.001)
        seen, total, missed, end = 0, 0, 0, time.monotonic() + 0.5
        while time.monotonic() < end:
            sequence, record = reader.newest()
            assert (record["data"] == record["n"]).all() and record["n"] == sequence
            found = reader.read()
            assert (found.records["data"] == found.records["n"][:, None]).all()
            assert found.records["n"].tolist() == found.sequence.tolist()
            assert (found.sequence > seen).all() and len(found.sequence) + found.missed == reader.seen - seen
            seen, total, missed = reader.seen, total + len(found.sequence), missed + found.missed
        assert total + missed == reader.seen > 100
    finally:
        process.kill()
        process.wait()
        reader.close()
        ring.close()


def test_a_writer_killed_at_any_moment_leaves_readers_whole():
    ring = RingWriter(
        make_ring(np.dtype([("n", "i8"), ("data", "u4", (200_000,))]), 4)
    )  # long enough to be killed within
    reader = RingReader(os.dup(ring.descriptor))
    for trial in range(5):
        process, before = hammer(ring), reader.head
        while reader.head < before + 5:
            time.sleep(0.001)
        time.sleep(0.003 * trial)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        _, record = reader.newest()
        assert (record["data"] == record["n"]).all()
        found = reader.read()
        assert len(found.records) >= 2 and (found.records["data"] == found.records["n"][:, None]).all()
    reader.close()
    ring.close()


def test_one_write_costs_a_control_loop_microseconds():
    ring = RingWriter(make_ring(np.dtype([("t", "f8"), ("q", "f8", (7,)), ("v", "f8", (7,)), ("u", "f8", (7,))]), 1024))
    q = np.zeros(7)
    took = []
    for k in range(2000):
        began = time.perf_counter()
        ring.write(t=k, q=q, v=q, u=q)
        took.append(time.perf_counter() - began)
    assert np.median(took) < 50e-6
    ring.close()


def test_the_death_of_a_peer_is_noticed_at_once():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    peer = Peer(process.pid, "the sleeper")
    assert peer.alive() and not peer.wait(0.01) and peer.fileno() >= 0
    process.kill()
    assert peer.wait(2.0) and not peer.alive(), "not yet waited for, and dead all the same"
    process.wait()
    assert not peer.alive()
    peer.close()
    peer.close()
    with pytest.raises(NotConnectedError, match="the sleeper"):
        Peer(process.pid, "the sleeper")
