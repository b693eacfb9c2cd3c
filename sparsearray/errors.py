"""The exceptions: each is also the builtin that users of numpy and files already catch."""

import errno

__all__ = [
    "AccessError",
    "ClosedError",
    "OutOfBoundsError",
    "OverrunError",
    "SparseDamageWarning",
    "SparseError",
    "UnsupportedError",
]

_ERRNO = {
    "unmapped": errno.EFAULT,
    "read-only": errno.EACCES,
    "file-truncated": errno.ENXIO,
    "no-space": errno.ENOSPC,
    "io-error": errno.EIO,
    "no-memory": errno.ENOMEM,
}


class SparseError(Exception):
    """What every exception of this package is."""


class OutOfBoundsError(SparseError, IndexError):
    """
    A range reaches past the end of a buffer.

    Nothing is clipped, except by slices, which clip as those of a list do.

    Examples
    --------
    >>> from sparsearray import SparseBuffer
    >>> buffer = SparseBuffer(4096)
    >>> buffer.read_at(4090, 8)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    sparsearray.errors.OutOfBoundsError: read of 8 bytes at 0xffa (4090): the buffer has ...
    """


class OverrunError(SparseError, LookupError):
    """Items of a ring are gone: newer ones were written over them."""


class ClosedError(SparseError, ValueError):
    """The buffer is closed, as with operations on a closed file."""


class UnsupportedError(SparseError, NotImplementedError):
    """The operating system, or this kernel of it, has no such thing."""


class SparseDamageWarning(RuntimeWarning):
    """
    A window lost its file, and nobody asked before the buffer went.

    `SparseBuffer.damage`, guarded calls, `SparseBuffer.flush` and the end of a ``with`` block tell
    in time.
    """


class AccessError(SparseError, OSError):
    """
    Bytes that cannot be read or written: what would otherwise have been SIGSEGV or SIGBUS.

    Attributes
    ----------
    offset : int
        The first bad byte, in bytes from the start of the buffer.
    operation : str
        ``'read'`` or ``'write'``.
    reason : str
        ``'unmapped'`` (a hole), ``'read-only'``, ``'file-truncated'`` (the file has become shorter
        than what was mapped), ``'no-space'`` (the disk is full), ``'io-error'`` or ``'no-memory'``.
    transferred : int
        Bytes that were moved before it. 0 for ``'unmapped'`` and ``'read-only'``, which are
        refused before anything is touched.
    errno, strerror, filename
        As of any OSError; `filename` is the file behind the byte, or None.

    Examples
    --------
    >>> from sparsearray import AccessError, SparseBuffer
    >>> buffer = SparseBuffer(8192)
    >>> buffer.alloc(0, 4096)
    >>> try:
    ...     buffer.read_at(4000, 200)
    ... except AccessError as error:
    ...     print(error.reason, error.offset, error.transferred)
    unmapped 4096 0
    """

    def __init__(
        self,
        message: str,
        offset: int,
        operation: str,
        reason: str,
        transferred: int = 0,
        filename: str | None = None,
    ) -> None:
        super().__init__(_ERRNO[reason], message)
        self.filename = filename
        self.offset = offset
        self.operation = operation
        self.reason = reason
        self.transferred = transferred

    def __str__(self) -> str:
        return str(self.strerror)

    def __reduce__(self) -> tuple[object, ...]:
        fields = (
            self.strerror,
            self.offset,
            self.operation,
            self.reason,
            self.transferred,
            self.filename,
        )
        return type(self), fields, self.__dict__
