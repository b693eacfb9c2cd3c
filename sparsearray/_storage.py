"""What holds the items of an array, and how it becomes longer or shorter."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ._layout import allocate

if TYPE_CHECKING:
    from .array import SparseArray
    from .buffer import SparseBuffer

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
        buffer, page = array.buffer, array.buffer.page_size
        old = array.offset + array.nbytes
        new = array.offset + prod(shape) * array.itemsize
        before = array.shape, array.dtype
        if new < old:
            buffer._check_unpinned(new, old - new)
            try:
                array._set_shape(shape, dtype)
                self._cut(buffer, old, new)
            except BufferError:  # a window came in between
                array._set_shape(*before)
                raise
            except BaseException:
                self._cut(buffer, old, new)
                raise
            return
        mapped = -(-old // page) * page
        try:
            if new > mapped:
                allocate(buffer, mapped, -(-new // page) * page - mapped)
            if fill is not None:
                fill()
            array._set_shape(shape, dtype)
        except BaseException:
            if (array.shape, array.dtype) != (shape, dtype or array.dtype):
                array._set_shape(*before)
                self._cut(buffer, new, old)
            raise

    def _cut(self, buffer: SparseBuffer, old: int, new: int) -> None:
        """Give back what lies between a new end and the old one."""
        page = buffer.page_size
        old_pages, new_pages = -(-old // page) * page, -(-new // page) * page
        if new_pages < old_pages:
            buffer.unmap(new_pages, old_pages - new_pages)
        buffer._clear(new, min(new_pages, old) - new)

    def close(self) -> None:
        """Nothing but memory here."""
