"""``sparsearray info FILE``: how a file would map."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sparsearray._text import count, size
from sparsearray.buffer import SparseBuffer
from sparsearray.errors import SparseError

from .elf import MAGIC, read_elf

__all__ = ["extents_of", "print_info"]

_ROWS = 12  # of a table, before the rest is summed up
_NPY_MAGIC = b"\x93NUMPY"


def print_info(path: str) -> None:
    """
    Print what a file holds.

    Parameters
    ----------
    path : str
        The file.

    Raises
    ------
    OSError
        It cannot be opened, or is no regular file.
    """
    mode = Path(path).stat().st_mode
    if not stat.S_ISREG(mode):  # before it is opened: a FIFO would wait for its other end
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ENODEV
        text = os.strerror(number) if stat.S_ISDIR(mode) else "Not a regular file"
        raise OSError(number, text, path)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _print_facts(path, fd)
    finally:
        os.close(fd)


def extents_of(fd: int, nbytes: int) -> Iterator[tuple[int, int]]:
    """Yield where a file holds data, as (start, stop) in bytes: lseek(2) under ``SEEK_DATA``."""
    stop = 0
    while stop < nbytes:
        try:
            start = os.lseek(fd, stop, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        stop = min(os.lseek(fd, start, os.SEEK_HOLE), nbytes)
        yield start, stop


def _print_facts(path: str, fd: int) -> None:
    facts = os.fstat(fd)
    nbytes = facts.st_size
    allocated = facts.st_blocks * 512
    print(path)
    print(f"  size     {nbytes:#x} ({nbytes:,}) bytes, {size(nbytes)}")
    print(f"  on disk  {allocated:#x} ({allocated:,}) bytes, {size(allocated)}")
    if nbytes == 0:
        print("  empty: there is nothing to map")
        return
    page = os.sysconf("SC_PAGESIZE")
    pages = -(-nbytes // page)
    print(
        f"  pages    {pages:,} of {size(page)}; the last holds {nbytes - (pages - 1) * page} bytes"
    )
    _print_extents(list(extents_of(fd, nbytes)), nbytes)
    head = os.pread(fd, 16, 0)
    if head.startswith(_NPY_MAGIC):
        _print_npy(path, nbytes, page)
    elif head.startswith(MAGIC):
        _print_elf(fd, nbytes, page)


def _print_extents(extents: list[tuple[int, int]], nbytes: int) -> None:
    data = sum(stop - start for start, stop in extents)
    edges = [0, *(edge for extent in extents for edge in extent), nbytes]
    holes = sum(a < b for a, b in zip(edges[::2], edges[1::2], strict=True))
    print(f"\n  data     {count(len(extents), 'extent')}, {size(data)}")
    print(f"  holes    {count(holes, 'hole')}, {size(nbytes - data)}")
    if holes == 0:
        return
    print(f"\n    {'from':>18} {'to':>18} {'length':>12}")
    for start, stop in extents[:_ROWS]:
        print(f"    {start:#18x} {stop:#18x} {size(stop - start):>12}")
    if len(extents) > _ROWS:
        print(f"    ... and {len(extents) - _ROWS:,} more")


def _print_npy(path: str, nbytes: int, page: int) -> None:
    print("\n  .npy")
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            reader = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = reader(file)
        except ValueError as error:
            print(f"    damaged  {' '.join(str(error).split())}")
            return
        start = file.tell()
    print(f"    shape    {shape}, dtype {dtype}, {'Fortran' if fortran else 'C'} order")
    place = "on a page: maps without a copy" if start % page == 0 else "not on a page"
    print(f"    data     from {start:#x} ({start}), {place}")
    if dtype.hasobject:
        print("    objects  cannot be mapped")
        return
    wanted = start + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if wanted > nbytes:
        print(f"    damaged  cut short: {wanted - nbytes:,} bytes are missing")


def _print_elf(fd: int, nbytes: int, page: int) -> None:
    with SparseBuffer(nbytes) as buffer:
        buffer.map_file(0, -(-nbytes // page) * page, fd)
        try:
            elf = read_elf(buffer, 0, nbytes)
        except (ValueError, SparseError) as error:
            print(f"\n  ELF\n    damaged  {error}")
            return
    print(f"\n  {elf.kind}")
    print(f"    entry    {int(elf.header['entry']):#x}")
    if not elf.segments:
        return
    columns = ("segment", "flags", "file offset", "address", "in file")
    print("\n    {:9} {:5} {:>12} {:>18} {:>11}  in memory".format(*columns))
    for segment in elf.segments:
        where = f"{segment.offset:#12x} {segment.vaddr:#18x}"
        lengths = f"{size(segment.filesz):>11}  {size(segment.memsz)}"
        print(f"    {segment.name:9} {segment.permissions:5} {where} {lengths}")
    end = max(segment.offset + segment.filesz for segment in elf.segments)
    if end > nbytes:
        print(f"    damaged  cut short: {end - nbytes:,} bytes are missing")
