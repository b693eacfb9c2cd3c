"""What holds the items of an array, and how it becomes longer or shorter."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ._layout import allocate

if TYPE_CHECKING:
    from .array import SparseArray

__all__ = ["Memory", "Storage"]


class Storage(Protocol):
    """What an array lives in besides its buffer: memory, or a file with a size and a header."""

    @property
    def path(self) -> str | None:
        """The file, if there is one."""

    @property
    def mode(self) -> str | None:
        """How it was opened."""

    @property
    def identity(self) -> tuple[int, int] | None:
        """Device and inode of the file."""

    def resize(
        self,
        array: SparseArray,
        shape: tuple[int, ...],
        fill: Callable[[], None] | None = None,
        dtype: np.dtype | None = None,
    ) -> None:
        """
        Map or unmap what lies between the array's end and that of `shape`.

        `fill` writes to what is new, which reads as zeros, before it counts as part of the array.
        If it raises, all is as before. The array is told its shape as the last step, or before the
        first where it becomes shorter: an interrupt finds the old state, or the new one. `dtype` is
        what items are called then, where that changes; they stay as large.
        """

    def places(self, array: SparseArray) -> list[tuple[str, int, int]] | None:
        """
        Tell where in files the bytes of the array lie: path, offset and length, one after another.

        None where they are not, or not only, there.
        """

    def is_at(self, name: str) -> bool:
        """Tell whether a path leads to where it is stored."""

    def close(self) -> None:
        """Give back what is no memory."""


class Memory:
    """Private memory."""

    path: str | None = None
    mode: str | None = None
    identity: tuple[int, int] | None = None

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

    def places(self, array: SparseArray) -> None:
        """In no file."""

    def is_at(self, name: str) -> bool:  # noqa: ARG002
        """At no path."""
        return False

    def close(self) -> None:
        """Nothing but memory here."""
