"""Files copied and trimmed by the native core: pages of zeros in them become holes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ._binding import ffi, lib, put_back, take
from .errors import UnsupportedError

__all__ = ["copy_data", "dig_holes"]

# Bytes read at a time: still in the processor's cache when they are written. For larger writes the
# system looks for memory in one piece, which takes long where there is little of that.
_SCRATCH = 128 << 10

Done = Callable[[int], object]


def copy_data(source: int, target: int, nbytes: int, done: Done, *, write_soon: bool) -> int:
    r"""
    Copy what a file holds, without holes and pages of zeros, to the same places of a new one.

    Parameters
    ----------
    source, target : int
        Descriptors, whose positions move. Where nothing is written the target has to have holes.
    nbytes : int
        Length of the source in bytes.
    done : callable
        Called after each piece with the bytes that were read for it.
    write_soon : bool
        Have the disk begin to write each piece: less is left for fsync.

    Returns
    -------
    int
        `nbytes`, or where reading came to the end before: some files of /sys say that they are
        longer than what is read.

    Raises
    ------
    OSError
        With `filename` the descriptor that it is about.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
    ...     source.write(b"a".ljust(8192, b"\0") + b"b")
    ...     source.flush()
    ...     copy_data(source.fileno(), target.fileno(), 8193, print, write_soon=False)
    ...     target.read() == b"a".ljust(8192, b"\0") + b"b"
    8193
    8193
    8193
    True

    References
    ----------
    lseek(2) on ``SEEK_DATA``; sync_file_range(2)
    """

    def copy(start: int, scratch: Any, report: Any) -> int:
        return int(
            lib.sa_copy_file(
                source, target, start, nbytes, write_soon, scratch, len(scratch), report
            )
        )

    return _in_pieces(copy, (source, target), done)


def dig_holes(fd: int, nbytes: int, done: Done, *, look_only: bool = False) -> int:
    """
    Make holes of the pages of zeros in a file; what it reads as stays the same.

    Parameters
    ----------
    fd : int
        Its descriptor, whose position moves. Nobody may write to the file meanwhile: what is
        written to a page of zeros between the look at it and the hole is lost.
    nbytes : int
        Its length in bytes.
    done : callable
        Called after each piece with the bytes that were read for it. If it raises, holes that are
        made stay.
    look_only : bool
        Make none.

    Returns
    -------
    int
        Bytes of pages of zeros that were not holes.

    Raises
    ------
    OSError
        With `filename` the descriptor.
    UnsupportedError
        The system, or the file system, cannot make holes in a file.

    References
    ----------
    fallocate(2) on ``FALLOC_FL_PUNCH_HOLE``
    """
    found = 0

    def trim(start: int, scratch: Any, report: Any) -> int:
        nonlocal found
        code = int(lib.sa_trim_file(fd, start, nbytes, look_only, scratch, len(scratch), report))
        if code >= 0:
            found += report.count
        return code

    _in_pieces(trim, (fd, fd), done)
    return found


def _in_pieces(
    call: Callable[[int, Any, Any], int], descriptors: tuple[int, int], done: Done
) -> int:
    """
    Call it until it is through, with a start, room and a report; where the file ends.

    It can fail to read the first descriptor, or to write the second.
    """
    scratch, report = ffi.new("char[]", _SCRATCH), take()
    start, stop, code = 0, 0, lib.SA_MORE
    while code == lib.SA_MORE:
        code = call(start, scratch, report)
        if code == lib.SA_UNSUPPORTED:
            msg = "the file system, or the system, cannot make holes in a file"
            raise UnsupportedError(msg)
        if code < 0:
            number = report.sys_errno
            raise OSError(number, os.strerror(number), descriptors[report.write])
        start, stop = report.start, int(report.stop)
        done(report.transferred)
    put_back(report)
    return stop
