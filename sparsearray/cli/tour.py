"""``sparsearray tour``: the main job of the library, on files of this machine."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparsearray._text import count, size
from sparsearray.buffer import SparseBuffer
from sparsearray.errors import AccessError, SparseError
from sparsearray.region import Region

from .elf import ElfFile, Segment, read_elf

__all__ = ["elf_files", "map_elf", "print_tour", "resident_in"]

_TERABYTE = 1 << 40
_SPACING = 1 << 32  # from one file to the next
_SCRATCH = 1 << 39  # where the private memory goes


class _Mapped(NamedTuple):
    path: str
    base: int
    elf: ElfFile


def elf_files() -> list[str]:
    """Find the interpreter's own file and its C library."""
    found = []
    try:
        found.append(os.readlink("/proc/self/exe"))
        for line in Path("/proc/self/maps").read_text().splitlines():
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
    page = os.sysconf("SC_PAGESIZE")
    with SparseBuffer(_TERABYTE, name="tour") as buffer:
        _print_reservation(buffer)
        mapped = list(_map_files(buffer, elf_files() if files is None else files, page))
        if mapped:
            _print_headers(buffer, mapped)
            _print_counts(buffer, mapped)
        _print_private(buffer)
        _print_refusals(buffer, mapped)
        _print_map(buffer)


