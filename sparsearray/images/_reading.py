"""Bytes of a file, read without its position, and errors that name it."""

import os

from sparsearray._descriptor import Descriptor

__all__ = ["read_all", "read_part"]

_CHUNK = 1 << 24


def read_part(file: Descriptor, offset: int, nbytes: int) -> bytes:
    """
    Read a part of a file, as far as it goes.

    Raises
    ------
    OSError
        It cannot be read: a folder, a pipe, a bad disk.
    """
    parts = []
    try:
        # One call reads no more than 2 GiB.
        while nbytes > 0 and (part := os.pread(file.fd, nbytes, offset)):
            parts.append(part)
            nbytes, offset = nbytes - len(part), offset + len(part)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fsdecode(file.name)) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_all(file: Descriptor) -> bytes:
    """Read a file from its start to its end; OSError as `read_part`."""
    parts, at = [], 0
    while part := read_part(file, at, _CHUNK):
        parts.append(part)
        at += len(part)
    return b"".join(parts)
