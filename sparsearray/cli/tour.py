"""``sparsearray tour``: the main job of the library, on files of this machine."""

import argparse
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsearray._text import count, printable, size
from sparsearray.buffer import SparseBuffer
from sparsearray.errors import AccessError, SparseError
from sparsearray.region import Region

from .elf import ElfFile, Segment, read_elf

__all__ = ["add_tour", "elf_files", "map_elf", "print_tour", "resident_in"]

_TERABYTE = 1 << 40
_SPACING = 1 << 32  # from one file to the next
_SCRATCH = 1 << 39  # where the private memory goes
_WIDTH = 88  # columns


class _Mapped(NamedTuple):
    """A file in the buffer."""

    name: str
    base: int
    elf: ElfFile

    @property
    def first(self) -> Segment:
        """The segment at the lowest address."""
        return min(self.elf.loads, key=lambda segment: segment.vaddr)


def add_tour(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "tour",
        help="show what the library does, on files of this machine",
        description="Reserve a terabyte, map real ELF files into it, and read them.",
    )
    parser.set_defaults(run=lambda _: print_tour())


def elf_files() -> list[str]:
    """Find the interpreter's own file and its C library."""
    found = []
    try:
        found.append(os.readlink("/proc/self/exe"))
        for line in Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines():
            path = line.split(maxsplit=5)[5:]
            if path and Path(path[0]).name.startswith(("libc.so", "libc-", "ld-musl")):
                found.append(path[0])
                break
    except OSError:  # no /proc here
        pass
    return found


def print_tour(files: Sequence[str] | None = None) -> None:
    """
    Print the tour.

    Parameters
    ----------
    files : sequence of str, optional
        ELF files to map; by default the running interpreter and its C library.
    """
    print("A tour of sparsearray: a terabyte of addresses, populated piece by piece.")
    with SparseBuffer(_TERABYTE, name="tour") as buffer:
        _print_reservation(buffer)
        mapped = _map_files(buffer, elf_files() if files is None else files)
        if mapped:
            _print_headers(buffer, mapped)
            _print_counts(buffer, mapped)
        _print_private(buffer)
        _print_refusals(buffer, mapped)
        _print_map(buffer)


def _heading(text: str, *code: str) -> None:
    """Say what comes next, and which code does it."""
    print(f"\n{text}\n")
    for line in code:
        print(f"    >>> {line}")


def _say(text: str, indent: str = "    ") -> None:
    print(textwrap.fill(text, _WIDTH, initial_indent=indent, subsequent_indent=indent))


def _print_reservation(buffer: SparseBuffer) -> None:
    _heading(
        "Reserve addresses. No memory is taken: at first all of it is holes.",
        "buffer = SparseBuffer(1 << 40)",
    )
    _say(f"{size(buffer.nbytes)} at {buffer.address:#x}")


def _map_files(buffer: SparseBuffer, files: Sequence[str]) -> list[_Mapped]:
    _heading(
        "Map the segments of programs where their headers ask for them, as a loader does.",
        "buffer.map_file(base + segment.vaddr, nbytes, path, segment.offset)",
    )
    if not files:
        _say("No ELF file was found here: the tour goes on without one.")
    mapped = []
    for i, path in enumerate(files, start=1):
        base = i * _SPACING
        name = printable(Path(path).name)
        try:
            elf = map_elf(buffer, base, path)
        except (OSError, ValueError, SparseError) as error:
            buffer.unmap(base, _SPACING)
            _say(f"{name}: cannot be shown: {error}")
            continue
        if not elf.loads:
            _say(f"{name}: cannot be shown: it has no segments to load")
            continue
        print(f"    {name} at {base:#x}")
        for segment in elf.loads:
            print(
                f"      {segment.permissions}  {base + segment.vaddr:#13x}"
                f"  {size(segment.memsz):>11}  from byte {segment.offset:#x}{_beyond_file(segment)}"
            )
        mapped.append(_Mapped(name, base, elf))
    return mapped


