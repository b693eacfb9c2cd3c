"""``sparsearray info FILE``: how a file would map."""

import argparse
import os
import textwrap

from sparsearray._text import count, printable, size
from sparsearray.buffer import SparseBuffer
from sparsearray.errors import SparseError
from sparsearray.npy import MAGIC as NPY_MAGIC
from sparsearray.npy import read_header

from .elf import MAGIC, read_elf
from .formats import HDF5_MAGIC, refuse_zarr
from .regular import extents_of, opened_regular

__all__ = ["add_info", "print_info"]

_ROWS = 12  # of extents, before the rest is summed up
_SEGMENTS = 40  # likewise: a core dump has thousands
_SHORT = 76  # columns of a header that may be of any length


def add_info(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "info",
        help="show how a file would map",
        description="Show a file's data and holes and, for .npy and ELF files, what is inside.",
    )
    parser.add_argument("file", metavar="FILE")
    parser.set_defaults(run=lambda options: print_info(options.file))


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
    refuse_zarr(path)
    with opened_regular(path) as fd:
        _print_facts(path, fd)


def _print_facts(path: str, fd: int) -> None:
    facts = os.fstat(fd)
    nbytes = facts.st_size
    allocated = facts.st_blocks * 512
    print(printable(path))
    print(f"  size     {nbytes:#x} ({nbytes:,}) bytes, {size(nbytes)}")
    print(f"  on disk  {allocated:#x} ({allocated:,}) bytes, {size(allocated)}")
    if nbytes == 0:
        print("  empty: there is nothing to map")
        return
    page = os.sysconf("SC_PAGESIZE")
    pages = -(-nbytes // page)
    last = nbytes - (pages - 1) * page
    print(f"  pages    {pages:,} of {size(page)}; the last holds {count(last, 'byte')}")
    _print_extents(extents_of(fd, nbytes), nbytes, allocated)
    head = os.pread(fd, len(HDF5_MAGIC), 0)
    if head.startswith(NPY_MAGIC):
        _print_npy(fd, nbytes, page)
    elif head.startswith(MAGIC):
        _print_elf(fd, nbytes, page)
    elif head == HDF5_MAGIC:
        print("\n  HDF5: 'sparsearray convert' writes a dataset in it as .npy")


def _print_extents(extents: list[tuple[int, int]] | None, nbytes: int, allocated: int) -> None:
    if extents is None:
        print("\n  data     the file system does not say where, nor where holes are")
        return
    data = sum(stop - start for start, stop in extents)
    edges = [0, *(edge for extent in extents for edge in extent), nbytes]
    holes = sum(a < b for a, b in zip(edges[::2], edges[1::2], strict=True))
    print(f"\n  data     {count(len(extents), 'extent')}, {size(data)}")
    if holes == 0:
        less = allocated < nbytes
        print(f"  holes    none{', though less is on disk: compressed, say' if less else ''}")
        return
    print(f"  holes    {count(holes, 'hole')}, {size(nbytes - data)}")
    if extents:
        print(f"\n    {'data from':>18} {'to':>18} {'length':>12}")
    for start, stop in extents[:_ROWS]:
        print(f"    {start:#18x} {stop:#18x} {size(stop - start):>12}")
    _print_more(len(extents), _ROWS)


def _print_more(rows: int, shown: int) -> None:
    if rows > shown:
        print(f"    ... and {rows - shown:,} more")


def _print_npy(fd: int, nbytes: int, page: int) -> None:
    print("\n  .npy")
    try:
        header = read_header(fd)
    except ValueError as error:
        text = str(error).removeprefix("damaged header: ")
        print(f"    damaged  {textwrap.shorten(text, _SHORT)}")
        return
    dtype, start = header.dtype, header.start
    order = "Fortran" if header.order == "F" else "C"
    print(f"    shape    {textwrap.shorten(str(header.shape), _SHORT)}, {order} order")
    print(f"    dtype    {textwrap.shorten(str(dtype), _SHORT)}")
    place = "on a page: maps as it is" if start % page == 0 else "not on a page"
    print(f"    data     from {start:#x} ({start}), {place}")
    if dtype.hasobject:
        print("    objects  cannot be mapped")
        return
    missing = header.stop - nbytes
    if missing > 0:
        print(f"    damaged  cut short: {count(missing, 'byte')} missing")


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
    segments = elf.segments
    if not segments:
        print("    no segments")
        return
    columns = ("segment", "flags", "file offset", "address", "in file")
    print("\n    {:10} {:5} {:>12} {:>18} {:>11}  in memory".format(*columns))
    for segment in segments[:_SEGMENTS]:
        where = f"{segment.offset:#12x} {segment.vaddr:#18x}"
        lengths = f"{size(segment.filesz):>11}  {size(segment.memsz)}"
        print(f"    {segment.name:10} {segment.permissions:5} {where} {lengths}")
    _print_more(len(segments), _SEGMENTS)
    missing = max(segment.offset + segment.filesz for segment in segments) - nbytes
    if missing > 0:
        print(f"    damaged  cut short: {count(missing, 'byte')} missing")
