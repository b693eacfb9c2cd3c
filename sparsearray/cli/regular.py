"""Files that commands work on: regular ones, opened without waiting for anybody."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sparsearray._text import printable

__all__ = ["HDF5_MAGIC", "is_zarr", "opened_regular", "refuse_same", "refuse_zarr"]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")  # of version 3 and of 2


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


def is_zarr(folder: str) -> bool:
    """Tell whether a folder holds an array, or a group of them."""
    return any(Path(folder, name).exists() for name in _ZARR_FILES)


def refuse_zarr(path: str) -> None:
    """Raise an error that says what can be done, where a folder of zarr's is taken for a file."""
    if path and is_zarr(path):
        msg = "a folder of zarr's and no file; 'sparsearray convert' writes an array in it as .npy"
        raise IsADirectoryError(errno.EISDIR, msg, path)
