"""`open_elf`: executables, libraries and core dumps at their addresses."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsearray._binding import describe
from sparsearray._descriptor import Descriptor, opened

from ._assembly import Piece, assemble, check_disjoint
from ._notes import mapped_files
from ._reading import read_part
from .image import Image
from .segment import Segment

__all__ = ["open_elf"]

_MAGIC = b"\x7fELF"
_PN_XNUM = 0xFFFF  # more segments than e_phnum can say: section header 0 does
_FLAGS = ((4, "r"), (2, "w"), (1, "x"))
_KINDS = _PT_LOAD, _PT_NOTE = 1, 4  # of segments that are looked at
_TABLE_LIMIT = 64 << 20  # bytes of program headers: more than a million
_NOTES_LIMIT = 16 << 20  # bytes of notes that are read for names: kernels list files in 4 MiB


class _Elf(NamedTuple):
    """An ELF file as far as its headers tell."""

    file: Descriptor
    name: str
    size: int
    structs: Any  # of elftools, for the class and byte order of the file
    header: Any

    @property
    def is_core(self) -> bool:
        return bool(self.header.e_type == "ET_CORE")

    @property
    def pointer(self) -> np.dtype:
        """The size of an address, in the byte order of the file."""
        order = "<" if self.structs.little_endian else ">"
        return np.dtype(f"{order}u{self.structs.elfclass // 8}")


def open_elf(file: Any, *, zero_fill: bool | None = None, allow_truncated: bool = False) -> Image:
    r"""
    Open an ELF file: an executable, a library or a core dump, of 32 or 64 bits, in any byte order.

    Parameters
    ----------
    file : path, int or object with ``fileno()``
        What to open. It may be closed at once.
    zero_fill : bool, optional
        Whether memory that is longer than what the file has of it is zeros there. By default that
        is so in executables and libraries, as it is when they are loaded. Of a core dump it is what
        the dump left out, and not zero in the process: there, by default, it is not there.
    allow_truncated : bool
        Open what there is of a file that was cut short. What is missing is not there.

    Returns
    -------
    Image
        Its ``PT_LOAD`` segments at their addresses, with `Image.pointer`.

    Raises
    ------
    ImportError
        pyelftools is not installed.
    OSError
        The file cannot be opened or mapped, or the process may not have as many mappings
        (ENOMEM), which ``vm.max_map_count`` sets.
    MemoryError
        There is not enough memory for what must be copied.
    ValueError
        It is no ELF file, has no segments, or is damaged: which segment, and how.

    Notes
    -----
    Segments whose place in the file is as far into a page as their address are windows of the file;
    others, as in the cores of gdb's ``gcore``, are copied, but for pages of zeros. Sections are not
    looked at.

    References
    ----------
    elf(5), core(5)

    Examples
    --------
    >>> import sys
    >>> from sparsearray.images import open_elf
    >>> with open_elf(sys.executable) as image:
    ...     first = image.segments[0]
    ...     (
    ...         image.read_at(first.address, 4),
    ...         image.pointer.itemsize == sys.maxsize.bit_length() // 8 + 1,
    ...     )
    (b'\x7fELF', True)
    """
    _import_elftools()
    with opened(file, writable=False) as descriptor:
        elf = _read_header(descriptor)
        segments = _read_segments(elf)
        pieces = _pieces(
            elf,
            segments,
            zero_fill=not elf.is_core if zero_fill is None else bool(zero_fill),
            allow_truncated=allow_truncated,
        )
        buffer, table = assemble(pieces, elf.name)
    return Image(elf.name, tuple(segments), buffer, table, elf.pointer)


def _import_elftools() -> None:
    try:
        import elftools.elf.structs  # noqa: F401 - whether it is there
    except ImportError as error:
        msg = "open_elf needs pyelftools: pip install 'sparsearray-numpy[images]'"
        raise ImportError(msg, name="elftools") from error


def _parse(name: str, what: str, struct: Any, data: bytes) -> Any:
    """Have elftools read a structure, and say whose it is if that fails."""
    from elftools.common.exceptions import ELFParseError
    from elftools.common.utils import struct_parse

    try:
        return struct_parse(struct, BytesIO(data))
    except (ELFParseError, UnicodeDecodeError) as error:
        msg = f"{name}: {what}: {error}"
        raise ValueError(msg) from error


def _read(file: Descriptor, what: str, offset: int, nbytes: int) -> bytes:
    """Read bytes that a header promises."""
    size = os.fstat(file.fd).st_size
    # Before memory is taken for them.
    data = read_part(file, offset, nbytes) if offset + nbytes <= size else b""
    if len(data) < nbytes:
        msg = (
            f"{os.fsdecode(file.name)}: {what} of {describe(nbytes)} bytes at {describe(offset)} "
            f"ends past the end of the file, which has {describe(size)} bytes"
        )
        raise ValueError(msg)
    return data


def _read_header(file: Descriptor) -> _Elf:
    from elftools.elf.structs import ELFStructs

    name, size = os.fsdecode(file.name), os.fstat(file.fd).st_size
    ident = read_part(file, 0, 16)
    if not ident.startswith(_MAGIC):
        msg = f"{name}: no ELF file: it begins with {ident[:4]!r}"
        raise ValueError(msg)
    ident = _read(file, "the identification", 0, 16)
    bits, order = {1: 32, 2: 64}.get(ident[4]), {1: True, 2: False}.get(ident[5])
    if bits is None or order is None:
        msg = f"{name}: unknown class {ident[4]} or byte order {ident[5]} at 0x4 (4)"
        raise ValueError(msg)
    structs = ELFStructs(little_endian=order, elfclass=bits)
    structs.create_basic_structs()
    nbytes = structs.Elf_Ehdr.sizeof()
    data = _read(file, "the ELF header", 0, nbytes)
    header = _parse(name, "the ELF header", structs.Elf_Ehdr, data)
    structs.create_advanced_structs(header.e_type, header.e_machine, header.e_ident.EI_OSABI)
    return _Elf(file, name, size, structs, header)


def _program_headers(elf: _Elf) -> NDArray[Any]:
    """Read the table of segments, but for entries of other kinds than `_KINDS`."""
    header = elf.header
    number, stride = header.e_phnum, header.e_phentsize
    if number == _PN_XNUM:
        what = "section header 0, which has the number of segments,"
        data = _read(elf.file, what, header.e_shoff, elf.structs.Elf_Shdr.sizeof())
        number = _parse(elf.name, what, elf.structs.Elf_Shdr, data).sh_info
    dtype = _header_dtype(elf)
    if number and stride < dtype.itemsize:
        msg = (
            f"{elf.name}: program headers of {stride} bytes, and {dtype.itemsize} are needed for "
            f"{elf.structs.elfclass} bits"
        )
        raise ValueError(msg)
    what = f"the table of {number} program headers"
    if number * stride > _TABLE_LIMIT:
        msg = (
            f"{elf.name}: {what} of {stride} bytes takes {describe(number * stride)} bytes, more "
            f"than the {describe(_TABLE_LIMIT)} that are read"
        )
        raise ValueError(msg)
    data = _read(elf.file, what, header.e_phoff, number * stride)
    table: NDArray[Any] = np.ndarray(number, dtype, data, strides=stride)
    return table[np.isin(table["type"], _KINDS)]


def _header_dtype(elf: _Elf) -> np.dtype:
    """Return what a program header is in files of this class and byte order: elf(5)."""
    names = ("offset", "vaddr", "paddr", "filesz", "memsz", "align")
    fields: list[tuple[str, Any]] = [("type", "u4"), *((name, elf.pointer) for name in names)]
    fields.insert(1 if elf.structs.elfclass == 64 else 6, ("flags", "u4"))
    return np.dtype(fields).newbyteorder(elf.pointer.str[0])  # type: ignore[arg-type]


def _read_segments(elf: _Elf) -> list[Segment]:
    segments: list[Segment] = []
    headers = _program_headers(elf)
    loads = headers[headers["type"] == _PT_LOAD]
    fields = ("flags", "offset", "vaddr", "filesz", "memsz")
    for number, values in enumerate(zip(*(loads[name].tolist() for name in fields), strict=True)):
        flags, offset, address, in_file, nbytes = values
        permissions = "".join(mark if flags & bit else "-" for bit, mark in _FLAGS)
        if in_file > nbytes:
            msg = (
                f"{elf.name}: segment {number} at address {describe(address)} has "
                f"{describe(in_file)} bytes in the file, more than its {describe(nbytes)} in memory"
            )
            raise ValueError(msg)
        segments.append(Segment(address, nbytes, in_file, permissions, elf.name, offset, None))
    if not segments:
        msg = f"{elf.name}: no segments to load (PT_LOAD) in this {elf.header.e_type}"
        raise ValueError(msg)
    if elf.is_core:
        return _named(segments, _read_names(elf, headers[headers["type"] == _PT_NOTE]))
    return segments


def _read_names(elf: _Elf, headers: NDArray[Any]) -> list[tuple[int, int, str]]:
    """Read which files a process had mapped, sorted, from as many notes as are read."""
    found: list[tuple[int, int, str]] = []
    left = _NOTES_LIMIT
    ranges = zip(headers["offset"].tolist(), headers["filesz"].tolist(), strict=True)
    for offset, length in dict.fromkeys(ranges):
        if offset < elf.size and left > 0:
            data = read_part(elf.file, offset, min(length, elf.size - offset, left))
            left -= len(data)
            found += mapped_files(data, elf.pointer)
    return sorted(found)


def _named(segments: list[Segment], files: list[tuple[int, int, str]]) -> list[Segment]:
    starts = [start for start, _, _ in files]
    named = []
    for segment in segments:
        i = bisect_right(starts, segment.address) - 1
        inside = i >= 0 and segment.address < files[i][1]
        named.append(segment._replace(name=files[i][2]) if inside else segment)
    return named


def _pieces(
    elf: _Elf, segments: Sequence[Segment], *, zero_fill: bool, allow_truncated: bool
) -> list[Piece]:
    """Find what is there of segments, sorted by address."""
    whole, pieces = [], []
    for i, segment in enumerate(segments):
        label, offset = f"segment {i}", segment.file_offset or 0
        in_file = min(segment.nbytes_in_file, max(elf.size - offset, 0))
        if in_file < segment.nbytes_in_file and not allow_truncated:
            msg = (
                f"{elf.name}: {label} at address {describe(segment.address)} has "
                f"{describe(segment.nbytes_in_file)} bytes from {describe(offset)} of the file on, "
                f"and the file has {describe(elf.size)} bytes: it was cut short "
                "(allow_truncated=True opens what there is)"
            )
            raise ValueError(msg)
        whole.append(Piece(segment.address, segment.nbytes, None, 0, label))
        pieces.append(Piece(segment.address, in_file, elf.file, offset, label))
        if zero_fill:
            rest = segment.nbytes - segment.nbytes_in_file
            after = segment.address + segment.nbytes_in_file
            pieces.append(Piece(after, rest, None, 0, f"the zeros of {label}"))
    check_disjoint(whole, elf.name, 1 << elf.structs.elfclass)
    return pieces
