"""What holds the items of an array, and how it becomes longer or shorter."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Protocol

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

    def resize(
        self,
        array: SparseArray,
        shape: tuple[int, ...],
        fill: Callable[[], None] | None = None,
    ) -> None:
        """
        Map or unmap what lies between the array's end and that of `shape`.

        `fill` writes to what is new, which reads as zeros, before it counts as part of the array.
        If it raises, all is as before.
        """

    def close(self) -> None:
        """Give back what is no memory."""


class Memory:
    """Private memory."""

    path: str | None = None
    mode: str | None = None

    def resize(
        self,
        array: SparseArray,
        shape: tuple[int, ...],
        fill: Callable[[], None] | None = None,
    ) -> None:
        """Take pages for what is new, or give those back that hold nothing any more."""
        if array.order == "F" and array.ndim > 1:
            msg = "only an array in C order can change its length"
            raise ValueError(msg)
        buffer, page = array.buffer, array.buffer.page_size
        old = array.offset + array.nbytes
        new = array.offset + prod(shape) * array.itemsize
        if new < old:
            buffer._check_unpinned(new, old - new)
            self._cut(buffer, old, new)
            return
        mapped = -(-old // page) * page
        if new > mapped:
            allocate(buffer, mapped, -(-new // page) * page - mapped)
        try:
            if fill is not None:
                fill()
        except BaseException:
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