def _beyond_file(segment: Segment) -> str:
    beyond = segment.memsz - segment.filesz
    return f", the last {size(beyond)} zeros" if beyond > 0 else ""


def map_elf(buffer: SparseBuffer, base: int, path: str) -> ElfFile:
    """
    Map the segments of a file as a loader does.

    Parameters
    ----------
    buffer : SparseBuffer
        Where to.
    base : int
        What is added to the addresses in the file, in bytes, whole pages.
    path : str
        The file.

    Raises
    ------
    OSError, ValueError, SparseError
        It cannot be opened or is not such a file; or a segment does not fit, after those before it
        were mapped.
    """
    nbytes = max(Path(path).stat().st_size, 1)
    with SparseBuffer(nbytes) as whole:
        whole.map_file(0, whole.nbytes, path)
        elf = read_elf(whole, 0, nbytes)
    for segment in elf.loads:
        if segment.vaddr + max(segment.memsz, segment.filesz) > _SPACING:
            msg = f"the segment at {segment.vaddr:#x} does not lie in the first {size(_SPACING)}"
            raise ValueError(msg)
        _map_segment(buffer, base, path, segment)
    return elf


def _map_segment(buffer: SparseBuffer, base: int, path: str, segment: Segment) -> None:
    """
    Map one segment, in whole pages: a window of the file, and zeros after its last byte.

    ::

        start            in_file    file_stop        stop
        |<- map_file ---------------->|<-- alloc --->|
                         |<- fill_at ->|
    """
    page = buffer.page_size
    first = base + segment.vaddr
    start = first // page * page
    in_file = first + segment.filesz
    file_stop = -(-in_file // page) * page if segment.filesz else start
    stop = -(-(first + segment.memsz) // page) * page
    writable, zeros = bool(segment.flags & 2), segment.memsz > segment.filesz
    if segment.filesz:
        file_offset = segment.offset - (first - start)
        private = writable or zeros
        buffer.map_file(start, file_stop - start, path, file_offset, copy_on_write=private)
        if zeros:
            buffer.fill_at(in_file, 0, file_stop - in_file)
    if stop > file_stop:
        buffer.alloc(file_stop, stop - file_stop)
    if zeros and not writable:
        buffer.set_writable(start, max(stop, file_stop) - start, False)


def _print_headers(buffer: SparseBuffer, mapped: Sequence[_Mapped]) -> None:
    _heading(
        "Read structs at any byte, with numpy's structured dtypes.",
        "header = buffer.read_plain(base, file_header)",
        "table = buffer.gather(base + header['phoff'] + i * size, program_header)",
    )
    for one in mapped:
        # The first segment begins with the headers: they are in memory as in the file.
        try:
            elf = read_elf(buffer, one.base + one.first.vaddr, one.first.filesz)
        except (ValueError, SparseError) as error:
            _say(f"{one.name}: no headers in its first segment: {error}")
            continue
        print(f"    {one.name}: {elf.kind}")
        _say(f"entry at {int(elf.header['entry']):#x}; segments: {_segment_kinds(elf)}", "      ")


def _segment_kinds(elf: ElfFile) -> str:
    kinds, numbers = np.unique([segment.name for segment in elf.segments], return_counts=True)
    pairs = zip(kinds.tolist(), numbers.tolist(), strict=True)
    return ", ".join(f"{number} {kind}" if number > 1 else kind for kind, number in pairs)


def _print_counts(buffer: SparseBuffer, mapped: Sequence[_Mapped]) -> None:
    segments = [(segment, one) for one in mapped for segment in one.elf.loads]
    segment, one = max(segments, key=lambda pair: pair[0].filesz)
    _heading(
        "Let numpy work on the file itself: a window is a plain array, and nothing is copied.",
        f"window = buffer.window({one.base + segment.vaddr:#x}, {segment.filesz})",
        "counts = numpy.bincount(window, minlength=256)",
    )
    window = buffer.window(one.base + segment.vaddr, segment.filesz)
    counts = np.bincount(window, minlength=256)
    common = ", ".join(f"{counts[byte]:,} are {byte:#04x}" for byte in counts.argsort()[:-4:-1])
    _say(f"of {window.size:,} bytes of {one.name}, {common}")


def _print_private(buffer: SparseBuffer) -> None:
    _heading(
        "Put memory of your own anywhere. It costs what you touch.",
        "buffer.alloc(1 << 39, 1 << 30)",
        "image = buffer.window(1 << 39, (16384, 16384), 'f4')",
        "image[8192, :4] = 1, 2, 3, 4",
        "buffer.read_plain((1 << 39) + 8192 * 16384 * 4, 'f4', shape=4)",
    )
    buffer.alloc(_SCRATCH, 1 << 30)
    image = buffer.window(_SCRATCH, (16384, 16384), "f4")
    image[8192, :4] = 1, 2, 3, 4
    _say(repr(buffer.read_plain(_SCRATCH + 8192 * 16384 * 4, "f4", shape=4)))


def _print_refusals(buffer: SparseBuffer, mapped: Sequence[_Mapped]) -> None:
    _heading("A bad access is an exception. The process lives, and nothing has changed.")
    _print_refusal(buffer, 0x9000000000, write=False)
    for one in mapped:
        if not one.first.flags & 2:
            _print_refusal(buffer, one.base + one.first.vaddr, write=True)
            break


def _print_refusal(buffer: SparseBuffer, offset: int, *, write: bool) -> None:
    call = f"write_plain({offset:#x}, 0, 'u8')" if write else f"read_plain({offset:#x}, 'u8')"
    print(f"    >>> buffer.{call}")
    try:
        if write:
            buffer.write_plain(offset, 0, "u8")
        else:
            buffer.read_plain(offset, "u8")
    except AccessError as error:
        _say(f"AccessError: {error}")


def resident_in(buffer: SparseBuffer, regions: Sequence[Region]) -> list[int] | None:
    """
    Say how many bytes of each region are in memory, by ``/proc/self/smaps``: proc(5).

    Parameters
    ----------
    buffer : SparseBuffer
        Whose regions they are.
    regions : sequence of Region
        Sorted by offset.

    Returns
    -------
    list of int, or None
        In bytes; None where the system does not say.
    """
    try:
        lines = Path("/proc/self/smaps").read_text(errors="replace").splitlines()
    except OSError:
        return None
    starts = np.array([region.offset for region in regions])
    found = [0] * len(regions)
    at = -1
    for line in lines:
        key, *rest = line.split()
        if not key.endswith(":"):
            at = int(key.split("-")[0], 16) - buffer.address
        elif key == "Rss:" and 0 <= at < buffer.nbytes:
            i = int(np.searchsorted(starts, at, "right")) - 1
            if i >= 0 and at < regions[i].offset + regions[i].nbytes:
                found[i] += int(rest[0]) << 10
    return found


def _print_map(buffer: SparseBuffer) -> None:
    _heading("What is mapped, and what of it is in memory.", "buffer.regions")
    regions = buffer.regions
    resident = resident_in(buffer, regions)
    costs = ["?"] * len(regions) if resident is None else [size(n) for n in resident]
    print(f"    {'offset':>12}  {'mapped':>10}  {'resident':>10}  kind")
    for region, cost in zip(regions, costs, strict=True):
        access = "writable" if region.writable else "read-only"
        row = f"{region.offset:#12x}  {size(region.nbytes):>10}  {cost:>10}  {region.kind:7}"
        print(f"    {row}  {access:9}  {_source(region)}".rstrip())
    total = "?" if resident is None else size(sum(resident))
    mapped = sum(region.nbytes for region in regions)
    print()
    _say(
        f"{size(buffer.nbytes)} reserved, {size(mapped)} mapped in "
        f"{count(len(regions), 'region')}, {total} resident."
    )


def _source(region: Region) -> str:
    if region.file is None:
        return ""
    return f"{printable(Path(region.file).name)} from {region.file_offset:#x}"
