"""Checked by mypy, not run: the public API as users annotate it."""

from typing import assert_type

import numpy as np
from numpy.typing import NDArray

from sparsearray import (
    AccessError,
    AtomicSlice,
    Region,
    SharedMemory,
    SparseBuffer,
    StitchedArray,
    save,
    shared_memory,
    stitch,
)


def use(buffer: SparseBuffer, memory: SharedMemory, slots: AtomicSlice) -> None:
    """Call what there is and name the types of the results."""
    assert_type(buffer.nbytes, int)
    assert_type(buffer.regions, tuple[Region, ...])
    assert_type(buffer.regions[0].file, str | None)
    assert_type(buffer.read_at(0, 8), bytes)
    assert_type(buffer.extents(), NDArray[np.int64])
    assert_type(buffer.refresh(), int)
    assert_type(buffer[0:10], NDArray[np.uint8])
    buffer.alloc(0, 4096, reserve=True)
    buffer.map_file(0, 4096, memory, writable=True)
    buffer.write_plain(0, 1.5, "f4")
    window = buffer.window(0, (4, 4), "f4", order="F")
    window += 1
    assert_type(buffer.atomic_slice(0, 4), AtomicSlice)
    assert_type(slots.compare_exchange(0, 1, 2), tuple[bool, int])
    assert_type(shared_memory(4096), SharedMemory)
    assert_type(save("a.npy", window, parts=2), list[str])
    assert_type(stitch(["a.0.npy", ("b", 0, 8)], "f4", mode="r+"), StitchedArray)
    with buffer as same:
        assert_type(same, SparseBuffer)
    try:
        buffer.read_at(0, 1)
    except AccessError as error:
        assert_type(error.offset, int)
        assert_type(error.reason, str)