def _heading(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def _print_reservation(buffer: SparseBuffer) -> None:
    print("A tour of sparsearray: a terabyte of addresses, populated piece by piece.")
    _heading("Reserve")
    print("    buffer = SparseBuffer(1 << 40)")
    print(f"{size(buffer.nbytes)} of addresses at {buffer.address:#x}, and no memory: all holes.")


def _map_files(buffer: SparseBuffer, files: Sequence[str], page: int) -> Iterator[_Mapped]:
    _heading("Map real files, where their program headers ask")
    if not files:
        print("No ELF file was found here: the tour goes on without one.")
        return
    print("    buffer.map_file(base + segment.vaddr, nbytes, path, segment.offset)")
    for i, path in enumerate(files):
        base = i * _SPACING
        try:
            elf = map_elf(buffer, base, path, page)
        except (OSError, ValueError, SparseError) as error:
            print(f"{path}: cannot be shown: {error}")
            continue
        loads = elf.loads
        print(f"{Path(path).name} at {base:#x}: {count(len(loads), 'segment')}")
        for segment in loads:
            print(
                f"    {segment.permissions}  {base + segment.vaddr:#14x}  {size(segment.memsz):>10}"
                f"  from byte {segment.offset:#x} of the file{_beyond_file(segment)}"
            )
        yield _Mapped(path, base, elf)


def _beyond_file(segment: Segment) -> str:
    beyond = segment.memsz - segment.filesz
    return f", {size(beyond)} of zeros after it" if beyond else ""


def map_elf(buffer: SparseBuffer, base: int, path: str, page: int) -> ElfFile:
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
    page : int
        The page size in bytes.

    Raises
    ------
    OSError, ValueError, SparseError
        It cannot be opened or is not such a file, or a segment lies outside the buffer.
    """
    with SparseBuffer(max(Path(path).stat().st_size, 1)) as whole:
        whole.map_file(0, whole.nbytes, path)
        elf = read_elf(whole, 0, whole.nbytes)
    for segment in elf.loads:
        start = segment.vaddr // page * page
        in_file = segment.vaddr + segment.filesz
        file_stop = -(-in_file // page) * page
        stop = -(-(segment.vaddr + segment.memsz) // page) * page
        writable = bool(segment.flags & 2)
        if segment.filesz:
            file_offset = segment.offset - (segment.vaddr - start)
            nbytes = file_stop - start
            buffer.map_file(base + start, nbytes, path, file_offset, copy_on_write=writable)
        if writable and segment.memsz > segment.filesz:
            buffer.fill_at(base + in_file, 0, file_stop - in_file)
        if stop > file_stop:
            buffer.alloc(base + file_stop, stop - file_stop)
    return elf


def _print_headers(buffer: SparseBuffer, mapped: list[_Mapped]) -> None:
    _heading("Read structs at any byte")
    print("    header = buffer.read_plain(base, file_header)      # numpy structured dtypes")
    print("    table = buffer.gather(base + header['phoff'] + i * size, program_header)")
    for one in mapped:
        path, base = one.path, one.base
        # The first segment holds the headers, so they are there at their place in memory too.
        elf = read_elf(buffer, base + _lowest(buffer, base), one.elf.loads[0].filesz)
        print(f"{Path(path).name}: {elf.kind}, entry at {int(elf.header['entry']):#x}")
        kinds, numbers = np.unique([segment.name for segment in elf.segments], return_counts=True)
        summary = ", ".join(f"{n} {kind}" for kind, n in zip(kinds, numbers, strict=True))
        print(f"    {len(elf.segments)} program headers: {summary}")


def _lowest(buffer: SparseBuffer, base: int) -> int:
    return min(region.offset for region in buffer.regions if region.offset >= base) - base


def _print_counts(buffer: SparseBuffer, mapped: list[_Mapped]) -> None:
    _heading("Let numpy work on the file itself")
    segments = [(segment, one) for one in mapped for segment in one.elf.loads]
    segment, one = max(segments, key=lambda pair: pair[0].filesz)
    print("    window = buffer.window(offset, nbytes)             # an ndarray, nothing copied")
    print("    counts = numpy.bincount(window, minlength=256)")
    window = buffer.window(one.base + segment.vaddr, segment.filesz)
    counts = np.bincount(window, minlength=256)
    common = ", ".join(f"{counts[byte]:,} of {byte:#04x}" for byte in counts.argsort()[:-4:-1])
    print(f"{window.size:,} bytes of {Path(one.path).name} counted; the commonest: {common}")


def _print_private(buffer: SparseBuffer) -> None:
    _heading("Memory of your own, anywhere")
    print("    buffer.alloc(1 << 39, 1 << 30)")
    print("    buffer.window(1 << 39, (16384, 16384), 'f4')[8192, :4] = 1, 2, 3, 4")
    buffer.alloc(_SCRATCH, 1 << 30)
    buffer.window(_SCRATCH, (16384, 16384), "f4")[8192, :4] = 1, 2, 3, 4
    row = _SCRATCH + 8192 * 16384 * 4
    values = buffer.read_plain(row, "f4", 4)
    print(f"{size(1 << 30)} in the middle of the terabyte; read back: {values}")


def _print_refusals(buffer: SparseBuffer, mapped: list[_Mapped]) -> None:
    _heading("A bad access is an exception")
    tries = [("buffer.read_plain(0x9000000000, 'u8')", 0x9000000000, False)]
    if mapped:
        base = mapped[0].base + _lowest(buffer, mapped[0].base)
        tries.append((f"buffer.write_plain({base:#x}, 0, 'u8')", base, True))
    for call, offset, write in tries:
        print(f"    {call}")
        try:
            if write:
                buffer.write_plain(offset, 0, "u8")
            else:
                buffer.read_plain(offset, "u8")
        except AccessError as error:
            print(f"AccessError: {error}")


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
    _heading("What is mapped, and what it costs")
    regions = buffer.regions
    resident = resident_in(buffer, regions)
    costs = ["?"] * len(regions) if resident is None else [size(n) for n in resident]
    print(f"{'offset':>14}  {'mapped':>10}  {'resident':>10}  kind")
    for region, cost in zip(regions, costs, strict=True):
        access = "writable" if region.writable else "read-only"
        source = f" {Path(region.file).name} from {region.file_offset:#x}" if region.file else ""
        print(
            f"{region.offset:#14x}  {size(region.nbytes):>10}  {cost:>10}"
            f"  {region.kind}, {access}{source}"
        )
    total = "?" if resident is None else size(sum(resident))
    mapped = sum(region.nbytes for region in regions)
    print(
        f"\n{size(buffer.nbytes)} reserved, {size(mapped)} mapped in "
        f"{count(len(regions), 'region')}, {total} resident."
    )
