"""Checked by mypy, not run: the public API as users annotate it."""

import re
from collections.abc import Iterator
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import sparsearray
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
from sparsearray.images import Image, Segment, open_elf, open_raw


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


def push(ring: sparsearray.Ring, memory: SharedMemory) -> None:
    """Make a ring, push to it and read."""
    assert_type(sparsearray.ring(10, "f4", memory=memory), sparsearray.Ring)
    ring.push([1, 2, 3])
    ring.push(np.arange(5))
    assert_type(ring.last(3), NDArray[Any])
    assert_type(ring.pushed, int)
    assert_type(ring.reader().read(), NDArray[Any])


def look_into(image: Image) -> None:
    """The same of images."""
    assert_type(open_elf("core", allow_truncated=True), Image)
    assert_type(open_raw([(0, "file", 0, 10)], pointer="<u4"), Image)
    assert_type(image.segments, tuple[Segment, ...])
    assert_type(image.segments[0].name, str | None)
    assert_type(image.pointer, np.dtype | None)
    assert_type(image.read_at(0, 8, pad=0), bytes)
    assert_type(image.gather([1, 2], "u8"), NDArray[Any])
    assert_type(image.window(0, 8), NDArray[Any])
    assert_type(image.search(b"bytes"), Iterator[int])
    assert_type(image.search(1, dtype="u4"), Iterator[int])
    assert_type(image.search(re.compile(b"x")), Iterator[tuple[int, bytes]])
    assert_type(image.hexdump(0), str)
    assert_type(0 in image, bool)
    with image as same:
        assert_type(same, Image)
