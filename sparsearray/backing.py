"""The part of `SparseBuffer` that answers for the files behind it."""

from __future__ import annotations

import os
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ._binding import BYTES, describe, failure, from_buffer, index, lib, place, put_back, take
from ._new_file import PIECE, cuts, replacing, write_filled
from .errors import AccessError
from .extents import find_extents
from .faults import Damage, list_damage
from .mapping import PageMapping

__all__ = ["FileBacking"]


class FileBacking(PageMapping):
    """
    The part of `SparseBuffer` that answers for the files behind it.

    What a window writes to a file is the system's to write to disk: `flush` waits for it. What
    happens to the file meanwhile ends no process: windows go on over other pages, and `damage`,
    guarded calls, `flush` and the end of a ``with`` block tell.
    """

    __slots__ = ("_gives_up",)

    _gives_up: bool
    _closed: bool

    @property
    def damage(self) -> tuple[Damage, ...]:
        """
        What windows have lost since it was mapped, sorted by offset.

        A window of a file that was cut short, or that the disk cannot read, shows zeros there. One
        of a file on a full disk keeps in memory what is written to it, until `flush` finds room.
        Guarded calls over such a range raise AccessError. Mapping it anew clears it.

        Raises
        ------
        ClosedError
            The buffer is closed.

        Examples
        --------
        >>> import os, pathlib, tempfile
        >>> from sparsearray import SparseBuffer
        >>> path = tempfile.mkdtemp() + "/data"
        >>> _ = pathlib.Path(path).write_bytes(bytes([7]) * 16384)
        >>> buffer = SparseBuffer(16384)
        >>> buffer.map_file(0, 16384, path)
        >>> window = buffer[:]
        >>> os.truncate(path, 8192)
        >>> int(window.sum()) // 7
        8192
        >>> [(one.offset, one.nbytes, one.reason) for one in buffer.damage]
        [(8192, 8192, 'file-truncated')]
        """
        return list_damage(self._reservation, self._nbytes)

    def flush(self, offset: int = 0, nbytes: int | None = None) -> None:
        """
        Write what was changed in shared file windows to disk, and wait for it.

        Parameters
        ----------
        offset, nbytes : int, optional
            The range in bytes, rounded outwards to whole pages; by default all that follows.

        Raises
        ------
        OSError
            A write failed. The system says so once and forgets; the buffer keeps saying it until
            the pages are mapped anew, or `save_to` has saved what memory holds.
        AccessError
            The disk is full: what windows wrote is kept in memory, and the next call tries again.
            Or a file has lost what a window shows. See `damage`.
        OutOfBoundsError, ValueError, ClosedError
            The range reaches past the end, is negative, or the buffer is closed.

        Notes
        -----
        Where a full disk has room again, what was kept for it moves into the file, and the window
        shows the file again. What another thread writes to those pages meanwhile is moved, too.

        A file with windows in the range that may write has the time of the call as its time of
        modification: the system alone may miss what was written to a page that was not flushed yet.

        References
        ----------
        msync(2), fsync(2), futimens(3)
        """
        start = index(offset)
        length = self._nbytes - start if nbytes is None else index(nbytes)
        self._change("flush", lib.sa_flush, start, length)
        self._gives_up = False  # what is kept from now on is another matter

    def save_to(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        """
        Write what memory holds to a new file, even where the files behind it are lost.

        The file is as long as the buffer; a byte at some offset of the one is at the same offset of
        the other. What holds nothing becomes a hole. Afterwards errors that `flush` keeps are
        forgiven; a full disk is not, until there is room.

        Parameters
        ----------
        path : path
            An old file is replaced when all of the new one is on disk.

        Raises
        ------
        AccessError
            A byte cannot be had, and nobody has been told so yet. Nothing is written; the next call
            saves zeros for it.
        OSError
            The disk is full or fails. Nothing is left behind.
        ClosedError
            The buffer is closed.

        Examples
        --------
        >>> import tempfile
        >>> from sparsearray import SparseBuffer
        >>> buffer = SparseBuffer(1 << 30)
        >>> buffer.alloc(0, 1 << 30)
        >>> buffer.write_at(1 << 20, b"here")
        >>> path = tempfile.mkdtemp() + "/saved"
        >>> buffer.save_to(path)
        >>> with open(path, "rb") as file:
        ...     file.seek(1 << 20), file.read(4)
        (1048576, b'here')
        """
        self._tell_before_saving()
        with replacing(os.fsdecode(path)) as file:
            os.ftruncate(file.fileno(), self._nbytes)
            self._write_held(file.fileno(), 0, 0, self._nbytes)
        self._forgive()

    def _tell_before_saving(self) -> None:
        """Raise AccessError for what is lost and would be zeros, if nobody knows."""
        self._change("save_to", _check_open, 0, 0)
        error = self._find_untold(tell=True, lost_only=True)
        if error is not None:
            raise error

    def _write_held(self, fd: int, position: int, offset: int, nbytes: int) -> None:
        """Write what memory holds in a range to a place in a file that is all zeros."""
        scratch: NDArray[np.uint8] = np.empty(PIECE, "u1")
        cell = from_buffer(BYTES, scratch, True)
        held = find_extents(self._reservation, self._nbytes, offset, nbytes, "held")
        for first, last in held.tolist():
            for at, stop in cuts(position + first - offset, position + last - offset):
                self._change("save_to", lib.sa_salvage, at - position + offset, stop - at, cell)
                write_filled(fd, scratch[: stop - at], at)

    def _forgive(self) -> None:
        """Take it that what memory holds is safe elsewhere."""
        self._change("save_to", _forgive, 0, 0)

    def _find_untold(
        self, *, tell: bool, lost_only: bool = False, offset: int = 0, nbytes: int | None = None
    ) -> AccessError | None:
        """
        Make the error for damage that nobody was told of.

        What is kept moves into its file first, as far as there is room; what cannot comes first, as
        a write. `lost_only` leaves that out.
        """
        return self._look_for_damage(tell, lost_only, offset, nbytes)[0]

    def _look_for_damage(
        self, tell: bool, lost_only: bool, offset: int, nbytes: int | None
    ) -> tuple[AccessError | None, bool]:
        """Do so; and say whether anything was noted at all, told or not, that windows have lost."""
        report = take()
        length = self._nbytes - offset if nbytes is None else nbytes
        code = lib.sa_check_damage(self._reservation, offset, length, tell, lost_only, report)
        noted = bool(report.value)
        if code == lib.SA_ACCESS:
            error = failure(code, report, "window", report.offset, report.count, self._nbytes)
            return cast("AccessError", error), noted
        if code:
            raise failure(code, report, "close", 0, self._nbytes, self._nbytes)
        put_back(report)
        return None, noted

    def _raise_untold(
        self, offset: int = 0, nbytes: int | None = None, *, lost_only: bool = False
    ) -> None:
        """Raise AccessError for damage in a range of bytes that nobody was told of."""
        error = self._find_untold(tell=True, lost_only=lost_only, offset=offset, nbytes=nbytes)
        if error is None:
            return
        try:
            raise error
        finally:
            del error  # which would keep the callers' windows alive, by its traceback

    def _settle(self) -> AccessError | None:
        """
        Say what is lost, before all goes.

        Raises AccessError, once, where the disk still has no room for what is kept in memory.
        """
        if self._closed:
            return None
        error, noted = self._look_for_damage(True, False, 0, None)
        # Of thousands of files it takes a while to ask for each once more.
        damage = list_damage(self._reservation, self._nbytes, tell=False) if noted else ()
        kept = [one for one in damage if one.kept]
        if not kept:
            self._gives_up = False
            return error
        if self._gives_up:
            return None
        self._gives_up = True
        one = kept[0]
        message = (
            f"{place('window', one.offset, one.nbytes)}: byte {describe(one.offset)} of "
            f"{one.file!r} has no room on the disk; what was written is kept in memory: flush() "
            "once there is room, save_to(path), or close() again to give it up"
        )
        raise AccessError(message, one.offset, "write", one.reason, 0, one.file)


def _check_open(reservation: object, _offset: int, _nbytes: int, report: object) -> int:
    code: int = lib.sa_check_unpinned(reservation, 0, 0, report)
    return code


def _forgive(reservation: object, _offset: int, _nbytes: int, report: object) -> int:
    code: int = lib.sa_forgive(reservation, report)
    return code
