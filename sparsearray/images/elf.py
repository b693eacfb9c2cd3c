"""`open_elf`: executables, libraries and core dumps at their addresses."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from sparsearray._binding import describe
from sparsearray._descriptor import Descriptor, opened

from ._assembly import Piece, assemble, check_disjoint
from ._reading import read_part
from .image import Image
from .segment import Segment

__all__ = ["open_elf"]

_MAGIC = b"\x7fELF"
_PN_XNUM = 0xFFFF  # more segments than e_phnum can say: section header 0 does
_FLAGS = ((4, "r"), (2, "w"), (1, "x"))
_NOTES_LIMIT = 64 << 20  # bytes of notes that are read for names


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
        The file cannot be opened or mapped.
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
    order = "<" if elf.structs.little_endian else ">"
    pointer = np.dtype(f"{order}u{elf.structs.elfclass // 8}")
    return Image(elf.name, tuple(segments), buffer, table, pointer)


def _import_elftools() -> None:
    try:
        import elftools.elf.structs  # noqa: F401
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


def _program_headers(elf: _Elf) -> Iterator[Any]:
    """Read the table of segments."""
    header = elf.header
    number, stride = header.e_phnum, header.e_phentsize
    nbytes = elf.structs.Elf_Phdr.sizeof()
    if number == _PN_XNUM:
        what = "section header 0, which has the number of segments,"
        data = _read(elf.file, what, header.e_shoff, elf.structs.Elf_Shdr.sizeof())
        number = _parse(elf.name, what, elf.structs.Elf_Shdr, data).sh_info
    if number and stride < nbytes:
        msg = (
            f"{elf.name}: program headers of {stride} bytes, and {nbytes} are needed for "
            f"{elf.structs.elfclass} bits"
        )
        raise ValueError(msg)
    what = f"the table of {number} program headers"
    table = _read(elf.file, what, header.e_phoff, number * stride)
    for i in range(number):
        part = table[i * stride : i * stride + nbytes]
        yield _parse(elf.name, f"program header {i}", elf.structs.Elf_Phdr, part)


def _read_segments(elf: _Elf) -> list[Segment]:
    segments: list[Segment] = []
    notes: list[tuple[int, int]] = []
    for header in _program_headers(elf):
        if header.p_type == "PT_NOTE":
            notes.append((header.p_offset, header.p_filesz))
        if header.p_type != "PT_LOAD":
            continue
        permissions = "".join(mark if header.p_flags & bit else "-" for bit, mark in _FLAGS)
        number, address = len(segments), header.p_vaddr
        if header.p_filesz > header.p_memsz:
            msg = (
                f"{elf.name}: segment {number} at address {describe(address)} has "
                f"{describe(header.p_filesz)} bytes in the file, more than its "
                f"{describe(header.p_memsz)} in memory"
            )
            raise ValueError(msg)
        sizes = header.p_memsz, header.p_filesz
        segments.append(Segment(address, *sizes, permissions, elf.name, header.p_offset, None))
    if not segments:
        msg = f"{elf.name}: no segments to load (PT_LOAD) in this {elf.header.e_type}"
        raise ValueError(msg)
    if elf.is_core:
        return _named(segments, _mapped_files(elf, notes))
    return segments


def _mapped_files(elf: _Elf, notes: Sequence[tuple[int, int]]) -> list[tuple[int, int, str]]:
    """Read which files a process had mapped: start and stop of the addresses, and the name."""
    found: list[tuple[int, int, str]] = []
    nbytes = elf.structs.Elf_Nhdr.sizeof()
    for offset, length in notes:
        if offset >= elf.size:
            continue
        data = read_part(elf.file, offset, min(length, _NOTES_LIMIT))
        at = 0
        # Names are for people: what cannot be read of them is left out, and the memory is there.
        while at + nbytes <= len(data):
            note = _parse(elf.name, "a note", elf.structs.Elf_Nhdr, data[at : at + nbytes])
            start = at + nbytes + -(-note.n_namesz // 4) * 4
            if note.n_type == "NT_FILE":
                try:
                    listed = _parse(
                        elf.name, "NT_FILE", elf.structs.Elf_Nt_File, data[start:][: note.n_descsz]
                    )
                except ValueError:
                    return found
                found += (
                    (entry.vm_start, entry.vm_end, os.fsdecode(name))
                    for entry, name in zip(listed.Elf_Nt_File_Entry, listed.filename, strict=True)
                )
            at = start + -(-note.n_descsz // 4) * 4
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
