"""Files that commands work on: regular ones, opened without waiting for anybody."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sparsearray._text import printable

__all__ = ["extents_of", "nbytes_of_data", "opened_regular", "refuse_same"]


@contextmanager
def opened_regular(path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
    """
    Open a regular file.

    Parameters
    ----------
    path : str
        The file. Links are followed.
    flags : int
        As of `os.open`.

    Yields
    ------
    int
        Its descriptor.

    Raises
    ------
    OSError
        It cannot be opened, or is no regular file.
    """
    # Before it is opened: a device may do things at that.
    _check(path, os.stat(path))  # noqa: PTH116 - to Path, '' is the current folder
    # NONBLOCK: should it be a FIFO by now, its other end is not waited for.
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check(path, os.fstat(fd))
        yield fd
    finally:
        os.close(fd)


def _check(path: str, facts: os.stat_result) -> None:
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.ENODEV, "Not a regular file", path)


def refuse_same(source: str, target: str) -> None:
    """Raise ValueError where what is to be written is what is to be read, under whatever name."""
    with suppress(OSError):  # where either is missing
        if os.path.samefile(source, target):  # noqa: PTH121 - paths stay strings
            msg = f"{printable(source)} and {printable(target)} are the same file"
            raise ValueError(msg)


def extents_of(fd: int, nbytes: int) -> list[tuple[int, int]] | None:
    """
    Find where a file holds data: lseek(2) under ``SEEK_DATA``.

    Parameters
    ----------
    fd : int
        The file. Its position moves.
    nbytes : int
        Its length in bytes.

    Returns
    -------
    list of (start, stop), or None
        In bytes; None where the system or the file system does not say.
    """
    found: list[tuple[int, int]] = []
    stop = 0
    try:
        while stop < nbytes:
            start = os.lseek(fd, stop, os.SEEK_DATA)
            stop = min(os.lseek(fd, start, os.SEEK_HOLE), nbytes)
            found.append((start, stop))
    except AttributeError:  # no SEEK_DATA
        return None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a hole up to the end
            return found
        if error.errno in (errno.EINVAL, errno.ENOTSUP):
            return None
        raise
    return found


def nbytes_of_data(fd: int, nbytes: int) -> int:
    """Tell how much of a file there is to read, for a progress bar: all where nobody says."""
    extents = extents_of(fd, nbytes)
    return nbytes if extents is None else sum(stop - start for start, stop in extents)
