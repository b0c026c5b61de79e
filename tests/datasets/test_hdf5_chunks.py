"""Compressed chunks that would inflate to more than their array says."""

from __future__ import annotations

import zlib

import h5py
import numpy as np
import pytest

from poise.datasets.open_log import open_log
from poise.errors import DatasetError


def write(path, chunk: bytes | None, rows=4, **options):
    with h5py.File(path, "w") as h5:
        demo = h5.create_group("data/demo_0")
        demo.attrs["num_samples"], demo["actions"] = rows, np.zeros((rows, 1))
        x = demo.create_dataset("obs/x", (rows, 250), "f8", chunks=(rows, 250), **options)
        if chunk is None:
            x[:] = np.random.default_rng(0).normal(size=x.shape)
        else:
            x.id.write_direct_chunk((0, 0), chunk)
    return path


def test_honest_chunks_are_read_whatever_they_are_compressed_by(tmp_path):
    for i, options in enumerate([{"compression": "gzip"}, {"compression": "gzip", "shuffle": True, "fletcher32": True},
                                 {"compression": "lzf"}, {}]):  # fmt: skip
        with open_log(write(tmp_path / f"{i}.hdf5", None, 2000, **options)) as log:  # 4 MB that hardly shrink
            found = log.episodes[0].columns["obs/x"][:]
            assert np.array_equal(found, np.random.default_rng(0).normal(size=(2000, 250)))


@pytest.mark.parametrize("rows, inflated", [(4, 64 << 20), (500, 600 << 20)])
def test_a_chunk_that_inflates_beyond_its_size_is_refused_before_it_does(tmp_path, rows, inflated):
    write(tmp_path / "a.hdf5", zlib.compress(b"\0" * inflated, 1), rows, compression="gzip")
    with open_log(tmp_path / "a.hdf5") as log, pytest.raises(DatasetError, match=r"obs/x: the chunk at \(0, 0\)"):
        log.episodes[0].columns["obs/x"][:]
