"""The .npy file that an array lives in, and how it becomes longer or shorter."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._descriptor import KeptDescriptor
from ._new_file import name_file, take_room, write_all
from ._storage import Storage, where_of
from .errors import ClosedError
from .npy import Header, data_pages, make_header, read_header

if TYPE_CHECKING:
    from .array import SparseArray
    from .stored import StoredArray

__all__ = ["NpyFile", "mapped_nbytes", "place_of"]


class NpyFile(Storage):
    """The file that an array lives in: its size and header follow the array's."""

    def __init__(self, fd: int, path: str, mode: str, start: int, header: Header | None) -> None:
        self.start = start  # of the data, in bytes
        self.file = KeptDescriptor(fd)
        self.path: str = path
        self.mode = mode
        facts = os.fstat(fd)
        self.identity = (facts.st_dev, facts.st_ino)
        self.header = header  # None for a raw file

    def close(self) -> None:
        """Give the descriptor back."""
        self.file.close()

    def places(self, array: SparseArray) -> list[tuple[str, int, int]] | None:
        """All in one file, unless it was replaced since, or what was written is not in it."""
        if self.mode == "c" or not self.is_at(self.path):
            return None
        return [(self.path, self.start, array.nbytes)]

    def is_at(self, name: str) -> bool:
        """Tell whether a path leads to this file."""
        with suppress(OSError):
            facts = Path(name).stat()
            return (facts.st_dev, facts.st_ino) == self.identity
        return False

    def reference(self, array: StoredArray) -> tuple[Any, ...] | None:
        """Send the path, if it still leads to the file, and the file has all that was written."""
        from .files import open_again

        if not self.is_at(self.path):
            msg = (
                f"{self.path!r} is gone, or another file by now: the array that was opened there "
                "cannot travel by its path; save it elsewhere"
            )
            raise FileNotFoundError(errno.ENOENT, msg, self.path)
        if array.buffer.damage:
            array.buffer.flush()  # AccessError: what is kept or lost is not in the file
        mode = "r+" if self.mode == "w+" else self.mode
        return open_again, (self.path, mode, *where_of(array), self.start)

    def resize(
        self,
        array: SparseArray,
        shape: tuple[int, ...],
        fill: Callable[[], None] | None = None,
        dtype: np.dtype | None = None,
    ) -> None:
        """
        Grow the file, fill what is new, and then say so in the header; or the other way round.

        The header is right at every moment at which a crash could come: the file may be too long,
        but holds all the rows that the header tells of, as they were to be.
        """
        if array.closed:
            msg = f"resize: {self.path!r} is closed"
            raise ClosedError(msg)
        if self.header is None or (array.order == "F" and array.ndim > 1):
            msg = f"{self.path!r}: only a .npy file in C order can change its length"
            raise ValueError(msg)
        if self.mode == "c":
            msg = f"{self.path!r} was opened with mode 'c': its length cannot change"
            raise ValueError(msg)
        self._check_header(self.header)
        if array.buffer.damage:
            array.buffer.flush()  # AccessError: what is kept or lost would show in other rows
        header = self.header._replace(shape=shape, dtype=dtype or array.dtype)
        try:
            text = make_header(shape, array.order, header.dtype, header.start)
        except ValueError as error:
            msg = f"{self.path!r}: {error}"
            raise ValueError(msg) from None
        if fill is not None or prod(shape) > array.size:
            self._grow(array, self.header, header, text, fill)
        else:
            self._shrink(array, self.header, header, text)

    def _check_header(self, header: Header) -> None:
        """Raise ValueError where another array, or another process, has changed the length."""
        try:
            found = read_header(self.file.fileno())
        except ValueError as error:
            msg = f"{self.path!r} has no such header any more: {error}"
            raise ValueError(msg) from None
        if (found.shape, found.start, found.dtype) != (header.shape, header.start, header.dtype):
            msg = (
                f"{self.path!r} has shape {found.shape} by now, and not {header.shape}: "
                "somebody else changed its length; open it again"
            )
            raise ValueError(msg)

    def _accept(self, array: SparseArray, header: Header) -> None:
        self.header = header
        array._set_shape(header.shape, header.dtype)

    def _grow(
        self,
        array: SparseArray,
        old: Header,
        new: Header,
        text: bytes,
        fill: Callable[[], None] | None,
    ) -> None:
        fd = self.file.fileno()
        size, before = os.fstat(fd).st_size, os.pread(fd, old.start, 0)
        base, mapped, nbytes = data_pages(old)[0], mapped_nbytes(old), mapped_nbytes(new)
        place = place_of(old)
        if size < old.stop:
            # Somebody else cut it. AccessError, or what was lost would become zeros.
            array.buffer.read_at(place + old.stop - base - 1, 1)
        try:
            if size > old.stop:
                # What lies behind the data, after a crash for one, would show in the new rows.
                os.ftruncate(fd, old.stop)
                array.buffer._accept_ends()
            os.ftruncate(fd, new.stop)
            if array.buffer._keeps_room:
                take_room(fd, old.stop, new.stop - old.stop)
            if nbytes > mapped:
                array.buffer.map_file(
                    place + mapped, nbytes - mapped, fd, base + mapped, writable=True
                )
                array.buffer.advise(place + mapped, nbytes - mapped, "random")
            if fill is not None:
                fill()
            # The length and what was filled are on disk before the header says so: a crash in
            # between leaves a file that is too long.
            os.fdatasync(fd)
            write_all(fd, text, 0)
            self._accept(array, new)
        except BaseException as error:
            if (array.shape, array.dtype) == (new.shape, new.dtype):  # an interrupt, when done
                raise
            self._accept(array, old)
            if nbytes > mapped:
                with suppress(OSError):
                    array.buffer.unmap(place + mapped, nbytes - mapped)
            _put_back(fd, before, size, old.stop)
            array.buffer._accept_ends()
            name_file(error, self.path)
            raise

    def _shrink(self, array: SparseArray, old: Header, new: Header, text: bytes) -> None:
        fd = self.file.fileno()
        size, before = os.fstat(fd).st_size, os.pread(fd, old.start, 0)
        base, mapped, nbytes = data_pages(old)[0], mapped_nbytes(old), mapped_nbytes(new)
        place = place_of(old)
        array.buffer._check_unpinned(place + new.stop - base, old.stop - new.stop)
        array.buffer._keep_old(place + new.stop - base, old.stop - new.stop)
        if size < new.stop:
            # As in _grow.
            array.buffer.read_at(place + new.stop - base - 1, 1)
        try:
            if nbytes < mapped:
                array.buffer.unmap(place + nbytes, mapped - nbytes)
            write_all(fd, text, 0)
            # A crash before the next step leaves a file that is too long.
            os.fdatasync(fd)
            os.ftruncate(fd, new.stop)
            array.buffer._accept_ends()
            self._accept(array, new)
        except BufferError:  # a live window: nothing was done
            raise
        except BaseException as error:
            if (array.shape, array.dtype) == (new.shape, new.dtype):  # as in _grow
                raise
            if os.fstat(fd).st_size == new.stop < size:
                # An interrupt, when all was done: what was cut off is gone.
                array.buffer._accept_ends()
                self._accept(array, new)
                raise
            self._accept(array, old)
            _put_back(fd, before, size, old.stop)
            if nbytes < mapped:
                array.buffer.map_file(
                    place + nbytes, mapped - nbytes, fd, base + nbytes, writable=True
                )
            name_file(error, self.path)
            raise


def mapped_nbytes(header: Header) -> int:
    """Tell how many bytes of pages an array in such a file maps."""
    return data_pages(header)[1] if header.stop > header.start else 0


def place_of(header: Header) -> int:
    """
    Tell where the pages of such a file begin in the buffer.

    There they lie in memory as in the file, seen from a multiple of the usual huge page: what the
    system has in one piece in its cache can then be mapped in one piece.
    """
    return data_pages(header)[0] % (2 << 20)


def _put_back(fd: int, header: bytes, size: int, stop: int) -> None:
    """Undo what became of a file; it is never shorter than its header says."""
    with suppress(OSError):
        os.ftruncate(fd, max(size, os.fstat(fd).st_size))
        write_all(fd, header, 0)
        if size > stop:  # and nothing of what was new stays behind the data
            os.ftruncate(fd, stop)
        os.ftruncate(fd, size)
