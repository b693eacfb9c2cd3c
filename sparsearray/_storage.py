"""What holds the items of an array, how it becomes longer or shorter, and how it travels."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ._layout import allocate
from .shared import SharedMemory

if TYPE_CHECKING:
    from .array import SparseArray
    from .stored import StoredArray

__all__ = ["Memory", "Shared", "Snapshot", "Storage"]


class Storage:
    """
    What an array lives in besides its buffer: memory, or a file with a size and a header.

    By itself, something that is nowhere else, and of a length that stays.
    """

    path: str | None = None
    """The file, if there is one."""
    mode: str | None = None
    """How it was opened."""
    identity: tuple[int, int] | None = None
    """Device and inode of the file."""
    start = 0
    """Of the first item in the file, in bytes."""
    what = "memory"
    """As it is called in messages, where it has no path."""

    def resize(
        self,
        array: SparseArray,
        shape: tuple[int, ...],  # noqa: ARG002 - for what can
        fill: Callable[[], None] | None = None,  # noqa: ARG002 - for what can
        dtype: np.dtype | None = None,  # noqa: ARG002 - for what can
    ) -> None:
        """
        Map or unmap what lies between the array's end and that of `shape`.

        `fill` writes to what is new, which reads as zeros, before it counts as part of the array.
        If it raises, all is as before. The array is told its shape as the last step, or before the
        first where it becomes shorter: an interrupt finds the old state, or the new one. `dtype` is
        what items are called then, where that changes; they stay as large.
        """
        msg = f"an array of shape {array.shape} in {self.what} cannot change its length"
        raise ValueError(msg)

    def places(self, array: SparseArray) -> list[tuple[str, int, int]] | None:
        """
        Tell where in files the bytes of the array lie: path, offset and length, one after another.

        None where they are not, or not only, there.
        """

    def is_at(self, name: str) -> bool:  # noqa: ARG002 - for files
        """Tell whether a path leads to where it is stored."""
        return False

    def reference(self, array: StoredArray) -> tuple[Any, ...] | None:
        """
        Say where another process finds what is stored: a function that opens it, and arguments.

        As of ``__reduce__``; all of them can be pickled. What was written to pages that are copied
        on write goes with it. None: there is no such place, and the bytes travel themselves.
        """

    def close(self) -> None:
        """Give back what is no memory."""


class Memory(Storage):
    """Private memory."""

    def resize(
        self,
        array: SparseArray,
        shape: tuple[int, ...],
        fill: Callable[[], None] | None = None,
        dtype: np.dtype | None = None,
    ) -> None:
        """Take pages for what is new, or give those back that hold nothing any more."""
        if array.order == "F" and array.ndim > 1:
            msg = "only an array in C order can change its length"
            raise ValueError(msg)
        old, new = array.nbytes, prod(shape) * array.itemsize
        before = array.shape, array.dtype
        if new < old:
            try:
                array._set_shape(shape, dtype)
                self._cut(array, old, new)
            except BaseException as error:
                # An interrupt finds the old state or the new one, as far as it came.
                if isinstance(error, Exception) or array.shape != shape:
                    array._set_shape(*before)
                else:
                    self._cut(array, old, new)
                raise
            return
        try:
            self._take(array, old, new)
            if fill is not None:
                fill()
            array._set_shape(shape, dtype)
        except BaseException:
            if (array.shape, array.dtype) != (shape, dtype or array.dtype):
                array._set_shape(*before)
                self._cut(array, new, old)
            raise

    def _take(self, array: SparseArray, old: int, new: int) -> None:
        """Take pages for what lies between the old end and a new one, in bytes from the first."""
        page = array.buffer.page_size
        mapped, wanted = (-(-(array.offset + end) // page) * page for end in (old, new))
        if wanted > mapped:
            allocate(array.buffer, mapped, wanted - mapped)

    def _cut(self, array: SparseArray, old: int, new: int) -> None:
        """Give back what lies between a new end and the old one; BufferError if it is shown."""
        buffer, page = array.buffer, array.buffer.page_size
        start, stop = array.offset + new, array.offset + old
        buffer._check_unpinned(start, stop - start)
        mapped, wanted = (-(-end // page) * page for end in (stop, start))
        if wanted < mapped:
            buffer.unmap(wanted, mapped - wanted)
        buffer._clear(start, min(wanted, stop) - start)


class Shared(Storage):
    """Shared memory, of a length that stays."""

    what = "shared memory"

    def __init__(self, memory: SharedMemory, mode: str) -> None:
        self.memory = memory._duplicate()
        self.mode = mode
        facts = os.fstat(memory.fileno())
        self.identity = (facts.st_dev, facts.st_ino)

    def reference(self, array: StoredArray) -> tuple[Any, ...] | None:
        """Send the descriptor."""
        from .files import open_again

        return open_again, (self.memory, self.mode, *where_of(array), self.start)

    def close(self) -> None:
        """Give the descriptor back."""
        self.memory.close()


class Snapshot(Storage):
    """What an array held when `SparseArray.snapshot` was called."""

    mode = "c"
    what = "a snapshot"


def where_of(array: StoredArray) -> tuple[Any, ...]:
    """Say what `files.open_again` needs to know of an array besides its file."""
    tiles = getattr(array, "tiles", None)
    most = None if array.maxshape == array.shape else array.maxshape
    return array.shape, array.dtype, tiles, most, array.buffer._keeps_room
