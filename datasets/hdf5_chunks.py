"""Whether compressed chunks of an HDF5 array are as large as the array says, before HDF5 inflates them.

HDF5 inflates a chunk to wherever its stream ends, a thousand times its bytes at most; what it is then compared with is
only how large the chunk should have been.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import h5py

from ..errors import DatasetError

RATIO = 1032  # of deflate, at most
HARMLESS = 1 << 28  # bytes of memory that one chunk may take for a moment, whatever it holds


def check_chunks(array: Any, where: str) -> None:
    """Look at every deflated chunk of an array, by its low-level identifier; inflate once those that could be large.

    Raises:
        DatasetError: one is larger than the array says.
    """
    properties = array.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if h5py.h5z.FILTER_DEFLATE not in filters:
        return
    if filters.count(h5py.h5z.FILTER_DEFLATE) > 1:
        raise DatasetError(f"{where} is compressed twice, which no file of demonstrations needs")
    size = math.prod(properties.get_chunk()) * array.dtype.itemsize
    chunks: list[Any] = []
    array.chunk_iter(chunks.append)
    for chunk in chunks:
        if chunk.size > size + size // 100 + 1024 or (
            RATIO * chunk.size > HARMLESS and _inflated_beyond(array, chunk.chunk_offset, size)
        ):
            raise DatasetError(f"{where}: the chunk at {chunk.chunk_offset} inflates beyond its {size:,} bytes")


def _inflated_beyond(array: Any, offset: tuple[int, ...], size: int) -> bool:
    """Whether a chunk inflates to more than `size` bytes, and the few that a check sum takes."""
    mask, stored = array.read_direct_chunk(offset)
    try:
        return mask == 0 and len(zlib.decompressobj().decompress(stored, size + 16)) > size + 8
    except zlib.error:
        return False  # damaged, or in another order of filters: HDF5 says so, and has nothing to inflate
