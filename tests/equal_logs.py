"""Whether two logs are the same to the bit, for tests of conversions."""

from __future__ import annotations

import numpy as np

from poise.datasets.log import Log


def assert_equal_logs(one: Log, other: Log, attributes: bool = True) -> None:
    assert [e.name for e in one.episodes] == [e.name for e in other.episodes]
    assert dict(one.filters) == dict(other.filters)
    pairs = [(one, other), *zip(one.episodes, other.episodes, strict=True)] if attributes else []
    for a, b in pairs:
        assert set(a.attributes) == set(b.attributes)
        for name, value in a.attributes.items():
            assert np.array_equal(value, b.attributes[name]), name
    for a, b in zip(one.episodes, other.episodes, strict=True):
        assert set(a.columns) == set(b.columns)
        for name in a.columns:
            x, y = np.asarray(a.columns[name][:]), np.asarray(b.columns[name][:])
            assert (x.dtype, x.shape) == (y.dtype, y.shape), name
            assert x.tolist() == y.tolist() if x.dtype.kind == "O" else x.tobytes() == y.tobytes(), name
