"""The notes of core dumps: which files the process had mapped."""

import os
import struct
from collections.abc import Iterator

import numpy as np

__all__ = ["mapped_files"]

_NT_FILE = 0x46494C45
_MOST = 1 << 17  # notes of one segment: some for each thread


def mapped_files(notes: bytes, word: np.dtype) -> list[tuple[int, int, str]]:
    r"""
    Read the mapped files of a segment of notes.

    Names are for people: what cannot be read of them is left out.

    Parameters
    ----------
    notes : bytes
        What a ``PT_NOTE`` segment holds.
    word : dtype
        Of an address: its size, in its byte order.

    Returns
    -------
    list of (int, int, str)
        Start and stop of the addresses, and the name.

    References
    ----------
    core(5), elf(5)

    Examples
    --------
    >>> listed = struct.pack("<5Q", 1, 4096, 0x1000, 0x2000, 0) + b"/bin/true\0"
    >>> head = struct.pack("<3I", 5, len(listed), 0x46494C45) + b"CORE\0\0\0\0"
    >>> mapped_files(head + listed, np.dtype("<u8"))
    [(4096, 8192, '/bin/true')]
    """
    found: list[tuple[int, int, str]] = []
    for listed in _notes(notes, ">" if word.str[0] == ">" else "<"):
        # The number of files, the size of a page; start, stop and offset of each; their names.
        if len(listed) < 2 * word.itemsize:
            break
        number = int(np.frombuffer(listed, word, 1)[0])
        start = (2 + 3 * number) * word.itemsize
        if start > len(listed):
            break
        names = listed[start:].split(b"\0", number)
        if len(names) <= number:
            break
        places = np.frombuffer(listed, word, 3 * number, 2 * word.itemsize).reshape(-1, 3)
        for (first, last, _), name in zip(places.tolist(), names, strict=False):
            found.append((first, last, os.fsdecode(name)))
    return found


def _notes(data: bytes, order: str) -> Iterator[bytes]:
    """Go through the descriptions of the notes that list files."""
    head = struct.Struct(order + "3I")
    at = 0
    for _ in range(_MOST):
        if at + head.size > len(data):
            return
        name_nbytes, nbytes, kind = head.unpack_from(data, at)
        start = at + head.size + -(-name_nbytes // 4) * 4
        if kind == _NT_FILE:
            yield data[start : start + nbytes]
        at = start + -(-nbytes // 4) * 4
