"""Versioned weights in shared memory: the newest, whole, or none."""

import threading

import numpy as np
import torch

from poise.policies.weight_board import BEGUN, Publisher, WeightBoard, pack


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2, 3), value), "count": torch.tensor(value, dtype=torch.float64),
            "mean": torch.full((4,), value, dtype=torch.float64)}  # fmt: skip


def both() -> tuple[WeightBoard, WeightBoard]:
    writer = WeightBoard(weights(0.0))
    return writer, WeightBoard(weights(0.0), writer.descriptor)


def test_what_is_published_is_found_once_under_the_next_version():
    writer, reader = both()
    assert reader.newest(0) is None
    writer.publish(pack(weights(1.5)).numpy())
    writer.publish(pack(weights(2.5)).numpy())
    found = reader.newest(0)
    assert found is not None and found[0] == 2
    assert all(torch.equal(found[1][name], tensor) for name, tensor in weights(2.5).items())
    assert reader.newest(2) is None


def test_a_copy_belongs_to_the_reader():
    writer, reader = both()
    publisher = Publisher(writer)
    publisher.offer(weights(1.0))
    found = reader.newest(0)
    publisher.offer(weights(2.0))
    publisher.offer(weights(3.0))
    assert found is not None and found[1]["w"].unique().tolist() == [1.0]


def test_while_the_next_version_is_written_the_newest_is_whole():
    writer, reader = both()
    writer.publish(pack(weights(1.0)).numpy())
    writer._words[BEGUN] = 2
    writer._places[0][:] = 255
    found = reader.newest(0)
    assert found is not None and found[0] == 1 and found[1]["w"].unique().tolist() == [1.0]


def test_where_stores_may_be_seen_out_of_order_a_checksum_tells_what_is_whole(monkeypatch):
    monkeypatch.setattr("poise.policies.weight_board.ORDERED", False)
    writer, reader = both()
    writer.publish(pack(weights(1.0)).numpy())
    found = reader.newest(0)
    assert found is not None and found[1]["w"].unique().tolist() == [1.0]
    writer._places[1][3] += 1  # of a version that is there already, as an early look would see it
    looks = iter([1, 1, 0])  # then somebody looks away
    monkeypatch.setattr(WeightBoard, "version", property(lambda self: next(looks)))
    assert reader.newest(0) is None


def test_a_reader_meets_no_mixture_while_versions_fly_by():
    writer, reader = both()
    packed = [pack(weights(float(i))).numpy() for i in range(50)]

    def write():
        for _ in range(40):
            for one in packed:
                writer.publish(one)

    thread = threading.Thread(target=write)
    thread.start()
    seen, looks = 0, 0
    while thread.is_alive() or seen < 2000:
        if (found := reader.newest(seen)) is not None:
            seen, looks = found[0], looks + 1
            numbers = np.concatenate([t.double().numpy().ravel() for t in found[1].values()])
            assert (numbers == (seen - 1) % 50).all()
    thread.join()
    assert looks > 0
