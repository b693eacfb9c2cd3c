"""The file arguments of the API: paths, descriptors, and objects that have one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["Descriptor", "opened"]


class Descriptor(NamedTuple):
    """An open file, for the length of one call."""

    fd: int
    name: bytes
    own_position: bool
    """Nobody else sees the file position of this descriptor."""


@contextmanager
def opened(file: object, *, writable: bool) -> Iterator[Descriptor]:
    """
    Open `file` if it is a path; take its descriptor otherwise, which stays the caller's.

    Parameters
    ----------
    file : path, int or object with ``fileno()``
        What to map.
    writable : bool
        Open a path for reading and writing.

    Raises
    ------
    OSError
        The path cannot be opened; or the descriptor is not open.
    TypeError
        `file` is none of these.
    """
    if isinstance(file, int) and not isinstance(file, bool):
        yield Descriptor(file, _name_of(file), own_position=False)
        return
    if hasattr(file, "fileno"):
        fd = file.fileno()
        yield Descriptor(fd, _name_of(fd), own_position=False)
        return
    path = os.fspath(file)  # type: ignore[call-overload]
    # NONBLOCK: opening a FIFO must not wait for its other end; a regular file does not care.
    flags = os.O_RDWR if writable else os.O_RDONLY
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        yield Descriptor(fd, os.fsencode(os.path.abspath(path)), own_position=True)
    finally:
        os.close(fd)


def _name_of(fd: int) -> bytes:
    try:
        return os.readlink(f"/proc/self/fd/{fd}".encode())
    except FileNotFoundError:
        os.fstat(fd)  # no such descriptor: says so
        return f"<descriptor {fd}>".encode()
