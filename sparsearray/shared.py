"""Shared memory: a file that lives in memory only, mapped several times or by several processes."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import socket
from contextlib import suppress
from struct import Struct
from typing import Any, NoReturn

from ._binding import describe, index
from ._closing import Closing
from .errors import ClosedError, UnsupportedError

__all__ = ["SharedMemory", "shared_memory"]

_HUGE_SHIFT = 26  # MFD_HUGE_SHIFT, memfd_create(2)
_NAME_LIMIT = 249  # bytes, memfd_create(2)
_MAGIC = b"SA-mem\0\1"
_MESSAGE = Struct(f"<8sQH{_NAME_LIMIT}s")  # what is sent beside the descriptor; always as long
_INT = Struct("i")


class SharedMemory(Closing):
    """
    Memory with a descriptor, made by `shared_memory`.

    Buffers map windows of it with `SparseBuffer.map_file`, and keep it alive after `close`; `open`
    makes an array of it, and `ring` a ring. It is sealed against shrinking, so that no access to it
    can fault.

    Other processes get it by inheritance, when they are forked; by `multiprocessing`, as an
    argument or through queues and pipes, however they are started; and over a Unix socket, by
    `send` and `receive`. All then have the same memory, each with a descriptor of its own.

    Attributes
    ----------
    nbytes : int
        Length in bytes, whole pages.
    name : str
        What ``/proc/self/maps`` shows after ``/memfd:``.

    Notes
    -----
    Plain `pickle` has no way for a descriptor. There it travels as a reference to the one of this
    process, ``/proc/<pid>/fd/<n>``, which another process of the same user can load while this one
    lives and has not closed it; as often as it likes. A `multiprocessing.Queue` pickles in a thread
    of its own, shortly after ``put``: close what was put when it has arrived.

    Examples
    --------
    >>> import multiprocessing
    >>> import sparsearray
    >>> memory = sparsearray.shared_memory(1 << 40)
    >>> a = sparsearray.open(memory, "r+", dtype="f8")
    >>> context = multiprocessing.get_context("spawn")
    >>> child = context.Process(target=a.__setitem__, args=(1 << 36, 7.0))
    >>> child.start()
    >>> child.join()
    >>> a.sum(), a.nbytes_stored
    (np.float64(7.0), 4096)
    """

    __slots__ = ("_fd", "name", "nbytes")

    def __init__(self, fd: int, nbytes: int, name: str) -> None:
        self._fd = fd
        self.nbytes = nbytes
        self.name = name
        _register()

    @classmethod
    def _received(cls, fd: int, nbytes: int, name: str) -> SharedMemory:
        """Take over a descriptor from elsewhere, if it is what it is said to be."""
        try:
            _check(fd, nbytes, name)
            return cls(fd, nbytes, name)
        except BaseException:
            os.close(fd)
            raise

    def _duplicate(self) -> SharedMemory:
        """Make another one of the same memory."""
        return type(self)(os.dup(self.fileno()), self.nbytes, self.name)

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

    # To other processes

    def send(self, sock: socket.socket) -> None:
        """
        Send it to the process at the other end of a Unix socket, which calls `receive`.

        Parameters
        ----------
        sock : socket.socket
            Of the family ``AF_UNIX``. Its other messages may come before and after.

        Raises
        ------
        ValueError
            The socket is of another family.
        ClosedError
            The memory is closed.
        OSError
            The socket fails.

        References
        ----------
        unix(7), under ``SCM_RIGHTS``

        Examples
        --------
        >>> import socket
        >>> from sparsearray import SharedMemory, shared_memory
        >>> ours, theirs = socket.socketpair()
        >>> with shared_memory(4096, "sent") as memory:
        ...     memory.send(ours)
        >>> with theirs, ours, SharedMemory.receive(theirs) as memory:
        ...     memory.name, memory.nbytes
        ('sent', 4096)
        """
        _check_family(sock)
        name = os.fsencode(self.name)
        message = _MESSAGE.pack(_MAGIC, self.nbytes, len(name), name)
        sent = socket.send_fds(sock, [message], [self.fileno()])
        if sent < len(message):
            sock.sendall(message[sent:])

    @staticmethod
    def receive(sock: socket.socket) -> SharedMemory:
        """
        Receive what another process sent with `send`.

        Parameters
        ----------
        sock : socket.socket
            Of the family ``AF_UNIX``. What comes behind stays in it.

        Returns
        -------
        SharedMemory

        Raises
        ------
        EOFError
            The other end is closed.
        ValueError
            It is something else, shorter than it says, or not sealed against shrinking; or the
            socket is of another family.
        OSError
            The socket fails, or this process has as many descriptors as it may (EMFILE).
        """
        _check_family(sock)
        message, fds = _receive_descriptor(sock)
        try:
            while 0 < len(message) < _MESSAGE.size:
                more = sock.recv(_MESSAGE.size - len(message))
                if not more:
                    break
                message += more
            if len(message) < _MESSAGE.size and _MAGIC.startswith(message[: len(_MAGIC)]):
                msg = f"the other end closed the socket after {len(message)} bytes of a message"
                raise EOFError(msg)
            magic, nbytes, length, name = _MESSAGE.unpack(message.ljust(_MESSAGE.size, b"\0"))
            if magic != _MAGIC:
                msg = f"no shared memory was sent: the message begins with {message[:8]!r}"
                raise ValueError(msg)
            if not fds:
                msg = "shared memory was sent, but its descriptor found no room in this process"
                raise OSError(errno.EMFILE, msg)
            return SharedMemory._received(fds.pop(), nbytes, os.fsdecode(name[:length]))
        finally:
            for fd in fds:
                os.close(fd)

    def __reduce__(self) -> tuple[Any, ...]:
        facts = os.fstat(self.fileno())
        place = (os.getpid(), self._fd, facts.st_dev, facts.st_ino)
        return _load_reference, (*place, self.nbytes, self.name)

    def __copy__(self) -> NoReturn:
        msg = (
            "SharedMemory cannot be copied: map it once more, or make an array of it and copy that"
        )
        raise TypeError(msg)

    def __deepcopy__(self, _memo: object) -> NoReturn:
        self.__copy__()

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


def _check(fd: int, nbytes: int, name: str) -> None:
    """Raise ValueError for a descriptor that is no such memory."""
    what = f"shared memory {name!r} of {describe(nbytes)} bytes"
    size = os.fstat(fd).st_size
    if nbytes <= 0 or size < nbytes:
        msg = f"{what}: what came has {describe(size)} bytes"
        raise ValueError(msg)
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    except OSError:  # no file of memory
        sealed = 0
    if not sealed:
        msg = f"{what}: what came is not sealed against shrinking"
        raise ValueError(msg)


def _receive_descriptor(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receive up to a message, and the descriptor beside it; no child that is started gets it."""
    room = socket.CMSG_LEN(_INT.size)
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # which socket.recv_fds drops
    message, sent, _flags, _address = sock.recvmsg(_MESSAGE.size, room, flags)
    fds: list[int] = []
    for level, kind, data in sent:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            whole = data[: len(data) // _INT.size * _INT.size]
            fds += [fd for (fd,) in _INT.iter_unpack(whole)]
    for fd in fds:
        os.set_inheritable(fd, False)
    return message, fds


def _check_family(sock: socket.socket) -> None:
    """Other families take the descriptor, and drop it without a word."""
    if sock.family != socket.AF_UNIX:
        msg = f"shared memory goes over Unix sockets only, not over {sock.family!r}"
        raise ValueError(msg)


def _load_reference(pid: int, fd: int, device: int, inode: int, nbytes: int, name: str) -> Any:
    """Load what plain pickle wrote: the descriptor of another process, opened once more."""
    what, path = f"shared memory {name!r}", f"/proc/{pid}/fd/{fd}"
    try:
        opened = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, ProcessLookupError):
        opened = -1
    except PermissionError as error:
        msg = f"{what}: process {pid}, which pickled it, does not let this one have it"
        raise PermissionError(error.errno, msg, path) from None
    if opened >= 0:
        facts = os.fstat(opened)
        if (facts.st_dev, facts.st_ino) == (device, inode):
            return SharedMemory._received(opened, nbytes, name)
        os.close(opened)
    msg = (
        f"{what}: process {pid}, which pickled it, has closed it or is gone; a pickle holds a "
        "reference, and the memory goes with its last descriptor and window"
    )
    raise FileNotFoundError(errno.ENOENT, msg, path)


# multiprocessing pickles with a pickler of its own, which can send descriptors.

_registered = False


def _register() -> None:
    """Teach multiprocessing's pickler, once there is something to be pickled."""
    global _registered  # noqa: PLW0603 - once for the process
    if _registered:
        return
    with suppress(ImportError):  # a Python without it
        from multiprocessing import reduction

        reduction.register(SharedMemory, _reduce_for_multiprocessing)
    _registered = True


def _reduce_for_multiprocessing(memory: SharedMemory) -> tuple[Any, ...]:
    from multiprocessing.reduction import DupFd

    return _load_sent, (DupFd(memory.fileno()), memory.nbytes, memory.name)


def _load_sent(sent: Any, nbytes: int, name: str) -> SharedMemory:
    return SharedMemory._received(sent.detach(), nbytes, name)
