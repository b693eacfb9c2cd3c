"""Shared memory: a file that lives in memory only, mapped several times or by several processes."""

import errno
import fcntl
import mmap
import os
from typing import NoReturn

from ._binding import describe, index
from ._closing import Closing
from .errors import ClosedError, UnsupportedError

__all__ = ["SharedMemory", "shared_memory"]

_HUGE_SHIFT = 26  # MFD_HUGE_SHIFT, memfd_create(2)
_NAME_LIMIT = 249  # bytes, memfd_create(2)


class SharedMemory(Closing):
    """
    Memory with a descriptor, made by `shared_memory`.

    Buffers map windows of it with `SparseBuffer.map_file`, and keep it alive after `close`. It is
    sealed against shrinking, so that no access to it can fault.

    Attributes
    ----------
    nbytes : int
        Length in bytes, whole pages.
    name : str
        What ``/proc/self/maps`` shows after ``/memfd:``.
    """

    __slots__ = ("_fd", "name", "nbytes")

    def __init__(self, fd: int, nbytes: int, name: str) -> None:
        self._fd = fd
        self.nbytes = nbytes
        self.name = name

    def fileno(self) -> int:
        """
        Return the file descriptor.

        Raises
        ------
        ClosedError
            After `close`.
        """
        if self._fd < 0:
            msg = f"shared memory {self.name!r} is closed"
            raise ClosedError(msg)
        return self._fd

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fd < 0

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last mapping. More than once is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    def __reduce__(self) -> NoReturn:
        msg = "SharedMemory cannot be pickled or copied: its descriptor belongs to this process"
        raise TypeError(msg)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"fd {self._fd}"
        return f"<SharedMemory {self.name!r} of {describe(self.nbytes)} bytes, {state}>"


def shared_memory(
    nbytes: int, name: str | None = None, *, hugepage_size: int | None = None
) -> SharedMemory:
    """
    Make memory that can be mapped more than once.

    Parameters
    ----------
    nbytes : int
        Length in bytes; rounded up to whole pages, or huge pages.
    name : str, optional
        A label of at most 249 bytes for ``/proc/self/maps``; it need not be unique.
    hugepage_size : int, optional
        Take huge pages of this size in bytes from the system's pool: 2 MiB or 1 GiB on x86-64.
        Windows are then in whole huge pages.

    Raises
    ------
    ValueError
        `nbytes` is not positive, `name` is too long, or there are no huge pages of that size.
    OSError
        The pool has too few huge pages (ENOMEM), or the system refuses.
    UnsupportedError
        The system has no ``memfd_create``.

    References
    ----------
    memfd_create(2), fcntl(2) under ``F_ADD_SEALS``

    Examples
    --------
    >>> from sparsearray import SparseBuffer, shared_memory
    >>> with shared_memory(4096, "twice") as memory:
    ...     buffer = SparseBuffer(8192)
    ...     buffer.map_file(0, 4096, memory, writable=True)
    ...     buffer.map_file(4096, 4096, memory)
    >>> buffer.write_at(0, b"here and there")
    >>> buffer.read_at(4096, 14)
    b'here and there'
    """
    if not hasattr(os, "memfd_create"):
        msg = "shared memory: this system has no memfd_create"
        raise UnsupportedError(msg)
    size = index(nbytes)
    if size <= 0:
        msg = f"shared memory of {size} bytes: must be positive"
        raise ValueError(msg)
    label = "sparsearray" if name is None else name
    if len(os.fsencode(label)) > _NAME_LIMIT:
        msg = f"name {label!r}: longer than {_NAME_LIMIT} bytes"
        raise ValueError(msg)
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    unit = mmap.PAGESIZE
    if hugepage_size is not None:
        unit = index(hugepage_size)
        if unit <= mmap.PAGESIZE or unit & (unit - 1):
            msg = f"hugepage_size {describe(unit)}: not a huge page size"
            raise ValueError(msg)
        flags |= os.MFD_HUGETLB | (unit.bit_length() - 1) << _HUGE_SHIFT
    size = -(-size // unit) * unit
    try:
        fd = os.memfd_create(label, flags)
    except OSError as error:
        # ENOENT, ENODEV: what the kernel says to an unknown huge page size.
        if hugepage_size is None or error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        msg = f"hugepage_size {describe(unit)}: the system has no huge pages of that size"
        raise ValueError(msg) from None
    try:
        _size_and_seal(fd, size, hugepage_size)
    except BaseException:
        os.close(fd)
        raise
    return SharedMemory(fd, size, label)


def _size_and_seal(fd: int, size: int, hugepage_size: int | None) -> None:
    try:
        os.ftruncate(fd, size)
        if hugepage_size is not None:
            # Now, rather than as a fault later.
            os.posix_fallocate(fd, 0, size)
    except OSError as error:
        pool = f", in huge pages of {describe(hugepage_size)} bytes" if hugepage_size else ""
        msg = f"shared memory of {describe(size)} bytes{pool}: {os.strerror(error.errno or 0)}"
        if hugepage_size:
            msg += " (the pool is in /sys/kernel/mm/hugepages/*/nr_hugepages)"
        raise OSError(error.errno, msg) from None
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
