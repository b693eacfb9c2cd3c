"""What tests of holes in files share: the file, and who says where its data is."""

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsearray import SparseBuffer

P = mmap.PAGESIZE
R, W = mmap.PROT_READ, mmap.PROT_WRITE
PAGES = 64
DATA = (0, 3, 4, 9, 30, 31, 32, 62)


def runs(pages: Iterable[int]) -> list[list[int]]:
    """Join page numbers into [start, stop) in bytes."""
    found: list[list[int]] = []
    for page in sorted(set(pages)):
        if found and found[-1][1] == page * P:
            found[-1][1] += P
        else:
            found.append([page * P, page * P + P])
    return found


def data_pages(fd: int) -> set[int]:
    """Ask the file system which pages of a file hold data."""
    pages: set[int] = set()
    at, size = 0, os.fstat(fd).st_size
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, start, os.SEEK_HOLE)
        pages.update(range(start // P, -(-at // P)))
    return pages


def cached_pages(fd: int, count: int) -> set[int]:
    """Ask mincore(2) which pages of a file are in the page cache, by a mapping of the test's own."""
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(fd, count * P, mmap.MAP_PRIVATE, R | W) as view:
        found = (ctypes.c_ubyte * count)()
        start = ctypes.c_char.from_buffer(view)
        failed = libc.mincore(ctypes.byref(start), ctypes.c_size_t(count * P), found)
        del start
        assert not failed
        return set(np.flatnonzero(np.frombuffer(found, "u1") & 1).tolist())


class Storage(NamedTuple):
    """A file of 64 pages, most of them holes: path, a descriptor of the test's own, content."""

    path: Path
    fd: int

    def content(self) -> bytes:
        """Read all of it, in whole pages."""
        size = os.fstat(self.fd).st_size
        return os.pread(self.fd, size, 0).ljust(-(-size // P) * P, b"\0")


def by_page(buffer: SparseBuffer) -> dict[int, str]:
    """Spread regions over pages; holes left out."""
    return {
        page: region.kind
        for region in buffer.regions
        for page in range(region.offset // P, (region.offset + region.nbytes) // P)
    }
