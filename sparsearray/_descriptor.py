"""The file arguments of the API: paths, descriptors, and objects that have one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from ._binding import ffi, lib, put_back, take

__all__ = ["Descriptor", "KeptDescriptor", "join_names", "look_at_files", "opened"]

_MANY = 512  # files looked at in one call, which no interrupt can come into


class Descriptor(NamedTuple):
    """An open file, for the length of one call."""

    fd: int
    name: bytes
    kind: int
    """One of ``sa_descriptor``: what the buffer keeps of it."""

    @classmethod
    def owned(cls, fd: int) -> Descriptor:
        """Make one of which nobody uses the position."""
        return cls(fd, _name_of(fd), lib.SA_DESCRIPTOR_OWN)


class KeptDescriptor:
    """A descriptor of our own, which goes when nobody holds it any more."""

    __slots__ = ("_cell",)

    def __init__(self, fd: int) -> None:
        """Duplicate `fd`."""
        self._cell = ffi.gc(ffi.new("int *", -1), lib.sa_close_file)
        self._cell[0] = os.dup(fd)

    def fileno(self) -> int:
        """Return the number of the descriptor."""
        number: int = self._cell[0]
        return number

    def close(self) -> None:
        """Close it now. More than once is fine."""
        lib.sa_close_file(self._cell)


def look_at_files(names: list[str]) -> list[int]:
    """
    Look at many files.

    Parameters
    ----------
    names : list of str
        Their paths, without null bytes.

    Returns
    -------
    list of int
        Their sizes in bytes; or errors, as negative numbers: EINVAL for what is no regular file.
    """
    sizes = np.empty(len(names), np.int64)
    for at in range(0, len(names), _MANY):
        part = names[at : at + _MANY]
        cell = ffi.from_buffer("int64_t[]", sizes[at:], require_writable=True)
        lib.sa_look_at_files(join_names(part), len(part), cell)
    found: list[int] = sizes.tolist()
    return found


def join_names(names: list[str]) -> bytes:
    """Write paths without null bytes one after another, each with its closing zero."""
    return os.fsencode("\0".join(names) + "\0")


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
    if isinstance(file, Descriptor):
        yield file
        return
    if isinstance(file, int) and not isinstance(file, bool):
        yield Descriptor(file, _name_of(file), lib.SA_DESCRIPTOR_SHARED)
        return
    if hasattr(file, "fileno"):
        fd = file.fileno()
        yield Descriptor(fd, _name_of(fd), lib.SA_DESCRIPTOR_SHARED)
        return
    path = os.fspath(file)  # type: ignore[call-overload]
    name = os.fsencode(path)
    if b"\0" in name:
        msg = f"embedded null byte in path {path!r}"
        raise ValueError(msg)
    # Opened and closed by native code, so that no interrupt can come between.
    cell = ffi.gc(ffi.new("int *", -1), lib.sa_close_file)
    report = take()
    if lib.sa_open_file(name, writable, cell, report):
        number = report.sys_errno
        raise OSError(number, os.strerror(number), path)
    put_back(report)
    try:
        yield Descriptor(cell[0], os.fsencode(os.path.abspath(path)), lib.SA_DESCRIPTOR_OWN)
    finally:
        lib.sa_close_file(cell)


def _name_of(fd: int) -> bytes:
    try:
        return os.readlink(f"/proc/self/fd/{fd}".encode())
    except FileNotFoundError:
        os.fstat(fd)  # no such descriptor: says so
        return f"<descriptor {fd}>".encode()
